// SPDX-License-Identifier: Apache-2.0
//
// Well-formed UTF-8 (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF), for text that strangers
// wrote. Pure functions; thread-safe.
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace beamline {

// Bytes of the character at the start of `text`, 1..4; 0 where there is none.
size_t Utf8Length(absl::string_view text);

bool IsUtf8(absl::string_view text);

// Of a character that Utf8Length measured: U+0000..U+001F, U+007F..U+009F.
bool IsControl(absl::string_view character);

// `text` for an answer or a log line, whatever bytes it holds: what is no character, or a control character, becomes
// '?', and more than `max_bytes` are cut off at a character's end.
std::string PrintableUtf8(absl::string_view text, size_t max_bytes);

}  // namespace beamline
