// SPDX-License-Identifier: Apache-2.0
//
// Bad rows of a table: counted, the first few remembered with line number and reason, and too many refuse the file.
// Not thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace beamline::data {

struct BadRowPolicy {
  double max_fraction = 0.01;  // of a file's rows; more refuse the file. 0: any bad row does
  int max_shown = 5;           // remembered for messages
  const char* option = "";     // that sets max_fraction, for the message; empty: nothing does
};

class BadRows {
 public:
  BadRows(std::string file, BadRowPolicy policy);

  void CountGood() { ++rows_; }
  void CountBad(int64_t line, std::string_view reason);

  int64_t rows() const { return rows_; }  // good and bad
  int64_t bad() const { return bad_; }

  // "events.tsv: 3 bad rows of 1000 (limit 1%): line 12: item_id 'x' is not ...; line 40: ..."; empty if none.
  std::string Summary() const;

  // Call at the end of the file: INVALID_ARGUMENT with the summary if the policy refuses it.
  absl::Status Verdict() const;

 private:
  std::string file_;
  BadRowPolicy policy_;
  int64_t rows_ = 0;
  int64_t bad_ = 0;
  std::vector<std::string> shown_;
};

}  // namespace beamline::data
