// SPDX-License-Identifier: Apache-2.0
//
// BEAMLINE_HD marks index and selection logic that host code and CUDA kernels share: it compiles for both under nvcc
// and means nothing elsewhere, so what the CPU tests prove holds on the device too.
#pragma once

#if defined(__CUDACC__)
#define BEAMLINE_HD __host__ __device__
#else
#define BEAMLINE_HD
#endif
