# The CUDA toolkit, for the whole and for kernels/ as a project of its own.
#
# CMake 3.25 (Debian 12) sets a property of CUDA::nvToolsExt whether or not the toolkit has that library, which CUDA 13 has
# not. Nothing links this stand-in.
if(NOT TARGET CUDA::nvToolsExt)
  add_library(CUDA::nvToolsExt INTERFACE IMPORTED)
endif()
find_package(CUDAToolkit REQUIRED)
