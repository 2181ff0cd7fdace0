# Every third-party package, found once. Torch comes last: found earlier it would put its own, older protobuf and fmt
# headers in front of the system's.
include_guard(GLOBAL)

# For the same reason nothing but torch is looked for in a libtorch that CMAKE_PREFIX_PATH names.
set(ignored_before "${CMAKE_IGNORE_PREFIX_PATH}")
string(REPLACE ":" ";" prefixes "$ENV{CMAKE_PREFIX_PATH}")
foreach(prefix IN LISTS CMAKE_PREFIX_PATH prefixes)
  if(EXISTS ${prefix}/include/ATen)
    list(APPEND CMAKE_IGNORE_PREFIX_PATH ${prefix})
  endif()
endforeach()

find_package(Threads REQUIRED)
find_package(absl REQUIRED)
find_package(ZLIB REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(spdlog REQUIRED)
find_path(NLOHMANN_JSON_INCLUDE_DIR nlohmann/json.hpp REQUIRED)
add_library(beamline_json INTERFACE)
target_include_directories(beamline_json SYSTEM INTERFACE ${NLOHMANN_JSON_INCLUDE_DIR})
add_library(beamline::json ALIAS beamline_json)
if(BEAMLINE_WITH_CUDA)
  include(BeamlineCudaToolkit)
endif()
if(BEAMLINE_BUILD_TESTS)
  find_package(GTest REQUIRED)
endif()
if(BEAMLINE_WITH_GRPC)
  find_package(Protobuf REQUIRED)
  find_package(gRPC CONFIG REQUIRED)
  # The core alone, without what prometheus-cpp's own package file would ask for to push and pull.
  find_path(PROMETHEUS_CPP_INCLUDE_DIR prometheus/registry.h REQUIRED)
  find_library(PROMETHEUS_CPP_CORE prometheus-cpp-core REQUIRED)
  add_library(beamline_prometheus INTERFACE)
  target_include_directories(beamline_prometheus SYSTEM INTERFACE ${PROMETHEUS_CPP_INCLUDE_DIR})
  target_link_libraries(beamline_prometheus INTERFACE ${PROMETHEUS_CPP_CORE})
  add_library(beamline::prometheus ALIAS beamline_prometheus)
  find_path(HTTPLIB_INCLUDE_DIR httplib.h REQUIRED)
  find_library(HTTPLIB cpp-httplib REQUIRED)
  add_library(beamline_httplib INTERFACE)
  target_include_directories(beamline_httplib SYSTEM INTERFACE ${HTTPLIB_INCLUDE_DIR})
  # As Debian's library was compiled: they change the layout of its classes.
  target_compile_definitions(beamline_httplib INTERFACE
    CPPHTTPLIB_OPENSSL_SUPPORT CPPHTTPLIB_ZLIB_SUPPORT CPPHTTPLIB_BROTLI_SUPPORT)
  target_link_libraries(beamline_httplib INTERFACE ${HTTPLIB})
  add_library(beamline::httplib ALIAS beamline_httplib)
endif()

set(CMAKE_IGNORE_PREFIX_PATH "${ignored_before}")

# beamline::torch: libtorch's CPU libraries, with its headers searched after the system's (-idirafter).
# Looked for in Torch_DIR or CMAKE_PREFIX_PATH, else in the virtual environment that scripts/setup.sh makes.
if(BEAMLINE_WITH_TORCH)
  set(torch_asked_for "$ENV{BEAMLINE_TORCH_ROOT}")
  if(NOT torch_asked_for STREQUAL "")
    get_filename_component(torch_asked_for "${torch_asked_for}" ABSOLUTE BASE_DIR "$ENV{PWD}")  # else no hint
    if(NOT EXISTS "${torch_asked_for}/include/ATen/core/Tensor.h")
      message(FATAL_ERROR "BEAMLINE_TORCH_ROOT: no libtorch in ${torch_asked_for}: "
        "it has no include/ATen/core/Tensor.h. Name the folder that has, or unset it.")
    endif()
  endif()
  file(GLOB torch_of_setup $ENV{BEAMLINE_CACHE}/venv/lib/python3*/site-packages/torch/include
    $ENV{XDG_CACHE_HOME}/beamline/venv/lib/python3*/site-packages/torch/include
    $ENV{HOME}/.cache/beamline/venv/lib/python3*/site-packages/torch/include)
  find_path(BEAMLINE_TORCH_INCLUDE ATen/core/Tensor.h
    HINTS ${torch_asked_for}/include ${Torch_DIR}/../../../include ENV Torch_DIR PATHS ${torch_of_setup}
    PATH_SUFFIXES include ../../include ../../../include)
  if(NOT BEAMLINE_TORCH_INCLUDE)
    message(FATAL_ERROR "libtorch not found. Run scripts/setup.sh, or point CMAKE_PREFIX_PATH or Torch_DIR at one, "
      "or configure with -DBEAMLINE_WITH_TORCH=OFF to build levels 0-2 only.")
  endif()
  get_filename_component(BEAMLINE_TORCH_ROOT ${BEAMLINE_TORCH_INCLUDE} DIRECTORY)
  find_library(BEAMLINE_TORCH_CPU torch_cpu HINTS ${BEAMLINE_TORCH_ROOT}/lib REQUIRED NO_DEFAULT_PATH)
  find_library(BEAMLINE_C10 c10 HINTS ${BEAMLINE_TORCH_ROOT}/lib REQUIRED NO_DEFAULT_PATH)
  message(STATUS "libtorch: ${BEAMLINE_TORCH_ROOT}")
  add_library(beamline_torch INTERFACE)
  add_library(beamline::torch ALIAS beamline_torch)
  target_compile_options(beamline_torch INTERFACE
    "SHELL:$<$<COMPILE_LANGUAGE:CXX>:-idirafter ${BEAMLINE_TORCH_ROOT}/include>"
    "SHELL:$<$<COMPILE_LANGUAGE:CXX>:-idirafter ${BEAMLINE_TORCH_ROOT}/include/torch/csrc/api/include>")
  target_compile_definitions(beamline_torch INTERFACE AT_PER_OPERATOR_HEADERS)
  target_link_libraries(beamline_torch INTERFACE ${BEAMLINE_TORCH_CPU} ${BEAMLINE_C10})
  target_link_options(beamline_torch INTERFACE -Wl,-rpath,${BEAMLINE_TORCH_ROOT}/lib)
endif()
