// SPDX-License-Identifier: Apache-2.0
//
// Text of a checkpoint's files (names of tokens and tensors, values of settings) for errors and notes, which go to
// terminals: strangers wrote it, and it may be megabytes. Pure; thread-safe.
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"
#include "base/utf8.h"

namespace beamline::runtime {

inline constexpr size_t kMaxHfTextBytes = 200;

inline std::string HfText(absl::string_view text) { return PrintableUtf8(text, kMaxHfTextBytes); }

}  // namespace beamline::runtime
