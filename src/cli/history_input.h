// SPDX-License-Identifier: Apache-2.0
//
// Where `beamline recommend` takes a user's behaviour from: item ids on the command line, a list of events in a file or
// on standard input, or a data folder's event table. Errors name the file and line.
#pragma once

#include <istream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "beamline/request.h"

namespace beamline::cli {

struct UserInput {
  std::vector<Event> history;  // oldest first
  std::vector<UserAttribute> attributes;
};

// One event per line, oldest first: item_id [timestamp_ms [play_time_ms [labels]]], apart by tabs or blanks, labels
// joined by '|'. Empty lines and what follows '#' are skipped.
absl::StatusOr<std::vector<Event>> ReadHistoryLines(std::istream& lines, const std::string& name);
absl::StatusOr<std::vector<Event>> ReadHistoryFile(const std::string& path);  // "-": standard input

// The user's events of a folder written by `beamline import` or `generate-data`, in time order, the newest
// `max_events`, with the user's attributes. NOT_FOUND when the log has no such user.
absl::StatusOr<UserInput> ReadUserFromData(const std::string& folder, const std::string& user, size_t max_events);

// The newest `max_events` events of the first `max_users` users of a data folder (by first event), in time order.
absl::StatusOr<std::vector<std::vector<Event>>> ReadHistoriesFromData(const std::string& folder, size_t max_users,
                                                                      size_t max_events);

// "1,2,3"; errors name `what`, e.g. "--deny".
absl::StatusOr<std::vector<ItemId>> ParseItemList(const std::string& text, const std::string& what);

}  // namespace beamline::cli
