// SPDX-License-Identifier: Apache-2.0
#include <optional>

#include <nlohmann/json.hpp>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/json.h"
#include "beamline/status.h"
#include "data/event_table.h"
#include "data/import.h"
#include "data/item_table.h"
#include "data/parse.h"
#include "data/sequence_file.h"
#include "data/table_folder.h"

namespace beamline::data {
namespace {

struct SequenceSource {
  std::filesystem::path file;
  uint32_t labels;  // of every event
};

// To be committed.
absl::StatusOr<EventTableWriter> CopySequences(const SequenceSource& source, const std::filesystem::path& out,
                                               const ImportOptions& options, ImportReport* report) {
  SequenceFileReader::Options reader_options;
  reader_options.sequence_labels = source.labels;
  reader_options.bad_rows = options.bad_rows;
  reader_options.progress = options.progress;
  BEAMLINE_ASSIGN_OR_RETURN(SequenceFileReader reader, SequenceFileReader::Open(source.file, reader_options));
  BEAMLINE_ASSIGN_OR_RETURN(EventTableWriter events, EventTableWriter::Create(out));
  UserSequence user;
  int64_t users = 0;
  while (true) {
    BEAMLINE_ASSIGN_OR_RETURN(const bool more, reader.Next(&user));
    if (!more) break;
    ++users;
    for (const Event& event : user.events) BEAMLINE_RETURN_IF_ERROR(events.Write(user.user_id, event));
  }
  report->events += events.rows();
  report->notes.push_back(absl::StrCat(source.file.filename().string(), ": layout '",
                                       std::string(LayoutName(reader.layout())), "', ", users,
                                       " users; times the file lacks are synthetic"));
  if (reader.bad_rows().bad() > 0) report->notes.push_back(reader.bad_rows().Summary());
  return events;
}

// The file in `folder` whose name ends so; empty if there is none, an error if there are several.
absl::StatusOr<std::filesystem::path> FindOne(const std::filesystem::path& folder, std::string_view ending) {
  std::filesystem::path found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (!name.ends_with(ending)) continue;
    if (!found.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(folder.string(), ": more than one *", std::string(ending), ": ",
                                                     found.filename().string(), " and ", name));
    }
    found = entry.path();
  }
  return found;
}

using Attributes = absl::flat_hash_map<ItemId, KeyValues>;

// {"item": [attribute, ...], ...}
absl::StatusOr<Attributes> ReadAttributes(const std::filesystem::path& path, ImportReport* report) {
  BEAMLINE_ASSIGN_OR_RETURN(const nlohmann::json json, ReadJsonFile(path.string()));
  if (!json.is_object()) return absl::InvalidArgumentError(absl::StrCat(path.string(), ": not a JSON object"));
  Attributes attributes;
  int64_t left_out = 0;
  for (const auto& [key, values] : json.items()) {
    const absl::StatusOr<ItemId> item = ParseIdField("key", key);
    if (!item.ok()) return absl::InvalidArgumentError(absl::StrCat(path.string(), ": ", item.status().message()));
    if (!values.is_array()) return absl::InvalidArgumentError(absl::StrCat(path.string(), ": ", key, ": not an array"));
    KeyValues& tags = attributes[*item];
    for (const nlohmann::json& value : values) {
      if (!value.is_number_unsigned()) {
        return absl::InvalidArgumentError(
            absl::StrCat(path.string(), ": ", key, ": ", value.dump().substr(0, 80), ": not a whole number"));
      }
      if (tags.size() + 1 < kMaxTagsPerItem) {
        tags.emplace_back("attribute", absl::StrCat(value.get<uint64_t>()));
      } else {
        ++left_out;
      }
    }
  }
  if (left_out > 0) {
    report->notes.push_back(absl::StrCat(path.filename().string(), ": ", left_out,
                                         " attributes left out of items with more than ", kMaxTagsPerItem - 1));
  }
  return attributes;
}

// One line: item<TAB>asin<TAB>title. Titles may hold further tabs.
absl::StatusOr<ItemRow> ParseTitle(std::string_view line) {
  const size_t first = line.find('\t');
  const size_t second = first == std::string_view::npos ? first : line.find('\t', first + 1);
  if (second == std::string_view::npos) return absl::InvalidArgumentError("not item<TAB>asin<TAB>title");
  ItemRow row;
  BEAMLINE_ASSIGN_OR_RETURN(row.item, ParseIdField("item", line.substr(0, first)));
  const std::string asin = CleanText(line.substr(first + 1, second - first - 1), kMaxValueBytes, ";");
  if (!asin.empty()) row.attributes.tags.emplace_back("asin", asin);
  row.attributes.title = CleanText(line.substr(second + 1), kMaxTitleBytes);
  return row;
}

struct TitleSource {
  std::filesystem::path file;
  Attributes attributes;  // by item
};

