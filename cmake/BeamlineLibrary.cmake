# One library per folder, each with a level. A dependency must have a strictly lower level: checked here, at configure
# time, for targets, and by tests/architecture for includes.
#
#   beamline_library(NAME data LEVEL 1 SOURCES a.cc b.cc HEADERS a.h DEPS beamline::base LIBS absl::status)
#
# NAME x makes target beamline_x and alias beamline::x. DEPS are Beamline targets, LIBS everything else.
include_guard(GLOBAL)

function(beamline_set_compile_options target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wno-unused-parameter;-Wno-sign-compare;-Wno-missing-field-initializers>)
  if(BEAMLINE_WERROR)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
  endif()
endfunction()

function(beamline_library)
  cmake_parse_arguments(ARG "" "NAME;LEVEL" "SOURCES;HEADERS;DEPS;LIBS" ${ARGN})
  if(ARG_UNPARSED_ARGUMENTS OR NOT DEFINED ARG_NAME OR NOT DEFINED ARG_LEVEL)
    message(FATAL_ERROR "beamline_library: NAME and LEVEL are required; unknown: '${ARG_UNPARSED_ARGUMENTS}'")
  endif()
  set(target beamline_${ARG_NAME})
  if(ARG_SOURCES)
    add_library(${target} STATIC ${ARG_SOURCES})
    set(scope PUBLIC)
    beamline_set_compile_options(${target})
    target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
  else()
    add_library(${target} INTERFACE)
    set(scope INTERFACE)
    target_compile_features(${target} INTERFACE cxx_std_20)
    target_include_directories(${target} INTERFACE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
  endif()
  add_library(beamline::${ARG_NAME} ALIAS ${target})
  set_target_properties(${target} PROPERTIES BEAMLINE_LEVEL ${ARG_LEVEL})
  foreach(dep IN LISTS ARG_DEPS)
    if(NOT TARGET ${dep})
      message(FATAL_ERROR "${target}: dependency ${dep} does not exist (yet): add_subdirectory lower levels first")
    endif()
    get_target_property(actual ${dep} ALIASED_TARGET)
    if(NOT actual)
      set(actual ${dep})
    endif()
    get_target_property(level ${actual} BEAMLINE_LEVEL)
    if(level STREQUAL "level-NOTFOUND" OR NOT level LESS ARG_LEVEL)
      message(FATAL_ERROR
        "Layer violation: ${target} (level ${ARG_LEVEL}) may not depend on ${dep} (level ${level}). "
        "A dependency must have a strictly lower level; see README.md, \"Layers\".")
    endif()
  endforeach()
  target_link_libraries(${target} ${scope} ${ARG_DEPS} ${ARG_LIBS})
endfunction()

# beamline_test(NAME data SOURCES a_test.cc DEPS beamline::data [LABELS slow])
# One executable beamline_<NAME>_test; every gtest case becomes one ctest test. Tests find shared data through
# BEAMLINE_SHARED_DIR and the source tree through BEAMLINE_SOURCE_DIR.
function(beamline_test)
  cmake_parse_arguments(ARG "" "NAME" "SOURCES;DEPS;LIBS;LABELS" ${ARGN})
  if(NOT BEAMLINE_BUILD_TESTS)
    return()
  endif()
  set(target beamline_${ARG_NAME}_test)
  add_executable(${target} ${ARG_SOURCES})
  beamline_set_compile_options(${target})
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_compile_definitions(${target} PRIVATE
    BEAMLINE_SOURCE_DIR="${PROJECT_SOURCE_DIR}" BEAMLINE_SHARED_DIR="${PROJECT_SOURCE_DIR}/../shared")
  target_link_libraries(${target} PRIVATE ${ARG_DEPS} ${ARG_LIBS} GTest::gmock GTest::gtest_main)
  gtest_discover_tests(${target} DISCOVERY_MODE PRE_TEST TEST_PREFIX ${ARG_NAME}. PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT 900)
endfunction()
