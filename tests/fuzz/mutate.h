// SPDX-License-Identifier: Apache-2.0
//
// What standalone_driver.cc does to its inputs: bits, bytes, numbers and blocks changed, cut, repeated and mixed with
// other inputs, and words of our formats put in. A pure function of the generator's state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace beamline::fuzz {

// One to eight changes of `input`, which may take pieces of `others`; the result has at most `max_bytes`.
std::string Mutate(std::string input, const std::vector<std::string>& others, size_t max_bytes,
                   std::mt19937_64& random);

}  // namespace beamline::fuzz
