# Configures a two-target project whose lower layer depends on its upper one: beamline_library() must refuse it.
cmake_minimum_required(VERSION 3.25)
file(REMOVE_RECURSE ${WORK})
foreach(case good bad)
  if(case STREQUAL "good")
    set(deps "beamline::low")
    set(level 1)
  else()
    set(deps "beamline::low")
    set(level 0)
  endif()
  file(WRITE ${WORK}/${case}/CMakeLists.txt "cmake_minimum_required(VERSION 3.25)\nproject(check NONE)\n"
    "list(APPEND CMAKE_MODULE_PATH ${SOURCE}/cmake)\ninclude(BeamlineLibrary)\n"
    "beamline_library(NAME low LEVEL 0)\nbeamline_library(NAME high LEVEL ${level} DEPS ${deps})\n")
  execute_process(COMMAND ${CMAKE_COMMAND} -S ${WORK}/${case} -B ${WORK}/${case}/build
    RESULT_VARIABLE result_${case} ERROR_VARIABLE error_${case} OUTPUT_QUIET)
endforeach()
if(NOT result_good EQUAL 0)
  message(FATAL_ERROR "a correct dependency was refused: ${error_good}")
endif()
if(result_bad EQUAL 0 OR NOT error_bad MATCHES "Layer violation")
  message(FATAL_ERROR "a dependency on an equal level was accepted: ${error_bad}")
endif()
