// SPDX-License-Identifier: Apache-2.0
//
// Files with one user per line and the user's items in time order, plain or gzip, recognised by their first line:
//
//   spaced    user item item ...                                    no header; the Amazon files
//   tabbed    user<TAB>item item ...                                no header; KuaiRand's long_view_5core and mini sets
//   held out  user_id train_tail val test                           header; val and test hold item:time_ms
//   tails     user_id last_time_ms watch_seq like_seq long_watch_seq   header; the last items of each kind
//
// Events get the file's time where it has one. The others get synthetic times, one minute apart, that end one minute
// before the next known time, at last_time_ms, or at kSyntheticEndMs: they keep a user's order and say nothing else.
// Labels: `sequence_labels` in the first three layouts; in `tails` the watch sequence is the trunk (click), and likes
// and long watches are laid onto it from the newest backwards; those older than the trunk's start become events before
// it. Rows that break a rule, or name a user a second time, are counted (bad_rows.h). Streaming; memory grows with
// users. Not thread-safe.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/line_reader.h"
#include "base/progress.h"
#include "beamline/request.h"
#include "data/bad_rows.h"

namespace beamline::data {

inline constexpr int64_t kSyntheticStepMs = 60'000;
inline constexpr int64_t kSyntheticEndMs = 1'650'000'000'000;  // April 2022
inline constexpr size_t kMaxSequenceItems = 100'000;

struct UserSequence {
  std::string user_id;
  std::vector<Event> events;  // oldest first
};

class SequenceFileReader {
 public:
  enum class Layout { kSpaced, kTabbed, kHeldOut, kTails };
  struct Options {
    uint32_t sequence_labels = kClick | kLongView;
    BadRowPolicy bad_rows;
    Progress* progress = nullptr;
  };

  static absl::StatusOr<SequenceFileReader> Open(const std::filesystem::path& path, const Options& options);

  // The next user with a good line; false at the end; an error there if too many lines were bad.
  absl::StatusOr<bool> Next(UserSequence* user);

  Layout layout() const { return layout_; }
  const BadRows& bad_rows() const { return bad_rows_; }

 private:
  SequenceFileReader(LineReader lines, const Options& options);
  absl::Status Recognise();
  absl::Status ParseLine(std::string_view line, UserSequence* user) const;

  LineReader lines_;
  Options options_;
  BadRows bad_rows_;
  absl::flat_hash_set<std::string> seen_;  // users
  Layout layout_ = Layout::kTabbed;
  std::string first_line_;  // read to recognise the layout, not yet returned
  bool has_first_line_ = false;
};

// "tabbed", ...
std::string_view LayoutName(SequenceFileReader::Layout layout);

}  // namespace beamline::data
