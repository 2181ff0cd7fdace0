// SPDX-License-Identifier: Apache-2.0
#include "data/delimited_reader.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/interrupt.h"
#include "beamline/status.h"

namespace beamline::data {
namespace {

constexpr size_t kMaxColumns = 1000;
constexpr int64_t kRowsPerCheck = 4096;  // between looks at the interrupt flag and the progress bar

// Reads a quoted field that starts at line[from] == '"'. Writes its text to line[from + 1...] without the doubled
// quotes; returns the position behind the closing quote, or npos.
size_t Unquote(std::string* line, size_t from, std::string_view* field) {
  size_t write = from + 1;
  for (size_t read = from + 1; read < line->size(); ++read) {
    if ((*line)[read] == '"') {
      const bool doubled = read + 1 < line->size() && (*line)[read + 1] == '"';
      if (!doubled) {
        *field = std::string_view(*line).substr(from + 1, write - from - 1);
        return read + 1;
      }
      ++read;
    }
    (*line)[write++] = (*line)[read];
  }
  return std::string::npos;
}

}  // namespace

bool SplitLine(std::string* line, char delimiter, bool quotes, std::vector<std::string_view>* fields) {
  fields->clear();
  size_t at = 0;
  while (true) {
    std::string_view field;
    if (quotes && at < line->size() && (*line)[at] == '"') {
      at = Unquote(line, at, &field);
      if (at == std::string::npos || (at < line->size() && (*line)[at] != delimiter)) return false;
    } else {
      const size_t end = std::min(line->find(delimiter, at), line->size());
      field = std::string_view(*line).substr(at, end - at);
      at = end;
    }
    fields->push_back(field);
    if (at == line->size()) return true;
    ++at;
  }
}

DelimitedReader::DelimitedReader(LineReader reader, const Options& options)
    : reader_(std::move(reader)), options_(options), bad_rows_(reader_.name(), options.bad_rows) {}

absl::StatusOr<DelimitedReader> DelimitedReader::Open(const std::filesystem::path& path, const Options& options) {
  BEAMLINE_ASSIGN_OR_RETURN(LineReader lines, LineReader::Open(path, kMaxLineBytes));
  DelimitedReader reader(std::move(lines), options);
  BEAMLINE_RETURN_IF_ERROR(reader.ReadHeader());
  StartProgress(options.progress, absl::StrCat("reading ", path.filename().string()),
                static_cast<int64_t>(reader.reader_.file_bytes()), "bytes");
  return reader;
}

absl::StatusOr<DelimitedReader> DelimitedReader::OpenTsv(const std::filesystem::path& path,
                                                         std::vector<std::string> required,
                                                         const BadRowPolicy& bad_rows, Progress* progress) {
  Options options;
  options.required = std::move(required);
  options.bad_rows = bad_rows;
  options.progress = progress;
  return Open(path, options);
}

absl::Status DelimitedReader::ReadHeader() {
  const std::string& name = reader_.name();
  std::string_view line;
  BEAMLINE_ASSIGN_OR_RETURN(const bool any, reader_.Next(&line));
  if (!any) return absl::InvalidArgumentError(absl::StrCat(name, ": empty; a header line is needed"));
  if (!IsCleanText(line.substr(0, line.find('\t'))) || line.find('\0') != std::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ":1: not a text table in UTF-8: the header is ", Quoted(line)));
  }
  line_ = std::string(line);
  if (!SplitLine(&line_, options_.delimiter, options_.quotes, &fields_) || fields_.size() > kMaxColumns) {
    return absl::InvalidArgumentError(absl::StrCat(name, ":1: bad quotes or over ", kMaxColumns, " columns"));
  }
  header_.assign(fields_.begin(), fields_.end());
  std::vector<std::string> sorted = header_;
  std::sort(sorted.begin(), sorted.end());
  const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
  if (twice != sorted.end()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ":1: column ", Quoted(*twice), " appears twice"));
  }
  std::vector<std::string> missing;
  for (const std::string& column : options_.required) {
    if (Column(column) < 0) missing.push_back(column);
  }
  if (missing.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      name, ":1: the header lacks ", absl::StrJoin(missing, ", "), "; it has ", Quoted(absl::StrJoin(header_, " ")),
      ". Name the columns in the first line, separated by ", options_.delimiter == '\t' ? "tabs" : "commas"));
}

absl::StatusOr<bool> DelimitedReader::Next() {
  if (std::exchange(open_row_, false)) bad_rows_.CountGood();
  while (true) {
    if (bad_rows_.rows() % kRowsPerCheck == 0) {
      BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
      UpdateProgress(options_.progress, static_cast<int64_t>(reader_.bytes_read()));
    }
    std::string_view line;
    absl::StatusOr<bool> more = reader_.Next(&line);
    if (absl::IsOutOfRange(more.status())) {
      bad_rows_.CountBad(reader_.line_number(), absl::StrCat("longer than ", kMaxLineBytes, " bytes"));
      continue;
    }
    if (!more.ok()) return more.status();
    if (!*more) {
      UpdateProgress(options_.progress, static_cast<int64_t>(reader_.file_bytes()));
      FinishProgress(options_.progress);
      BEAMLINE_RETURN_IF_ERROR(bad_rows_.Verdict());
      return false;
    }
    if (line.empty()) continue;
    line_.assign(line);
    if (!SplitLine(&line_, options_.delimiter, options_.quotes, &fields_)) {
      bad_rows_.CountBad(reader_.line_number(), "a quote is not closed or followed by text");
    } else if (fields_.size() != header_.size()) {
      bad_rows_.CountBad(reader_.line_number(),
                         absl::StrCat(fields_.size(), " fields where the header has ", header_.size()));
    } else {
      open_row_ = true;
      return true;
    }
  }
}

void DelimitedReader::Refuse(const absl::Status& reason) {
  open_row_ = false;
  bad_rows_.CountBad(reader_.line_number(), std::string(reason.message()));
}

int DelimitedReader::Column(std::string_view name) const {
  const auto found = std::find(header_.begin(), header_.end(), name);
  return found == header_.end() ? -1 : static_cast<int>(found - header_.begin());
}

}  // namespace beamline::data
