// SPDX-License-Identifier: Apache-2.0
//
// A file of what a backend measured on a device (backend.h, ExportTuning): the SHA-256 of its text, a line, and the
// text. A flipped bit could name another algorithm that the library takes and that breaks the rule of equal rows. The
// cache of an engine names it DIGEST-NAME.txt, by the bundle and the device (tuning_cache.h); a bundle may hold one for
// each of several devices, tuning-NAME.txt (`beamline pack --tuning`). Pure functions but for ReadTuning.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace beamline::runtime {

inline constexpr uint64_t kMaxTuningBytes = 4 << 20;

std::string TuningToBytes(const std::string& text);
// The text. DATA_LOSS where the first line is not the SHA-256 of it.
absl::StatusOr<std::string> ParseTuning(const std::string& bytes, absl::string_view source);
absl::StatusOr<std::string> ReadTuning(const std::filesystem::path& file);

// tuning-NAME.txt, of a backend's TuningName.
std::string TuningFileInBundle(absl::string_view name);
bool IsTuningFileInBundle(absl::string_view file);
// What a bundle calls `file`, of an engine's cache or of another bundle: where the shapes of the weights are the same,
// so is what was measured. INVALID_ARGUMENT: its name is neither's.
absl::StatusOr<std::string> NameInBundle(const std::filesystem::path& file);

}  // namespace beamline::runtime
