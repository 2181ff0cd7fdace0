// SPDX-License-Identifier: Apache-2.0
#include "data/import_kuairand.h"

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "beamline/status.h"
#include "data/delimited_reader.h"
#include "data/event_table.h"
#include "data/import.h"
#include "data/parse.h"
#include "data/table_folder.h"

namespace beamline::data {
namespace {

using kuairand::OpenCsv;
using kuairand::ParseMilliseconds;
using kuairand::Paths;

struct Archive {
  Paths standard_logs;
  Paths random_logs;
  Paths video_basic;
  Paths video_statistic;
  Paths user_features;
};

// The archive's files by their names; of a plain and a gzip form the plain one.
Archive FindArchive(const std::filesystem::path& folder) {
  Paths files;
  for (const std::filesystem::path& place : {folder, folder / "data"}) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(place, error)) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());  // by name, so by date, and x.csv before x.csv.gz
  Archive archive;
  std::set<std::string> taken;  // a table in both forms, or in both places, is one
  for (const std::filesystem::path& file : files) {
    const std::string name = file.filename().string();
    const std::string table = name.ends_with(".csv.gz") ? name.substr(0, name.size() - 3) : name;
    if (!table.ends_with(".csv") || !taken.insert(table).second) continue;
    if (table.starts_with("log_standard")) archive.standard_logs.push_back(file);
    if (table.starts_with("log_random")) archive.random_logs.push_back(file);
    if (table.starts_with("video_features_basic")) archive.video_basic.push_back(file);
    if (table.starts_with("video_features_statistic")) archive.video_statistic.push_back(file);
    if (table.starts_with("user_features")) archive.user_features.push_back(file);
  }
  return archive;
}

struct LabelColumn {
  const char* name;
  Label label;
};
constexpr std::array<LabelColumn, kNumLabels> kLabelColumns = {{{"is_click", kClick},
                                                                {"is_like", kLike},
                                                                {"is_follow", kFollow},
                                                                {"is_comment", kComment},
                                                                {"is_forward", kForward},
                                                                {"is_hate", kHate},
                                                                {"long_view", kLongView},
                                                                {"is_profile_enter", kProfileEnter}}};

absl::StatusOr<Event> ParseLogRow(const DelimitedReader& csv) {
  const auto field = [&csv](const char* name) { return kuairand::WithoutZeroFraction(csv.field(csv.Column(name))); };
  Event event;
  BEAMLINE_ASSIGN_OR_RETURN(event.item, ParseIdField("video_id", field("video_id")));
  BEAMLINE_ASSIGN_OR_RETURN(event.timestamp_ms, ParseRangeField("time_ms", field("time_ms"), kMaxTimeMs, false));
  BEAMLINE_ASSIGN_OR_RETURN(event.play_time_ms, ParseMilliseconds("play_time_ms", field("play_time_ms")));
  BEAMLINE_ASSIGN_OR_RETURN(event.duration_ms, ParseMilliseconds("duration_ms", field("duration_ms")));
  for (const LabelColumn& column : kLabelColumns) {
    const std::string_view value = field(column.name);
    if (value == "1") {
      event.labels |= column.label;
    } else if (value != "0" && !value.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(column.name, " ", Quoted(value), " is not 0 or 1"));
    }
  }
  return event;
}

absl::Status CopyLog(const std::filesystem::path& path, const ImportOptions& options, EventTableWriter* events,
                     ImportReport* report) {
  BEAMLINE_ASSIGN_OR_RETURN(DelimitedReader csv, OpenCsv(path, {"user_id", "video_id", "time_ms"}, options));
  const int user_column = csv.Column("user_id");
  while (true) {
    BEAMLINE_ASSIGN_OR_RETURN(const bool more, csv.Next());
    if (!more) break;
    const absl::StatusOr<std::string_view> user =
        ParseUserField("user_id", kuairand::WithoutZeroFraction(csv.field(user_column)));
    const absl::StatusOr<Event> event = ParseLogRow(csv);
    if (!user.ok() || !event.ok()) {
      csv.Refuse(user.ok() ? event.status() : user.status());
      continue;
    }
    BEAMLINE_RETURN_IF_ERROR(events->Write(*user, *event));
  }
  report->notes.push_back(absl::StrCat(path.filename().string(), ": ", csv.bad_rows().rows(), " rows -> events"));
  if (csv.bad_rows().bad() > 0) report->notes.push_back(csv.bad_rows().Summary());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ImportReport> ImportKuaiRand(const std::filesystem::path& folder, const KuaiRandOptions& which,
                                            const ImportOptions& options) {
  BEAMLINE_RETURN_IF_ERROR(CheckReadableFolder(folder));
  const Archive archive = FindArchive(folder);
  ImportReport report;
  Paths logs = archive.standard_logs;
  const bool random = which.include_random || logs.empty();
  if (random) logs.insert(logs.end(), archive.random_logs.begin(), archive.random_logs.end());
  if (!random && !archive.random_logs.empty()) {
    report.notes.push_back("log_random_*: left out (randomly exposed videos)");
  }
  if (archive.user_features.size() > 1) {
    return absl::InvalidArgumentError(absl::StrCat(folder.string(), ": more than one user_features_*.csv"));
  }
  std::vector<std::string> tables;
  if (!logs.empty()) tables.push_back("events");
  if (!archive.video_basic.empty()) tables.push_back("items");
  if (!archive.user_features.empty()) tables.push_back("users");
  if (tables.empty()) {
    return absl::NotFoundError(
        absl::StrCat(folder.string(),
                     ": no log_standard_*, log_random_*, video_features_basic_* or user_features_* .csv or .csv.gz"));
  }
  BEAMLINE_ASSIGN_OR_RETURN(const TableFolder out,
                            TableFolder::Open(options.out, options.gzip, tables, options.overwrite));
  std::optional<ItemTableWriter> items;
  if (!archive.video_basic.empty()) {
    const Paths statistic = which.statistic_relevance ? archive.video_statistic : Paths();
    BEAMLINE_ASSIGN_OR_RETURN(
        items, kuairand::CopyVideos({archive.video_basic, statistic}, out.Path("items"), options, &report));
  }
  std::optional<UserTableWriter> users;
  if (!archive.user_features.empty()) {
    BEAMLINE_ASSIGN_OR_RETURN(users,
                              kuairand::CopyUsers(archive.user_features[0], out.Path("users"), options, &report));
  }
  std::optional<EventTableWriter> events;
  if (!logs.empty()) {
    BEAMLINE_ASSIGN_OR_RETURN(events, EventTableWriter::Create(out.Path("events")));
    for (const std::filesystem::path& log : logs) BEAMLINE_RETURN_IF_ERROR(CopyLog(log, options, &*events, &report));
    report.events = events->rows();
  }
  // All of them at the end, or none; events last: a folder that has them has all its tables.
  if (items) BEAMLINE_RETURN_IF_ERROR(items->Commit());
  if (users) BEAMLINE_RETURN_IF_ERROR(users->Commit());
  if (events) BEAMLINE_RETURN_IF_ERROR(events->Commit());
  return report;
}

}  // namespace beamline::data
