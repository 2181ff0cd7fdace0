// SPDX-License-Identifier: Apache-2.0
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "beamline/status.h"
#include "sid/sid_index.h"

namespace beamline::sid {
namespace {

std::string Shown(absl::string_view text) {
  std::string shown;
  for (const char c : text.substr(0, 40)) shown += (c >= 0x20 && c < 0x7f) ? c : '?';
  return shown;
}

}  // namespace

absl::StatusOr<SidTable> ReadSidIndex(absl::string_view dialect, const std::string& path,
                                      const SidIndexOptions& options, BadRows* bad_rows) {
  if (dialect == "letter" || dialect == "minionerec") return ReadIndexJson(path, options, bad_rows);
  if (dialect == "minionerec-info") return ReadInfoText(path, options, bad_rows);
  if (dialect == "openonerec") return ReadSidMapJson(path, options, bad_rows);
  if (dialect == "tsv") return ReadSidTsv(path, options, bad_rows);
  return absl::InvalidArgumentError(
      absl::StrCat("dialect: '", dialect, "' must be letter, minionerec, minionerec-info, openonerec or tsv"));
}

std::string SidToken(int level, Code code) { return absl::StrCat("<", std::string(1, 'a' + level), "_", code, ">"); }

absl::StatusOr<Code> ParseSidToken(absl::string_view token, int level) {
  const std::string prefix = absl::StrCat("<", std::string(1, 'a' + level), "_");
  if (!absl::StartsWith(token, prefix) || !absl::EndsWith(token, ">")) {
    return absl::InvalidArgumentError(
        absl::StrCat("token '", Shown(token), "' of level ", level + 1, " must be ", prefix, "CODE>"));
  }
  const absl::string_view digits = token.substr(prefix.size(), token.size() - prefix.size() - 1);
  Code code = 0;
  bool plain = !digits.empty() && digits.size() <= 9 && (digits.size() == 1 || digits[0] != '0');
  for (const char c : digits) plain &= c >= '0' && c <= '9';
  if (!plain || !absl::SimpleAtoi(digits, &code)) {
    return absl::InvalidArgumentError(absl::StrCat("token '", Shown(token), "' has no plain decimal code"));
  }
  return code;
}

std::string SidTokens(const Sid& sid) {
  std::string text;
  for (int level = 0; level < sid.levels(); ++level) text += SidToken(level, sid[level]);
  return text;
}

absl::StatusOr<Sid> ParseSidTokens(absl::string_view text) {
  Sid sid;
  while (!text.empty()) {
    if (sid.levels() == kMaxLevels) {
      return absl::InvalidArgumentError(absl::StrCat("SID has more than ", kMaxLevels, " tokens"));
    }
    const size_t end = text.find('>');
    const absl::string_view token = text.substr(0, end == absl::string_view::npos ? end : end + 1);
    BEAMLINE_ASSIGN_OR_RETURN(const Code code, ParseSidToken(token, sid.levels()));
    sid.push_back(code);
    text.remove_prefix(token.size());
  }
  if (sid.empty()) return absl::InvalidArgumentError("SID has no tokens");
  return sid;
}

}  // namespace beamline::sid
