// SPDX-License-Identifier: Apache-2.0
#include "data/bad_rows.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace beamline::data {

BadRows::BadRows(std::string file, BadRowPolicy policy) : file_(std::move(file)), policy_(policy) {}

void BadRows::CountBad(int64_t line, std::string_view reason) {
  ++rows_;
  ++bad_;
  if (static_cast<int64_t>(shown_.size()) < policy_.max_shown) {
    shown_.push_back(absl::StrCat("line ", line, ": ", std::string(reason)));
  }
}

std::string BadRows::Summary() const {
  if (bad_ == 0) return "";
  const std::string more = bad_ > static_cast<int64_t>(shown_.size()) ? "; ..." : "";
  return absl::StrCat(file_, ": ", bad_, " bad rows of ", rows_, " (limit ", policy_.max_fraction * 100,
                      "%): ", absl::StrJoin(shown_, "; "), more);
}

absl::Status BadRows::Verdict() const {
  if (static_cast<double>(bad_) <= policy_.max_fraction * static_cast<double>(rows_)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(Summary(), ". Repair the file", *policy_.option == 0 ? "" : ", or raise ", policy_.option, "."));
}

}  // namespace beamline::data
