// SPDX-License-Identifier: Apache-2.0
#include "parallel/greeting.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace beamline::parallel {
namespace {

constexpr absl::string_view kMagic = "beamline group 1";
constexpr absl::string_view kRefused = "refused\n";
constexpr size_t kShownBytes = 128;

std::string Shown(absl::string_view text) { return absl::Utf8SafeCEscape(text.substr(0, kShownBytes)); }

}  // namespace

std::string FormatGreeting(const Greeting& greeting) {
  std::string text = absl::StrCat(kMagic, "\n", greeting.rank, "\n", greeting.size, "\n", greeting.port);
  for (const auto& [field, value] : greeting.settings) absl::StrAppend(&text, "\n", field, "\t", value);
  return text;
}

absl::StatusOr<Greeting> ParseGreeting(const std::string& text) {
  const std::vector<std::string> lines = absl::StrSplit(text, '\n');
  Greeting greeting;
  if (lines.size() < 4 || lines[0] != kMagic || !absl::SimpleAtoi(lines[1], &greeting.rank) ||
      !absl::SimpleAtoi(lines[2], &greeting.size) || !absl::SimpleAtoi(lines[3], &greeting.port)) {
    return absl::InvalidArgumentError("it does not speak our protocol");
  }
  for (size_t i = 4; i < lines.size(); ++i) {
    greeting.settings.push_back(absl::StrSplit(lines[i], absl::MaxSplits('\t', 1)));
  }
  return greeting;
}

absl::Status CompareGreetings(const Greeting& other, const Greeting& first) {
  const auto differ = [&](absl::string_view field, const auto& theirs, const auto& ours) {
    return absl::FailedPreconditionError(absl::StrCat(field, ": rank ", other.rank, " has ", theirs, ", rank 0 has ",
                                                      ours, "; all ranks of a group need the same"));
  };
  if (other.size != first.size) return differ("parallel.size", other.size, first.size);
  if (other.rank < 1 || other.rank >= first.size) {
    return absl::FailedPreconditionError(
        absl::StrCat("parallel.rank: ", other.rank, " joined, the others are 1..", first.size - 1));
  }
  for (size_t i = 0; i < std::max(first.settings.size(), other.settings.size()); ++i) {
    const std::pair<std::string, std::string> none("", "nothing");
    const auto& ours = i < first.settings.size() ? first.settings[i] : none;
    const auto& theirs = i < other.settings.size() ? other.settings[i] : none;
    if (ours == theirs) continue;
    if (!ours.first.empty() && !theirs.first.empty() &&
        ours.first != theirs.first) {  // of an earlier or later Beamline
      return differ(ours.first, "nothing", ours.second);
    }
    return differ(ours.first.empty() ? Shown(theirs.first) : ours.first, Shown(theirs.second), ours.second);
  }
  return absl::OkStatus();
}

std::string FormatRefusal(const absl::Status& why) { return absl::StrCat(kRefused, why.message()); }

std::optional<std::string> ParseRefusal(absl::string_view text) {
  if (!absl::ConsumePrefix(&text, kRefused)) return std::nullopt;
  return std::string(text);
}

}  // namespace beamline::parallel
