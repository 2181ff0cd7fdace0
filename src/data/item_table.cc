// SPDX-License-Identifier: Apache-2.0
#include "data/item_table.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "beamline/status.h"
#include "data/parse.h"

namespace beamline::data {
namespace {

absl::Status CheckTag(std::string_view key, std::string_view value) {
  const bool sizes_ok = !key.empty() && key.size() <= kMaxNameBytes && value.size() <= kMaxValueBytes;
  if (sizes_ok && key.find_first_of("=;") == std::string_view::npos && value.find(';') == std::string_view::npos &&
      IsCleanText(key) && IsCleanText(value)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("tag ", Quoted(key), "=", Quoted(value), " is not key=value, a key of 1 to ", kMaxNameBytes,
                   " and a value of at most ", kMaxValueBytes, " bytes of UTF-8 without ';' and control characters"));
}

absl::Status CheckTitle(std::string_view title) {
  if (title.size() > kMaxTitleBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("title has ", title.size(), " bytes, more than the limit of ", kMaxTitleBytes));
  }
  if (IsCleanText(title)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("title ", Quoted(title), " is not UTF-8 without control characters"));
}

absl::StatusOr<float> ParseRelevance(std::string_view text) {
  if (text.empty()) return 0.0f;
  const std::optional<double> value = ParseNumber(text);
  if (value.has_value() && std::abs(*value) <= kMaxRelevance) return static_cast<float>(*value);
  return absl::InvalidArgumentError(
      absl::StrCat("relevance ", Quoted(text), " is not a number from ", -kMaxRelevance, " to ", kMaxRelevance));
}

}  // namespace

absl::StatusOr<KeyValues> ParseTags(std::string_view text) {
  KeyValues tags;
  while (!text.empty()) {
    const std::string_view piece = text.substr(0, text.find(';'));
    const size_t equals = piece.find('=');
    if (equals == std::string_view::npos) {
      return absl::InvalidArgumentError(absl::StrCat("tag ", Quoted(piece), " is not key=value"));
    }
    BEAMLINE_RETURN_IF_ERROR(CheckTag(piece.substr(0, equals), piece.substr(equals + 1)));
    if (tags.size() == kMaxTagsPerItem)
      return absl::InvalidArgumentError(absl::StrCat("more than ", kMaxTagsPerItem, " tags"));
    tags.emplace_back(piece.substr(0, equals), piece.substr(equals + 1));
    text.remove_prefix(std::min(piece.size() + 1, text.size()));
  }
  return tags;
}

absl::StatusOr<std::string> FormatTags(const KeyValues& tags) {
  if (tags.size() > kMaxTagsPerItem)
    return absl::InvalidArgumentError(absl::StrCat("more than ", kMaxTagsPerItem, " tags"));
  std::string text;
  for (const auto& [key, value] : tags) {
    BEAMLINE_RETURN_IF_ERROR(CheckTag(key, value));
    absl::StrAppend(&text, text.empty() ? "" : ";", key, "=", value);
  }
  return text;
}

ItemTableReader::ItemTableReader(DelimitedReader reader)
    : reader_(std::move(reader)),
      item_(reader_.Column("item_id")),
      author_(reader_.Column("author_id")),
      duration_(reader_.Column("duration_ms")),
      created_(reader_.Column("created_ms")),
      relevance_(reader_.Column("relevance")),
      tags_(reader_.Column("tags")),
      title_(reader_.Column("title")) {}

absl::StatusOr<ItemTableReader> ItemTableReader::Open(const std::filesystem::path& path, const BadRowPolicy& policy,
                                                      Progress* progress) {
  BEAMLINE_ASSIGN_OR_RETURN(DelimitedReader reader, DelimitedReader::OpenTsv(path, {"item_id"}, policy, progress));
  return ItemTableReader(std::move(reader));
}

absl::Status ItemTableReader::Parse(ItemRow* row) {
  ItemAttributes& attributes = row->attributes;
  BEAMLINE_ASSIGN_OR_RETURN(row->item, ParseIdField("item_id", reader_.field(item_)));
  attributes.author = 0;
  if (!reader_.field(author_).empty()) {
    BEAMLINE_ASSIGN_OR_RETURN(attributes.author, ParseIdField("author_id", reader_.field(author_)));
  }
  BEAMLINE_ASSIGN_OR_RETURN(attributes.duration_ms,
                            ParseRangeField("duration_ms", reader_.field(duration_), kMaxDurationMs, true));
  BEAMLINE_ASSIGN_OR_RETURN(attributes.created_ms,
                            ParseRangeField("created_ms", reader_.field(created_), kMaxTimeMs, true));
  BEAMLINE_ASSIGN_OR_RETURN(attributes.relevance, ParseRelevance(reader_.field(relevance_)));
  BEAMLINE_ASSIGN_OR_RETURN(attributes.tags, ParseTags(reader_.field(tags_)));
  BEAMLINE_RETURN_IF_ERROR(CheckTitle(reader_.field(title_)));
  attributes.title = std::string(reader_.field(title_));
  if (seen_.insert(row->item).second) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("item_id ", row->item, " appears a second time"));
}

absl::StatusOr<bool> ItemTableReader::Next(ItemRow* row) {
  return reader_.NextAccepted([&] { return Parse(row); });
}

absl::StatusOr<ItemTableWriter> ItemTableWriter::Create(const std::filesystem::path& path) {
  BEAMLINE_ASSIGN_OR_RETURN(
      TableWriter writer,
      TableWriter::Create(path, {"item_id", "author_id", "duration_ms", "created_ms", "relevance", "tags", "title"}));
  return ItemTableWriter(std::move(writer));
}

absl::Status ItemTableWriter::Write(const ItemRow& row) {
  const ItemAttributes& attributes = row.attributes;
  BEAMLINE_RETURN_IF_ERROR(CheckTitle(attributes.title));
  BEAMLINE_ASSIGN_OR_RETURN(const std::string tags, FormatTags(attributes.tags));
  const std::string item = absl::StrCat(row.item);
  const std::string author = absl::StrCat(attributes.author);
  const std::string duration = absl::StrCat(attributes.duration_ms);
  const std::string created = absl::StrCat(attributes.created_ms);
  const std::string relevance = absl::StrCat(attributes.relevance);
  return writer_.Row({item, author, duration, created, relevance, tags, attributes.title});
}

}  // namespace beamline::data
