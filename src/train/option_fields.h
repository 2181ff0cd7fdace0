// SPDX-License-Identifier: Apache-2.0
//
// What follows from an options struct's one table of fields: a `table(options, visit)` that calls visit(name, member,
// lowest, highest) for each. Pure functions.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "train/option_limits.h"

namespace beamline::train {

// `what` the options are of, for the error: "training", "ranker".
template <typename Options, typename Table>
absl::Status ValidateFields(const Options& options, const Table& table, absl::string_view what) {
  absl::Status status;
  table(options, [&](absl::string_view name, const auto& value, double low, double high) {
    const double number = static_cast<double>(value);
    if (status.ok() && !(number >= low && number <= high)) {
      status = absl::InvalidArgumentError(
          absl::StrCat(what, " option ", name, " is ", number, ", allowed are ", low, " to ", high));
    }
  });
  return status;
}

template <typename Options, typename Table>
OptionLimits LimitsOfField(const Options& options, const Table& table, const void* field) {
  OptionLimits limits;
  table(options, [&](absl::string_view, const auto& value, double low, double high) {
    if (&value == field) limits = {low, high};
  });
  return limits;
}

template <typename Options, typename Table>
nlohmann::json FieldsToJson(const Options& options, const Table& table) {
  nlohmann::json json = nlohmann::json::object();
  table(options, [&](absl::string_view name, const auto& value, double, double) { json[std::string(name)] = value; });
  return json;
}

}  // namespace beamline::train