absl::StatusOr<ItemTableWriter> CopyTitles(const TitleSource& source, const std::filesystem::path& out,
                                           const ImportOptions& options, ImportReport* report) {
  BEAMLINE_ASSIGN_OR_RETURN(LineReader lines, LineReader::Open(source.file, kMaxLineBytes));
  BEAMLINE_ASSIGN_OR_RETURN(ItemTableWriter items, ItemTableWriter::Create(out));
  BadRows bad_rows(lines.name(), options.bad_rows);
  absl::flat_hash_set<ItemId> seen;
  std::string_view line;
  while (true) {
    const absl::StatusOr<bool> more = lines.Next(&line);
    if (absl::IsOutOfRange(more.status())) {
      bad_rows.CountBad(lines.line_number(), absl::StrCat("longer than ", kMaxLineBytes, " bytes"));
      continue;
    }
    if (!more.ok()) return more.status();
    if (!*more) break;
    absl::StatusOr<ItemRow> row = ParseTitle(line);
    if (row.ok() && !seen.insert(row->item).second) row = absl::InvalidArgumentError("the item appears a second time");
    if (!row.ok()) {
      bad_rows.CountBad(lines.line_number(), std::string(row.status().message()));
      continue;
    }
    bad_rows.CountGood();
    const auto found = source.attributes.find(row->item);
    if (found != source.attributes.end()) {
      row->attributes.tags.insert(row->attributes.tags.end(), found->second.begin(), found->second.end());
    }
    BEAMLINE_RETURN_IF_ERROR(items.Write(*row));
  }
  BEAMLINE_RETURN_IF_ERROR(bad_rows.Verdict());
  report->items = items.rows();
  report->notes.push_back(absl::StrCat(source.file.filename().string(), ": ", items.rows(), " items"));
  if (bad_rows.bad() > 0) report->notes.push_back(bad_rows.Summary());
  return items;
}

}  // namespace

absl::StatusOr<ImportReport> ImportSequences(const std::filesystem::path& file, uint32_t sequence_labels,
                                             const ImportOptions& options) {
  BEAMLINE_RETURN_IF_ERROR(ReadFileStart(file, 1).status());  // before a folder is made
  BEAMLINE_ASSIGN_OR_RETURN(const TableFolder out,
                            TableFolder::Open(options.out, options.gzip, {"events"}, options.overwrite));
  ImportReport report;
  BEAMLINE_ASSIGN_OR_RETURN(EventTableWriter events,
                            CopySequences({file, sequence_labels}, out.Path("events"), options, &report));
  BEAMLINE_RETURN_IF_ERROR(events.Commit());
  return report;
}

absl::StatusOr<ImportReport> ImportAmazon(const std::filesystem::path& folder, const ImportOptions& options) {
  BEAMLINE_RETURN_IF_ERROR(CheckReadableFolder(folder));
  BEAMLINE_ASSIGN_OR_RETURN(const std::filesystem::path sequences, FindOne(folder, ".txt"));
  if (sequences.empty()) {
    return absl::NotFoundError(absl::StrCat(folder.string(), ": no .txt file with lines 'user item item ...'"));
  }
  BEAMLINE_ASSIGN_OR_RETURN(const std::filesystem::path plain_titles, FindOne(folder, "titles.tsv"));
  BEAMLINE_ASSIGN_OR_RETURN(const std::filesystem::path gzip_titles, FindOne(folder, "titles.tsv.gz"));
  BEAMLINE_ASSIGN_OR_RETURN(const std::filesystem::path attribute_file, FindOne(folder, "_item2attributes.json"));
  const std::filesystem::path& titles = plain_titles.empty() ? gzip_titles : plain_titles;
  std::vector<std::string> tables = {"events"};
  if (!titles.empty()) tables.push_back("items");
  BEAMLINE_ASSIGN_OR_RETURN(const TableFolder out,
                            TableFolder::Open(options.out, options.gzip, tables, options.overwrite));
  ImportReport report;
  if (titles.empty() && !attribute_file.empty()) {
    report.notes.push_back(
        absl::StrCat(attribute_file.filename().string(), ": left out, there are no titles.tsv(.gz) of the items"));
  }
  Attributes attributes;
  if (!titles.empty() && !attribute_file.empty()) {
    BEAMLINE_ASSIGN_OR_RETURN(attributes, ReadAttributes(attribute_file, &report));
    report.notes.push_back(
        absl::StrCat(attribute_file.filename().string(), ": attributes of ", attributes.size(), " items"));
  }
  std::optional<ItemTableWriter> items;
  if (!titles.empty()) {
    BEAMLINE_ASSIGN_OR_RETURN(items, CopyTitles({titles, std::move(attributes)}, out.Path("items"), options, &report));
  }
  BEAMLINE_ASSIGN_OR_RETURN(EventTableWriter events,
                            CopySequences({sequences, kClick | kLongView}, out.Path("events"), options, &report));
  // Both at the end, or none; events last: a folder that has them has all its tables.
  if (items) BEAMLINE_RETURN_IF_ERROR(items->Commit());
  BEAMLINE_RETURN_IF_ERROR(events.Commit());
  return report;
}

}  // namespace beamline::data
