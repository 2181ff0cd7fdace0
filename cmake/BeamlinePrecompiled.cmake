# Precompiled third-party headers: two thirds of the time of a translation unit went into reading the same standard,
# Abseil, GoogleTest, ATen and gRPC headers again and again. Nothing of ours is precompiled, and every source still
# includes what it uses: scripts/lint.sh reads each one without this help.
#
#   beamline_precompile(TARGET plain|tensor|rpc [TEST])
#
# A set is compiled once, for all targets that name it, and read once before anything is compiled with it. TEST adds
# GoogleTest.
include_guard(GLOBAL)
option(BEAMLINE_PRECOMPILE "Precompile third-party headers" ON)

# Only what is cheap to have and not to use: nlohmann's JSON and ATen's operators cost each source 1 to 2 s more,
# precompiled or not.
set(BEAMLINE_PRECOMPILED_plain
  <algorithm> <array> <atomic> <cmath> <cstdint> <filesystem> <fstream> <functional> <limits> <map> <memory> <mutex>
  <numeric> <optional> <random> <set> <string> <string_view> <thread> <unordered_map> <utility> <vector>
  <absl/container/flat_hash_map.h> <absl/status/status.h> <absl/status/statusor.h> <absl/strings/str_cat.h>
  <absl/strings/str_format.h> <absl/strings/str_join.h> <absl/time/clock.h> <absl/time/time.h> <absl/types/span.h>)
set(BEAMLINE_PRECOMPILE_LAUNCHER ${CMAKE_CURRENT_LIST_DIR}/precompile.sh)
set(BEAMLINE_PRECOMPILED_tensor <ATen/core/Tensor.h>)
set(BEAMLINE_PRECOMPILED_rpc <grpcpp/grpcpp.h> <google/protobuf/message.h>)

function(beamline_precompile target set)
  if(NOT BEAMLINE_PRECOMPILE)
    return()
  endif()
  set(headers ${BEAMLINE_PRECOMPILED_plain})
  if(NOT set STREQUAL plain)
    list(APPEND headers ${BEAMLINE_PRECOMPILED_${set}})
  endif()
  set(owner beamline_precompiled_${set})
  if("TEST" IN_LIST ARGN)
    list(APPEND headers <gtest/gtest.h> <gmock/gmock.h>)
    string(APPEND owner _test)
  endif()
  if(NOT TARGET ${owner})
    file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/precompiled/${owner}.cc CONTENT "")
    add_library(${owner} OBJECT ${PROJECT_BINARY_DIR}/precompiled/${owner}.cc)
    beamline_set_compile_options(${owner})
    target_precompile_headers(${owner} PRIVATE ${headers})
    if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
      set_target_properties(${owner} PROPERTIES CXX_COMPILER_LAUNCHER
        "bash;${BEAMLINE_PRECOMPILE_LAUNCHER};${CMAKE_CXX_COMPILER_LAUNCHER}")
    endif()
    target_link_libraries(${owner} PRIVATE absl::statusor absl::flat_hash_map)
    if(set STREQUAL tensor)
      target_link_libraries(${owner} PRIVATE beamline::torch)
    elseif(set STREQUAL rpc)
      target_link_libraries(${owner} PRIVATE gRPC::grpc++ protobuf::libprotobuf)
    endif()
    if("TEST" IN_LIST ARGN)
      # The compiler takes precompiled headers only with the same code model, and these go into executables.
      set_target_properties(${owner} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
      target_link_libraries(${owner} PRIVATE GTest::gmock)
      target_compile_options(${owner} PRIVATE ${BEAMLINE_TEST_COMPILE_OPTIONS} -fPIE)
    endif()
  endif()
  target_precompile_headers(${target} REUSE_FROM ${owner})
  # What a compiler cache needs to look into it.
  target_compile_options(${target} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)
endfunction()

# The set for a library or a test by the highest level it may see; see Layers.cmake.
function(beamline_precompiled_set out level)
  set(set plain)
  if(level GREATER 7)
    set(set rpc)
  elseif(level GREATER 2 AND TARGET beamline::torch)
    set(set tensor)
  endif()
  set(${out} ${set} PARENT_SCOPE)
endfunction()
