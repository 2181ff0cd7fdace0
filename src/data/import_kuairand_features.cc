// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/time/civil_time.h"
#include "absl/time/time.h"
#include "beamline/status.h"
#include "data/import_kuairand.h"
#include "data/item_table.h"
#include "data/parse.h"
#include "data/user_table.h"

namespace beamline::data::kuairand {
namespace {

// As pandas writes missing values.
bool Missing(std::string_view text) { return text.empty() || text == "nan" || text == "NaN"; }

// Not of absl: GCC 12 warns of the destructor of a flat_hash_map in a StatusOr, falsely.
using Relevance = std::unordered_map<ItemId, float>;

absl::StatusOr<Relevance> ReadRelevance(const Paths& paths, const ImportOptions& options, ImportReport* report) {
  Relevance relevance;
  for (const std::filesystem::path& path : paths) {
    BEAMLINE_ASSIGN_OR_RETURN(DelimitedReader csv,
                              OpenCsv(path, {"video_id", "show_cnt", "long_time_play_cnt"}, options));
    while (true) {
      BEAMLINE_ASSIGN_OR_RETURN(const bool more, csv.Next());
      if (!more) break;
      const absl::StatusOr<ItemId> item =
          ParseIdField("video_id", WithoutZeroFraction(csv.field(csv.Column("video_id"))));
      const std::optional<double> shows = ParseNumber(csv.field(csv.Column("show_cnt")));
      const std::optional<double> plays = ParseNumber(csv.field(csv.Column("long_time_play_cnt")));
      if (!item.ok() || !shows.has_value() || !plays.has_value() || *shows < 0 || *plays < 0) {
        csv.Refuse(item.ok() ? absl::InvalidArgumentError("show_cnt or long_time_play_cnt is not a count")
                             : item.status());
        continue;
      }
      const double value = *shows > 0 ? *plays / *shows : 0;
      if (value > kMaxRelevance) {  // what no item table may hold
        csv.Refuse(
            absl::InvalidArgumentError(absl::StrCat("long_time_play_cnt ", *plays, " by show_cnt ", *shows, " is ",
                                                    value, ", more than the largest relevance, ", kMaxRelevance)));
        continue;
      }
      relevance[*item] = static_cast<float>(value);
    }
    report->notes.push_back(absl::StrCat(path.filename().string(), ": relevance of ", relevance.size(), " items"));
    if (csv.bad_rows().bad() > 0) report->notes.push_back(csv.bad_rows().Summary());
  }
  return relevance;
}

// Days are Beijing's.
int64_t ParseDay(std::string_view text) {
  absl::CivilDay day;
  if (!absl::ParseCivilTime(absl::string_view(text.data(), text.size()), &day)) return 0;
  const int64_t time = absl::ToUnixMillis(absl::FromCivil(day, absl::FixedTimeZone(8 * 3600)));
  return time >= 0 && time <= kMaxTimeMs ? time : 0;
}

void AddTag(std::string key, std::string_view value, KeyValues* tags) {
  if (Missing(value) || tags->size() >= kMaxTagsPerItem) return;
  tags->emplace_back(std::move(key), CleanText(WithoutZeroFraction(value), kMaxValueBytes, ";\t"));
}

absl::StatusOr<ItemRow> ParseVideoRow(const DelimitedReader& csv) {
  const auto text = [&](std::string_view name) { return csv.field(csv.Column(name)); };
  ItemRow row;
  BEAMLINE_ASSIGN_OR_RETURN(row.item, ParseIdField("video_id", WithoutZeroFraction(text("video_id"))));
  if (!Missing(text("author_id"))) {
    BEAMLINE_ASSIGN_OR_RETURN(row.attributes.author, ParseIdField("author_id", WithoutZeroFraction(text("author_id"))));
  }
  BEAMLINE_ASSIGN_OR_RETURN(row.attributes.duration_ms, ParseMilliseconds("video_duration", text("video_duration")));
  row.attributes.created_ms = ParseDay(text("upload_dt"));
  for (std::string_view tags = Missing(text("tag")) ? std::string_view() : text("tag"); !tags.empty();) {
    const std::string_view tag = tags.substr(0, tags.find(','));
    AddTag("tag", tag, &row.attributes.tags);
    tags.remove_prefix(std::min(tag.size() + 1, tags.size()));
  }
  for (const char* key : {"video_type", "upload_type", "music_type"}) AddTag(key, text(key), &row.attributes.tags);
  return row;
}

// Columns to keep: every categorical one. A count with a _range column beside it has too many values to learn from.
std::vector<std::string> UserAttributeColumns(const DelimitedReader& csv) {
  std::vector<std::string> names;
  for (const std::string& name : csv.header()) {
    // pandas writes its row numbers into a column without a name.
    if (name == "user_id" || name.empty() || name.size() > kMaxNameBytes || csv.Column(name + "_range") >= 0) continue;
    if (names.size() < kMaxUserAttributes) names.push_back(name);
  }
  return names;
}

}  // namespace

absl::StatusOr<DelimitedReader> OpenCsv(const std::filesystem::path& path, std::vector<std::string> required,
                                        const ImportOptions& options) {
  DelimitedReader::Options csv;
  csv.delimiter = ',';
  csv.quotes = true;
  csv.required = std::move(required);
  csv.bad_rows = options.bad_rows;
  csv.progress = options.progress;
  return DelimitedReader::Open(path, csv);
}

absl::StatusOr<int64_t> ParseMilliseconds(std::string_view name, std::string_view text) {
  if (Missing(text)) return 0;
  const std::optional<double> value = ParseNumber(text);
  if (value.has_value() && *value >= 0 && *value <= static_cast<double>(kMaxDurationMs)) {
    return static_cast<int64_t>(*value);
  }
  return absl::InvalidArgumentError(
      absl::StrCat(std::string(name), " ", Quoted(text), " is not a number from 0 to ", kMaxDurationMs));
}

absl::StatusOr<ItemTableWriter> CopyVideos(const VideoFiles& files, const std::filesystem::path& out,
                                           const ImportOptions& options, ImportReport* report) {
  BEAMLINE_ASSIGN_OR_RETURN(const Relevance relevance, ReadRelevance(files.statistic, options, report));
  BEAMLINE_ASSIGN_OR_RETURN(ItemTableWriter items, ItemTableWriter::Create(out));
  absl::flat_hash_set<ItemId> seen;
  for (const std::filesystem::path& path : files.basic) {
    BEAMLINE_ASSIGN_OR_RETURN(DelimitedReader csv, OpenCsv(path, {"video_id"}, options));
    while (true) {
      BEAMLINE_ASSIGN_OR_RETURN(const bool more, csv.Next());
      if (!more) break;
      absl::StatusOr<ItemRow> row = ParseVideoRow(csv);
      if (row.ok() && !seen.insert(row->item).second) {
        row = absl::InvalidArgumentError(absl::StrCat("video_id ", row->item, " appears a second time"));
      }
      if (!row.ok()) {
        csv.Refuse(row.status());
        continue;
      }
      const auto found = relevance.find(row->item);
      if (found != relevance.end()) row->attributes.relevance = found->second;
      BEAMLINE_RETURN_IF_ERROR(items.Write(*row));
    }
    report->notes.push_back(absl::StrCat(path.filename().string(), ": ", csv.bad_rows().rows(), " rows -> items"));
    if (csv.bad_rows().bad() > 0) report->notes.push_back(csv.bad_rows().Summary());
  }
  report->items = items.rows();
  return items;
}

absl::StatusOr<UserTableWriter> CopyUsers(const std::filesystem::path& path, const std::filesystem::path& out,
                                          const ImportOptions& options, ImportReport* report) {
  BEAMLINE_ASSIGN_OR_RETURN(DelimitedReader csv, OpenCsv(path, {"user_id"}, options));
  const std::vector<std::string> names = UserAttributeColumns(csv);
  BEAMLINE_ASSIGN_OR_RETURN(UserTableWriter users, UserTableWriter::Create(out, names));
  absl::flat_hash_set<std::string> seen;
  while (true) {
    BEAMLINE_ASSIGN_OR_RETURN(const bool more, csv.Next());
    if (!more) break;
    const absl::StatusOr<std::string_view> user =
        ParseUserField("user_id", WithoutZeroFraction(csv.field(csv.Column("user_id"))));
    if (!user.ok() || !seen.insert(std::string(*user)).second) {
      csv.Refuse(user.ok() ? absl::InvalidArgumentError("user_id appears a second time") : user.status());
      continue;
    }
    std::vector<std::string> cleaned;
    for (const std::string& name : names) {
      const std::string_view value = WithoutZeroFraction(csv.field(csv.Column(name)));
      constexpr std::string_view kUnknown = "-124";  // the archive's mark for a missing flag
      const bool missing = Missing(value) || value == kUnknown;
      cleaned.push_back(missing ? "" : CleanText(value, kMaxValueBytes));
    }
    BEAMLINE_RETURN_IF_ERROR(users.Write(*user, {cleaned.begin(), cleaned.end()}));
  }
  report->users = users.rows();
  report->notes.push_back(absl::StrCat(path.filename().string(), ": ", csv.bad_rows().rows(), " rows -> users, ",
                                       names.size(), " attributes"));
  if (csv.bad_rows().bad() > 0) report->notes.push_back(csv.bad_rows().Summary());
  return users;
}

}  // namespace beamline::data::kuairand
