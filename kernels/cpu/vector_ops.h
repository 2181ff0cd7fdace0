// SPDX-License-Identifier: Apache-2.0
//
// One table per instruction set, each from the same source compiled with its own flags.
#pragma once

#include "beamline/kernels/vector_ops.h"

namespace beamline::kernels {

const VectorOps& GenericVectorOps();
// x86 only; REQUIRES: the CPU has the instruction set.
const VectorOps& Avx2VectorOps();
const VectorOps& Avx512VectorOps();

}  // namespace beamline::kernels
