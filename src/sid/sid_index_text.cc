// SPDX-License-Identifier: Apache-2.0
//
// The line formats of sid/sid_index.h: our TSV and MiniOneRec's info text.
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/line_reader.h"
#include "beamline/status.h"
#include "sid/codebook.h"
#include "sid/sid_index.h"
#include "sid/sid_table.h"

namespace beamline::sid {
namespace {

constexpr char kMark[] = "#beamline-sids";
constexpr char kVersion[] = "1";
constexpr char kColumns[] = "item_id\tsid";
constexpr size_t kFlushBytes = 1 << 16;

bool ParseId(absl::string_view text, uint64_t* id) {
  bool digits = !text.empty();
  for (const char c : text) digits &= c >= '0' && c <= '9';
  return digits && absl::SimpleAtoi(text, id);
}

absl::StatusOr<Sid> ParseCodes(absl::string_view text) {
  Sid sid;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    uint64_t code = 0;
    if (!ParseId(part, &code) || code >= kMaxLevelSize || sid.levels() == kMaxLevels) {
      return absl::InvalidArgumentError(
          absl::StrCat("SID must be 1 to ", kMaxLevels, " codes below 65536 with commas, such as 12,7,255"));
    }
    sid.push_back(static_cast<Code>(code));
  }
  return sid;
}

// The header's last field: of every line but for that field, each with its end of line.
constexpr char kDigestField[] = "sha256=";

// "#beamline-sids<TAB>1<TAB>levels=...<TAB>codebook=...<TAB>targets=...<TAB>log=...<TAB>sha256=..."; gives the digest.
absl::StatusOr<std::string> ParseHeader(absl::string_view line, const std::string& path, SidTableBuilder& builder) {
  const std::vector<absl::string_view> fields = absl::StrSplit(line, '\t');
  if (fields.size() < 3 || fields[0] != kMark || !absl::StartsWith(fields[2], "levels=")) {
    return absl::InvalidArgumentError(absl::StrCat(path, ":1: must begin with '", kMark, "<TAB>1<TAB>levels=...'"));
  }
  if (fields[1] != kVersion) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ":1: version ", fields[1].substr(0, 16), ", this program reads ", kVersion));
  }
  auto sizes = ParseLevelSizes(fields[2].substr(7));
  if (!sizes.ok()) return absl::InvalidArgumentError(absl::StrCat(path, ":1: ", sizes.status().message()));
  std::string digest;
  std::set<absl::string_view> names = {"levels"};
  for (absl::string_view field : absl::MakeConstSpan(fields).subspan(3)) {
    const absl::string_view name = field.substr(0, field.find('='));
    if (!names.insert(name).second) {  // either may be the one that was meant
      return absl::InvalidArgumentError(absl::StrCat(path, ":1: field", QuotedKey(name), " appears a second time"));
    }
    if (absl::ConsumePrefix(&field, "codebook=")) {
      builder.SetFingerprint(std::string(field));
    } else if (absl::ConsumePrefix(&field, "targets=")) {
      builder.SetTargets(std::string(field));
    } else if (absl::ConsumePrefix(&field, "log=")) {
      builder.SetLog(std::string(field));
    } else if (absl::ConsumePrefix(&field, kDigestField)) {
      digest = std::string(field);
    } else {  // a damaged name must not switch its field off
      return absl::InvalidArgumentError(
          absl::StrCat(path, ":1: field", QuotedKey(field), " is none of levels, codebook, targets, log, sha256"));
    }
  }
  if (digest.empty() && absl::StrContains(line, kDigestField)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ":1: '", kDigestField, "' must be a field, with a value"));
  }
  BEAMLINE_RETURN_IF_ERROR(builder.SetLevelSizes(*std::move(sizes), "1"));
  return digest;
}

