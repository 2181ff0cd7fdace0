// SPDX-License-Identifier: Apache-2.0
//
// Protobuf's text parser stops at its first error. Three tricks make it tell all: unknown fields are skipped and come
// as warnings, which we turn into errors; after any other error the line at fault is blanked and the text is parsed
// again; and an error that comes a token late is led back to its field first. Of a line with a brace only the `name:
// value` at fault is blanked: without its brace, errors behind it would be made up. Where no such field is found there,
// we stop.
#include <algorithm>
#include <cctype>
#include <numeric>
#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/tokenizer.h"
#include "server/config_problems.h"

namespace beamline::server {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::TextFormat;

constexpr int kMaxErrors = 50;
constexpr size_t kLongestName = 64;  // looked for before a number, or to tell what was meant

struct Finding {
  int line;    // from 1
  int column;  // from 0
  std::string text;
};

class Collector final : public google::protobuf::io::ErrorCollector {
 public:
#if GOOGLE_PROTOBUF_VERSION < 4022000
  void AddError(int line, int column, const std::string& message) override {
    errors.push_back({line + 1, column, message});
  }
  void AddWarning(int line, int column, const std::string& message) override {
    warnings.push_back({line + 1, column, message});
  }
#else
  void RecordError(int line, int column, absl::string_view message) override {
    errors.push_back({line + 1, column, std::string(message)});
  }
  void RecordWarning(int line, int column, absl::string_view message) override {
    warnings.push_back({line + 1, column, std::string(message)});
  }
#endif
  std::vector<Finding> errors;
  std::vector<Finding> warnings;
};

// 'Message type "a.b.C" has no field named "d".' -> what is unknown, where, and what was probably meant.
std::string ExplainUnknown(const std::string& warning) {
  const std::vector<std::string> quoted = absl::StrSplit(warning, '"');
  if (quoted.size() != 5) return warning;
  const Descriptor* type = google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(quoted[1]);
  if (type == nullptr) return warning;
  std::vector<std::string> names;
  names.reserve(type->field_count());
  for (int i = 0; i < type->field_count(); ++i) names.emplace_back(type->field(i)->name());
  const std::string nearest = Nearest(quoted[3], names);
  return absl::StrCat(quoted[3], ": ", std::string(type->name()), " has no such field; ",
                      nearest.empty() ? absl::StrCat("known are ", absl::StrJoin(names, ", "))
                                      : absl::StrCat("did you mean ", nearest, "?"));
}

// `line` without comment and with what is quoted replaced by blanks.
std::string Bare(std::string line) {
  char quote = 0;
  for (size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (quote == 0 && c == '#') return line.substr(0, i);
    if (quote == 0 && (c == '"' || c == '\'')) {
      quote = c;
    } else if (quote != 0) {
      line[i] = ' ';
      if (c == '\\' && i + 1 < line.size()) line[++i] = ' ';
      if (c == quote) quote = 0;
    }
  }
  return line;
}

bool IsNameCharacter(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

bool IsSeparator(char c) { return c == ',' || c == ';'; }  // which may follow a field, and nothing else

// Blanks the last `name: value` of `line` whose name begins at or before `column`. False, and the line unchanged, where
// there is none or its value is no plain one.
bool BlankField(int column, std::string& line) {
  const std::string bare = Bare(line);
  size_t colon = bare.find(':', std::min<size_t>(column, bare.size()));
  const auto name_of = [&](size_t at) {
    size_t end = at;
    while (end > 0 && bare[end - 1] == ' ') --end;
    size_t begin = end;
    while (begin > 0 && IsNameCharacter(bare[begin - 1])) --begin;
    return std::pair(begin, end);
  };
  // The error points at the value, or at the name before the colon.
  if (colon == std::string::npos || name_of(colon).first > static_cast<size_t>(column)) {
    colon = bare.rfind(':', std::min<size_t>(column, bare.size()));
  }
  if (colon == std::string::npos) return false;
  const auto [begin, name_end] = name_of(colon);
  if (begin == name_end) return false;
  size_t end = bare.find_first_not_of(' ', colon + 1);
  if (end == std::string::npos || std::string_view("{}<>[]").find(bare[end]) != std::string_view::npos) return false;
  if (line[end] == '"' || line[end] == '\'') {
    const char quote = line[end];
    for (++end; end < line.size() && line[end] != quote; ++end) end += line[end] == '\\' ? 1 : 0;
    end = std::min(end + 1, line.size());
  } else {
    end = std::min(bare.find_first_of(" \t,;{}<>[]", end), bare.size());
  }
  const size_t next = bare.find_first_not_of(" \t", end);
  if (next != std::string::npos && IsSeparator(bare[next])) end = next + 1;
  line.replace(begin, end - begin, end - begin, ' ');
  return true;
}

// The parser counts a tab up to the next multiple of eight; bytes are what we cut.
int ByteOfColumn(absl::string_view line, int column) {
  constexpr int kTab = 8;
  size_t byte = 0;
  for (int at = 0; byte < line.size() && at < column; ++byte) at += line[byte] == '\t' ? kTab - at % kTab : 1;
  return static_cast<int>(byte);
}

// The field whose value `error` refuses with words that the parser says one token too late; else empty.
std::string FieldReadPast(const std::string& error) {
  const std::vector<std::string> quoted = absl::StrSplit(error, '"');
  if (quoted.size() != 5) return "";
  if (absl::StartsWith(error, "Unknown enumeration value of ")) return quoted[3];
  return absl::StartsWith(error, "Invalid value for boolean field ") ? quoted[1] : "";
}

// Of an enum or bool the parser reads past the value before it refuses it, maybe to a later and innocent line. Leads
// such an error back to its field and blanks that with its value. False, and nothing changed, for any other error.
bool BlankFieldReadPast(Finding& error, std::vector<std::string>& lines) {
  const std::string field = FieldReadPast(error.text);
  if (field.empty()) return false;
  std::vector<std::string> bare(lines.begin(), lines.begin() + std::min<size_t>(error.line, lines.size()));
  for (std::string& line : bare) line = Bare(std::move(line));
  if (bare.size() == static_cast<size_t>(error.line)) {
    bare.back().resize(std::min<size_t>(bare.back().size(), error.column));
  }
  const std::string before = absl::StrJoin(bare, "\n");
  size_t at = before.size();
  const auto skip_back = [&](auto&& skipped) {
    while (at > 0 && skipped(before[at - 1])) --at;
  };
  const auto is_space = [](unsigned char c) { return std::isspace(c) != 0; };
  skip_back(is_space);
  skip_back(IsNameCharacter);  // the value
  skip_back(is_space);
  if (at == 0 || before[at - 1] != ':') return false;
  --at;
  skip_back(is_space);
  const size_t end = at;
  skip_back(IsNameCharacter);
  if (before.compare(at, end - at, field) != 0) return false;
  if (error.line <= static_cast<int>(lines.size())) {
    std::string& last = lines[error.line - 1];
    const size_t next = error.column;
    if (next < last.size() && IsSeparator(last[next])) last[next] = ' ';
  }
  const size_t line_begin = before.rfind('\n', at) + 1;  // 0 after npos
  error.line = static_cast<int>(std::count(before.begin(), before.begin() + at, '\n')) + 1;
  error.column = static_cast<int>(at - line_begin);
  size_t line = error.line - 1, column = error.column;
  for (; at < before.size(); ++at) {
    if (before[at] == '\n') {
      ++line;
      column = 0;
    } else {
      lines[line][column++] = ' ';
    }
  }
  return true;
}

// The line, from 1, of the last brace that nothing closes; 0: there is none.
int UnclosedLine(const std::vector<std::string>& lines) {
  std::vector<int> open;
  for (size_t i = 0; i < lines.size(); ++i) {
    for (const char c : Bare(lines[i])) {
      if (c == '{') open.push_back(static_cast<int>(i) + 1);
      if (c == '}' && !open.empty()) open.pop_back();
    }
  }
  return open.empty() ? 0 : open.back();
}

// The parser's words and what stands there: its own say "Expected integer", not of which field.
std::string Explain(const Finding& error, const std::vector<std::string>& lines) {
  int last = static_cast<int>(lines.size());
  while (last > 1 && absl::StripAsciiWhitespace(lines[last - 1]).empty()) --last;
  if (error.line > last || (error.line == last && error.column >= static_cast<int>(lines[last - 1].size()))) {
    const int open = UnclosedLine(lines);
    return absl::StrCat(error.text, " at the end: is a '}' missing?",
                        open > 0 ? absl::StrCat(" The '{' of line ", open, " is not closed.") : "");
  }
  constexpr size_t kShown = 80;
  const absl::string_view line = absl::StripAsciiWhitespace(lines[error.line - 1]);
  return absl::StrCat(error.text, " in: ", line.substr(0, kShown), line.size() > kShown ? "..." : "");
}

// The format reads 010 as 8 and 0x10 as 16: nobody means that in a configuration.
void RefuseOddNumbers(const std::vector<std::string>& lines, ConfigProblems* problems) {
  for (size_t i = 0; i < lines.size(); ++i) {
    const std::string bare = Bare(lines[i]);
    for (size_t at = bare.find('0'); at != std::string::npos; at = bare.find('0', at + 1)) {
      const auto inside = [&](size_t j) {
        return std::isalnum(static_cast<unsigned char>(bare[j])) || bare[j] == '_' || bare[j] == '.';
      };
      if ((at > 0 && inside(at - 1)) || at + 1 >= bare.size() || bare[at + 1] == '.' || !inside(at + 1)) continue;
      size_t end = at;
      while (end < bare.size() && inside(end)) ++end;
      size_t begin = at;  // of `name: ` before the number
      while (begin > 0 && at - begin < kLongestName &&
             (bare[begin - 1] == ' ' || bare[begin - 1] == ':' || IsNameCharacter(bare[begin - 1])))
        --begin;
      problems->Add(static_cast<int>(i) + 1,
                    absl::StrCat(absl::StripLeadingAsciiWhitespace(bare.substr(begin, end - begin)),
                                 ": numbers are decimal and do not start with 0"));
    }
  }
}

}  // namespace

std::string Nearest(absl::string_view word, const std::vector<std::string>& candidates) {
  std::string nearest;
  if (word.size() > kLongestName) return nearest;
  size_t best = std::max<size_t>(word.size() / 3, 1) + 1;
  for (const std::string& candidate : candidates) {
    std::vector<size_t> row(candidate.size() + 1);  // of the edit distance's table
    std::iota(row.begin(), row.end(), size_t{0});
    for (size_t i = 1; i <= word.size(); ++i) {
      size_t diagonal = row[0];
      row[0] = i;
      for (size_t j = 1; j <= candidate.size(); ++j) {
        const size_t replaced = diagonal + (word[i - 1] == candidate[j - 1] ? 0 : 1);
        diagonal = row[j];
        row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
      }
    }
    if (row.back() < best) {
      best = row.back();
      nearest = candidate;
    }
  }
  return nearest;
}

std::unique_ptr<TextFormat::ParseInfoTree> ParseConfigText(const std::string& text, config::v1::ServerConfig* config,
                                                           ConfigProblems* problems) {
  std::unique_ptr<TextFormat::ParseInfoTree> locations;
  const std::vector<std::string> given = absl::StrSplit(text, '\n');
  std::vector<std::string> lines = given;
  RefuseOddNumbers(lines, problems);
  std::vector<Finding> unknown;
  for (int round = 0; round < kMaxErrors; ++round) {
    Collector collector;
    TextFormat::Parser parser;
    parser.AllowUnknownField(true);
    parser.RecordErrorsTo(&collector);
    locations = std::make_unique<TextFormat::ParseInfoTree>();
    parser.WriteLocationsTo(locations.get());
    parser.SetRecursionLimit(16);
    const bool parsed = parser.ParseFromString(absl::StrJoin(lines, "\n"), config);
    unknown = collector.warnings;
    if (parsed || collector.errors.empty()) break;
    Finding error = collector.errors.front();
    if (error.line <= static_cast<int>(lines.size())) {
      error.column = ByteOfColumn(lines[error.line - 1], error.column);
    }
    const bool blanked = BlankFieldReadPast(error, lines);
    problems->Add(std::min(error.line, static_cast<int>(given.size())), Explain(error, given));
    if (blanked) continue;
    if (error.line > static_cast<int>(lines.size())) break;
    std::string& line = lines[error.line - 1];
    if (Bare(line).find_first_of("{}<>[]") == std::string::npos && !line.empty()) {
      line.clear();
    } else if (absl::StartsWith(error.text, "Expected identifier") || !BlankField(error.column, line)) {  // stray brace
      break;
    }
  }
  for (const Finding& warning : unknown) problems->Add(warning.line, ExplainUnknown(warning.text));
  return locations;
}

}  // namespace beamline::server
