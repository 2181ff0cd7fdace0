// SPDX-License-Identifier: Apache-2.0
#include "runtime/tuning_file.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/digest.h"
#include "base/file.h"
#include "beamline/status.h"

namespace beamline::runtime {
namespace {

constexpr size_t kMaxName = 200, kDigestDigits = 64;
constexpr char kPrefix[] = "tuning-", kSuffix[] = ".txt";

// Letters, digits, '.' and '-' (backend.h).
bool IsTuningName(absl::string_view name) {
  return !name.empty() && name.size() <= kMaxName && std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-';
  });
}

}  // namespace

std::string TuningToBytes(const std::string& text) { return absl::StrCat(Sha256Hex(text), "\n", text); }

absl::StatusOr<std::string> ParseTuning(const std::string& bytes, absl::string_view source) {
  const size_t line = bytes.find('\n');
  std::string text = line == std::string::npos ? "" : bytes.substr(line + 1);
  if (bytes.substr(0, line) == Sha256Hex(text)) return text;
  return absl::DataLossError(absl::StrCat(source, ": its first line is not the SHA-256 of the others"));
}

absl::StatusOr<std::string> ReadTuning(const std::filesystem::path& file) {
  BEAMLINE_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(file, kMaxTuningBytes));
  return ParseTuning(bytes, file.string());
}

std::string TuningFileInBundle(absl::string_view name) { return absl::StrCat(kPrefix, name, kSuffix); }

bool IsTuningFileInBundle(absl::string_view file) {
  return absl::ConsumePrefix(&file, kPrefix) && absl::ConsumeSuffix(&file, kSuffix) && IsTuningName(file);
}

absl::StatusOr<std::string> NameInBundle(const std::filesystem::path& file) {
  const std::string given = file.filename().string();
  if (IsTuningFileInBundle(given)) return given;
  absl::string_view name = given;
  const absl::string_view digest = name.substr(0, kDigestDigits);
  const bool of_cache = name.size() > kDigestDigits && name[kDigestDigits] == '-' &&
                        std::all_of(digest.begin(), digest.end(), absl::ascii_isxdigit);
  if (of_cache && absl::ConsumeSuffix(&name, kSuffix) && IsTuningName(name.substr(kDigestDigits + 1))) {
    return TuningFileInBundle(name.substr(kDigestDigits + 1));
  }
  return absl::InvalidArgumentError(
      absl::StrCat(file.string(),
                   ": is no tuning file by its name; take one of the server's tuning folder (SHA256-DEVICE.txt), or "
                   "of another bundle (tuning-DEVICE.txt), as it is"));
}

}  // namespace beamline::runtime
