// SPDX-License-Identifier: Apache-2.0
//
// Options that take numbers. Each states its limits, which CLI11 then checks before anything runs: they stand in the
// help, and an error names the flag, the value and the limits. A library that takes the number checks it once more.
#pragma once

#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include <CLI/CLI.hpp>

namespace beamline::cli {

// Both inclusive. At most 2^53, so that they are exact, or infinity: whatever the type holds.
struct Limits {
  double low = 0;
  double high = std::numeric_limits<double>::infinity();
};

// Refuses text that is no number within the limits.
CLI::Validator Within(Limits limits, bool whole);

template <typename T>
struct NumberIn {
  using Type = T;
};
template <typename T>
struct NumberIn<std::optional<T>> {
  using Type = T;
};
template <typename T>
struct NumberIn<std::vector<T>> {
  using Type = T;
};

template <typename T>
CLI::Option* AddNumber(CLI::App* command, const std::string& flags, T& value, Limits limits, const std::string& help) {
  using Number = typename NumberIn<T>::Type;
  if (limits.high > static_cast<double>(std::numeric_limits<Number>::max())) {
    limits.high = static_cast<double>(std::numeric_limits<Number>::max());
  }
  return command->add_option(flags, value, help)->transform(Within(limits, std::is_integral_v<Number>));
}

}  // namespace beamline::cli
