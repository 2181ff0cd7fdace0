// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/packed_gemm.h"