// The file's lines but for its digest, in pieces of about kFlushBytes.
absl::Status ForEachPiece(const SidTable& table, absl::string_view digest,
                          absl::FunctionRef<absl::Status(const std::string&)> write) {
  std::string text = absl::StrCat(kMark, "\t", kVersion, "\tlevels=", FormatLevelSizes(table.level_sizes));
  if (!table.codebook_fingerprint.empty()) absl::StrAppend(&text, "\tcodebook=", table.codebook_fingerprint);
  if (!table.targets.empty()) absl::StrAppend(&text, "\ttargets=", table.targets);
  if (!table.log.empty()) absl::StrAppend(&text, "\tlog=", table.log);
  if (!digest.empty()) absl::StrAppend(&text, "\t", kDigestField, digest);
  absl::StrAppend(&text, "\n", kColumns, "\n");
  for (size_t i = 0; i < table.items.size(); ++i) {
    absl::StrAppend(&text, table.items[i], "\t", absl::StrJoin(table.sids[i].codes(), ","), "\n");
    if (text.size() < kFlushBytes) continue;
    BEAMLINE_RETURN_IF_ERROR(write(text));
    text.clear();
  }
  return write(text);
}

// A line reader whose over-long lines count as bad rows.
class RowReader {
 public:
  static absl::StatusOr<RowReader> Open(const std::string& path, const SidIndexOptions& options) {
    BEAMLINE_ASSIGN_OR_RETURN(LineReader lines, LineReader::Open(path, 64 << 10));
    if (lines.file_bytes() > options.max_file_bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": ", lines.file_bytes(), " bytes are over the limit of ", options.max_file_bytes));
    }
    return RowReader(std::move(lines));
  }
  absl::StatusOr<bool> Next(SidTableBuilder& builder, absl::string_view* line) {
    while (true) {
      std::string_view text;
      const absl::StatusOr<bool> more = lines_.Next(&text);
      *line = absl::string_view(text.data(), text.size());
      if (more.ok() || !absl::IsOutOfRange(more.status())) return more;
      BEAMLINE_RETURN_IF_ERROR(builder.Refuse(where(), "line is over the limit of 65536 bytes"));
    }
  }
  std::string where() const { return absl::StrCat(lines_.line_number()); }

 private:
  explicit RowReader(LineReader lines) : lines_(std::move(lines)) {}
  LineReader lines_;
};

// Collects text and writes it in pieces.
class BufferedFile {
 public:
  explicit BufferedFile(AtomicFile file) : file_(std::move(file)) {}
  absl::Status Append(const std::string& text) {
    buffer_ += text;
    return buffer_.size() < kFlushBytes ? absl::OkStatus() : Flush();
  }
  absl::Status Commit() {
    BEAMLINE_RETURN_IF_ERROR(Flush());
    return file_.Commit();
  }

 private:
  absl::Status Flush() {
    BEAMLINE_RETURN_IF_ERROR(file_.Write(buffer_));
    buffer_.clear();
    return absl::OkStatus();
  }
  AtomicFile file_;
  std::string buffer_;
};

// Titles hold no separator in either direction.
std::string CleanTitle(absl::string_view title) {
  std::string clean(title);
  for (char& c : clean) {
    if (c == '\t' || c == '\n' || c == '\r') c = ' ';
  }
  return clean;
}

}  // namespace

