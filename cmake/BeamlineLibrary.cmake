# One library per folder, each with a level. A dependency must have a strictly lower level: checked here, at configure
# time, for targets, and by tests/architecture for includes.
#
#   beamline_library(NAME data LEVEL 1 SOURCES a.cc b.cc HEADERS a.h DEPS beamline::base LIBS absl::status)
#
# NAME x makes target beamline_x and alias beamline::x. DEPS are Beamline targets, LIBS everything else.
include_guard(GLOBAL)
include(BeamlinePrecompiled)

# A folder's sources are compiled a few at a time, as one: templates and headers that they share are then read and
# instantiated once, which is most of the work. scripts/lint.sh reads each source alone, so that each includes what it
# uses. Files of a folder share the names of its unnamed namespaces. OFF: every source alone, as IDEs like it.
option(BEAMLINE_UNITY "Compile the sources of a folder a few at a time" ON)
set(BEAMLINE_UNITY_SIZE 6)       # of a library: an edit of one is rebuilt in under 20 s
set(BEAMLINE_UNITY_TEST_SIZE 4)  # of the tests

# Less work for the compiler in tests, whose time is in the libraries.
set(BEAMLINE_TEST_COMPILE_OPTIONS $<$<AND:$<CONFIG:Release>,$<COMPILE_LANGUAGE:CXX>>:-O1>)
if(BEAMLINE_SANITIZE)
  set(BEAMLINE_TEST_COMPILE_OPTIONS $<$<COMPILE_LANGUAGE:CXX>:-O0>)  # instrumented code takes twice as long to optimise
endif()

function(beamline_set_compile_options target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wno-unused-parameter;-Wno-sign-compare;-Wno-missing-field-initializers>)
  if(BEAMLINE_SANITIZE)
    # Beside the instrumentation gcc 12's flow analysis warns of what is not there.
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wno-array-bounds;-Wno-stringop-overflow>)
  endif()
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
    beamline_precompiled_set(set ${ARG_LEVEL})
    beamline_precompile(${target} ${set})
    set_target_properties(${target} PROPERTIES UNITY_BUILD ${BEAMLINE_UNITY} UNITY_BUILD_BATCH_SIZE ${BEAMLINE_UNITY_SIZE})
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
  foreach(lib IN LISTS ARG_LIBS)
    if(TARGET ${lib})
      get_target_property(level ${lib} BEAMLINE_LEVEL)
      if(level MATCHES "^[0-9]+$")
        message(FATAL_ERROR "Layer violation: ${target} names ${lib} (level ${level}) under LIBS: it belongs under DEPS, "
          "where its level is checked.")
      endif()
    endif()
  endforeach()
  target_link_libraries(${target} ${scope} ${ARG_DEPS} ${ARG_LIBS})
endfunction()

# beamline_test_target(TARGET LEVEL): an executable or library of the tests, compiled as they are.
function(beamline_test_target target level)
  beamline_set_compile_options(${target})
  target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR}/tests)
  target_compile_options(${target} PRIVATE ${BEAMLINE_TEST_COMPILE_OPTIONS} -fPIE)
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
  target_link_libraries(${target} PRIVATE GTest::gmock)
  beamline_precompiled_set(set ${level})
  beamline_precompile(${target} ${set} TEST)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${BEAMLINE_UNITY} UNITY_BUILD_BATCH_SIZE ${BEAMLINE_UNITY_TEST_SIZE})
endfunction()

# A program with libtorch takes half a second to start, an instrumented one two. Where nobody runs single cases, the cases
# of an executable therefore share this many processes; 0: each case is a test of its own.
set(shards 0)
if(BEAMLINE_SANITIZE)
  set(shards 4)
endif()
set(BEAMLINE_TEST_SHARDS ${shards} CACHE STRING "Processes that the cases of a test executable share; 0: one for each case")

# beamline_test(NAME data SOURCES a_test.cc DEPS beamline::data [LABELS slow])
# One executable beamline_<NAME>_test; every gtest case becomes one ctest test, or a part of one of
# BEAMLINE_TEST_SHARDS. Tests find shared data through
# BEAMLINE_SHARED_DIR and the source tree through BEAMLINE_SOURCE_DIR of testing/paths.h.
function(beamline_test)
  cmake_parse_arguments(ARG "" "NAME" "SOURCES;DEPS;LIBS;LABELS" ${ARGN})
  if(NOT BEAMLINE_BUILD_TESTS)
    return()
  endif()
  set(target beamline_${ARG_NAME}_test)
  add_executable(${target} ${ARG_SOURCES})
  target_link_libraries(${target} PRIVATE ${ARG_DEPS} ${ARG_LIBS} beamline_test_paths GTest::gtest_main)
  set(highest 0)
  foreach(dep IN LISTS ARG_DEPS)
    if(TARGET ${dep})
      get_target_property(level ${dep} BEAMLINE_LEVEL)
      if(level GREATER highest)
        set(highest ${level})
      endif()
    endif()
  endforeach()
  if("beamline::proto" IN_LIST ARG_DEPS)
    set(highest 8)
  endif()
  beamline_test_target(${target} ${highest})
  if(ARG_LABELS)
    list(PREPEND ARG_LABELS LABELS)
  endif()
  set_property(GLOBAL APPEND PROPERTY BEAMLINE_TESTS "${ARG_NAME}=$<TARGET_FILE:${target}>")
  if(NOT BEAMLINE_TEST_SHARDS)
    gtest_discover_tests(${target} DISCOVERY_MODE PRE_TEST TEST_PREFIX ${ARG_NAME}. PROPERTIES TIMEOUT 900 ${ARG_LABELS})
    return()
  endif()
  math(EXPR last "${BEAMLINE_TEST_SHARDS} - 1")
  foreach(shard RANGE ${last})
    set(name ${ARG_NAME}.cases_${shard}_of_${BEAMLINE_TEST_SHARDS})
    add_test(NAME ${name} COMMAND ${target})
    set_tests_properties(${name} PROPERTIES TIMEOUT 1800 ${ARG_LABELS}
      ENVIRONMENT "GTEST_TOTAL_SHARDS=${BEAMLINE_TEST_SHARDS};GTEST_SHARD_INDEX=${shard}")
  endforeach()
endfunction()
