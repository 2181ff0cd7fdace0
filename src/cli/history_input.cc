// SPDX-License-Identifier: Apache-2.0
#include "cli/history_input.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/interrupt.h"
#include "beamline/status.h"
#include "cli/newest_events.h"
#include "data/dataset.h"
#include "data/event_table.h"
#include "data/labels.h"
#include "data/parse.h"
#include "data/user_table.h"

namespace beamline::cli {
namespace {

constexpr int kInterruptPollMs = 50;
constexpr size_t kMaxInputBytes = 64 << 20;  // a million events

absl::StatusOr<Event> ParseEvent(const std::vector<std::string>& fields) {
  if (fields.size() > 4) return absl::InvalidArgumentError(absl::StrCat(fields.size(), " fields, at most 4"));
  Event event;
  BEAMLINE_ASSIGN_OR_RETURN(event.item, data::ParseIdField("item_id", fields[0]));
  if (fields.size() > 1) {
    BEAMLINE_ASSIGN_OR_RETURN(event.timestamp_ms,
                              data::ParseRangeField("timestamp_ms", fields[1], data::kMaxTimeMs, true));
  }
  if (fields.size() > 2) {
    BEAMLINE_ASSIGN_OR_RETURN(event.play_time_ms,
                              data::ParseRangeField("play_time_ms", fields[2], data::kMaxDurationMs, true));
  }
  if (fields.size() > 3) {
    BEAMLINE_ASSIGN_OR_RETURN(event.labels, data::ParseLabels(fields[3]));
  }
  return event;
}

absl::Status ReadAttributes(const std::filesystem::path& path, const std::string& user,
                            std::vector<UserAttribute>* attributes) {
  BEAMLINE_ASSIGN_OR_RETURN(data::UserTableReader reader, data::UserTableReader::Open(path));
  for (data::UserRow row;;) {
    BEAMLINE_ASSIGN_OR_RETURN(const bool more, reader.Next(&row));
    if (!more) return absl::OkStatus();
    if (row.user_id != user) continue;
    *attributes = row.attributes;
    return absl::OkStatus();
  }
}

// All of it. Ctrl-C ends the waiting: a read that a signal interrupts would go on, poll does not.
absl::StatusOr<std::string> ReadAll(int descriptor, const std::string& name) {
  std::string text;
  std::array<char, 65536> chunk;
  for (;;) {
    BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
    pollfd input{descriptor, POLLIN, 0};
    if (poll(&input, 1, kInterruptPollMs) <= 0) continue;
    const ssize_t bytes = read(descriptor, chunk.data(), chunk.size());
    if (bytes < 0 && errno != EINTR) return absl::ErrnoToStatus(errno, absl::StrCat(name, ": cannot be read"));
    if (bytes == 0) return text;
    if (bytes > 0) text.append(chunk.data(), bytes);
    if (text.size() > kMaxInputBytes) {
      return absl::InvalidArgumentError(absl::StrCat(name, ": more than ", kMaxInputBytes, " bytes"));
    }
  }
}

}  // namespace

absl::StatusOr<std::vector<Event>> ReadHistoryLines(std::istream& lines, const std::string& name) {
  std::vector<Event> history;
  int64_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    line.resize(std::min(line.size(), line.find('#')));
    const std::vector<std::string> fields = absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (fields.empty()) continue;
    absl::StatusOr<Event> event = ParseEvent(fields);
    if (!event.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(name, ":", number, ": ", event.status().message()));
    }
    history.push_back(*event);
  }
  return history;
}

absl::StatusOr<std::vector<Event>> ReadHistoryFile(const std::string& path) {
  if (path == "-") {
    BEAMLINE_ASSIGN_OR_RETURN(std::string text, ReadAll(STDIN_FILENO, "standard input"));
    std::istringstream lines(std::move(text));
    return ReadHistoryLines(lines, "standard input");
  }
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--history: ", path, " is a folder; give a file, or --data with --user for a data folder"));
  }
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);  // of a pipe, too: <(...) of a shell
  if (descriptor < 0) return absl::NotFoundError(absl::StrCat("--history: cannot read ", path));
  absl::StatusOr<std::string> text = ReadAll(descriptor, absl::StrCat("--history: ", path));
  close(descriptor);
  if (!text.ok()) return text.status();
  std::istringstream lines(*std::move(text));
  return ReadHistoryLines(lines, path);
}

absl::StatusOr<UserInput> ReadUserFromData(const std::string& folder, const std::string& user, size_t max_events) {
  BEAMLINE_ASSIGN_OR_RETURN(const data::DatasetFiles files, data::FindDatasetFiles(folder));
  BEAMLINE_ASSIGN_OR_RETURN(data::EventTableReader reader, data::EventTableReader::Open(files.events));
  NewestEvents newest(max_events);
  bool found = false;
  for (data::EventRow row;;) {
    BEAMLINE_ASSIGN_OR_RETURN(const bool more, reader.Next(&row));
    if (!more) break;
    if (row.user_id != user) continue;
    found = true;
    newest.Add(row.event);
  }
  if (reader.bad_rows().bad() > 0) std::fprintf(stderr, "%s\n", reader.bad_rows().Summary().c_str());
  if (!found) {
    return absl::NotFoundError(absl::StrCat("--user: ", files.events.string(), " has no events of user ", user));
  }
  UserInput input;
  input.history = std::move(newest).Take();
  if (!files.users.empty()) BEAMLINE_RETURN_IF_ERROR(ReadAttributes(files.users, user, &input.attributes));
  return input;
}

absl::StatusOr<std::vector<std::vector<Event>>> ReadHistoriesFromData(const std::string& folder, size_t max_users,
                                                                      size_t max_events) {
  BEAMLINE_ASSIGN_OR_RETURN(const data::DatasetFiles files, data::FindDatasetFiles(folder));
  BEAMLINE_ASSIGN_OR_RETURN(data::EventTableReader reader, data::EventTableReader::Open(files.events));
  std::vector<NewestEvents> newest;  // by user
  absl::flat_hash_map<std::string, size_t> places;
  for (data::EventRow row;;) {
    BEAMLINE_ASSIGN_OR_RETURN(const bool more, reader.Next(&row));
    if (!more) break;
    const std::string user(row.user_id);
    const auto known = places.find(user);
    if (known == places.end() && newest.size() >= max_users) continue;
    const size_t place = known != places.end() ? known->second : newest.size();
    if (known == places.end()) {
      places.emplace(user, place);
      newest.emplace_back(max_events);
    }
    newest[place].Add(row.event);
  }
  if (newest.empty()) return absl::NotFoundError(absl::StrCat(files.events.string(), " has no events"));
  std::vector<std::vector<Event>> histories;
  histories.reserve(newest.size());
  for (NewestEvents& events : newest) histories.push_back(std::move(events).Take());
  return histories;
}

absl::StatusOr<std::vector<ItemId>> ParseItemList(const std::string& text, const std::string& what) {
  std::vector<ItemId> items;
  for (const std::string& part : std::vector<std::string>(absl::StrSplit(text, ',', absl::SkipEmpty()))) {
    absl::StatusOr<uint64_t> item = data::ParseIdField("item id", part);
    if (!item.ok()) return absl::InvalidArgumentError(absl::StrCat(what, ": ", item.status().message()));
    items.push_back(*item);
  }
  return items;
}

}  // namespace beamline::cli