absl::StatusOr<SidTable> ReadSidTsv(const std::string& path, const SidIndexOptions& options, BadRows* bad_rows) {
  BEAMLINE_ASSIGN_OR_RETURN(RowReader rows, RowReader::Open(path, options));
  SidTableBuilder builder(path, options);
  absl::string_view line;
  BEAMLINE_ASSIGN_OR_RETURN(bool more, rows.Next(builder, &line));
  BEAMLINE_ASSIGN_OR_RETURN(const std::string expected, ParseHeader(more ? line : absl::string_view(), path, builder));
  Sha256 digest;
  const auto add = [&digest](absl::string_view text) { digest.Update({text.data(), text.size()}).Update("\n"); };
  add(absl::StrReplaceAll(line, {{absl::StrCat("\t", kDigestField, expected), ""}}));
  BEAMLINE_ASSIGN_OR_RETURN(more, rows.Next(builder, &line));
  if (!more || line != kColumns) {
    return absl::InvalidArgumentError(absl::StrCat(path, ":2: columns must be item_id<TAB>sid"));
  }
  add(line);
  while (true) {
    BEAMLINE_ASSIGN_OR_RETURN(more, rows.Next(builder, &line));
    if (!more) break;
    add(line);
    SidTableBuilder::ParsedRow row{rows.where(), 0, Sid()};
    const size_t tab = line.find('\t');
    if (tab == absl::string_view::npos || !ParseId(line.substr(0, tab), &row.key)) {
      BEAMLINE_RETURN_IF_ERROR(builder.Refuse(row.where, "row must be an item id, a tab and a SID"));
      continue;
    }
    const absl::StatusOr<Sid> sid = ParseCodes(line.substr(tab + 1));
    if (!sid.ok()) {
      BEAMLINE_RETURN_IF_ERROR(builder.Refuse(row.where, sid.status().message()));
      continue;
    }
    row.sid = *sid;
    BEAMLINE_RETURN_IF_ERROR(builder.Add(row).status());
  }
  if (!expected.empty() && digest.HexDigest() != expected) {
    return absl::DataLossError(absl::StrCat(path, ": its rows do not have the SHA-256 of its first line; it was ",
                                            "damaged or edited: make it again, or take the field ", kDigestField,
                                            " out of that line if the change was meant"));
  }
  return builder.Finish(bad_rows);
}

absl::Status WriteSidTsv(const std::string& path, const SidTable& table) {
  BEAMLINE_RETURN_IF_ERROR(CheckSidTable(table));
  BEAMLINE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  Sha256 digest;
  BEAMLINE_RETURN_IF_ERROR(ForEachPiece(table, "", [&digest](const std::string& text) {
    digest.Update(text);
    return absl::OkStatus();
  }));
  BEAMLINE_RETURN_IF_ERROR(
      ForEachPiece(table, digest.HexDigest(), [&file](const std::string& text) { return file.Write(text); }));
  return file.Commit();
}

absl::StatusOr<SidTable> ReadInfoText(const std::string& path, const SidIndexOptions& options, BadRows* bad_rows) {
  BEAMLINE_ASSIGN_OR_RETURN(RowReader rows, RowReader::Open(path, options));
  SidTableBuilder builder(path, options);
  absl::string_view line;
  while (true) {
    BEAMLINE_ASSIGN_OR_RETURN(const bool more, rows.Next(builder, &line));
    if (!more) return builder.Finish(bad_rows);
    const std::vector<absl::string_view> fields = absl::StrSplit(line, '\t');
    SidTableBuilder::ParsedRow row{rows.where(), 0, Sid()};
    if (fields.size() != 3 || !ParseId(fields[2], &row.key)) {
      BEAMLINE_RETURN_IF_ERROR(builder.Refuse(row.where, "row must be SID<TAB>title<TAB>id"));
      continue;
    }
    const absl::StatusOr<Sid> sid = ParseSidTokens(fields[0]);
    if (!sid.ok()) {
      BEAMLINE_RETURN_IF_ERROR(builder.Refuse(row.where, sid.status().message()));
      continue;
    }
    row.sid = *sid;
    BEAMLINE_ASSIGN_OR_RETURN(const bool taken, builder.Add(row));
    if (taken) builder.AddTitle(std::string(fields[1]));
  }
}

absl::Status WriteInfoText(const std::string& path, const SidTable& table, int64_t id_offset) {
  BEAMLINE_RETURN_IF_ERROR(CheckSidTable(table));
  BEAMLINE_ASSIGN_OR_RETURN(AtomicFile target, AtomicFile::Create(path));
  BufferedFile file(std::move(target));
  for (size_t i = 0; i < table.items.size(); ++i) {
    BEAMLINE_ASSIGN_OR_RETURN(const uint64_t key, KeyOfItem(table.items[i], id_offset));
    const std::string title = table.titles.empty() ? std::string() : CleanTitle(table.titles[i]);
    BEAMLINE_RETURN_IF_ERROR(file.Append(absl::StrCat(SidTokens(table.sids[i]), "\t", title, "\t", key, "\n")));
  }
  return file.Commit();
}

}  // namespace beamline::sid
