# Compiler launcher, linker and sanitizers: what the machine offers, never required.
include_guard(GLOBAL)

find_program(BEAMLINE_CCACHE ccache)
if(BEAMLINE_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${BEAMLINE_CCACHE})
endif()
# Some packages ask for it, and precompiled headers serve only sources that are compiled alike.
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-pthread>)
find_program(BEAMLINE_LLD ld.lld)
if(BEAMLINE_LLD)
  add_link_options(-fuse-ld=lld)
endif()
if(BEAMLINE_SANITIZE)
  add_compile_options(-fsanitize=${BEAMLINE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all -O1 -g1)
  add_link_options(-fsanitize=${BEAMLINE_SANITIZE})
endif()
