// SPDX-License-Identifier: Apache-2.0
#include "base/utf8.h"

namespace beamline {
namespace {

unsigned char Byte(absl::string_view text, size_t at) { return static_cast<unsigned char>(text[at]); }

// The second byte's range depends on the first: Unicode table 3-7.
bool SecondFits(unsigned char first, unsigned char second) {
  switch (first) {
    case 0xE0:
      return second >= 0xA0;  // else overlong
    case 0xED:
      return second <= 0x9F;  // else a surrogate
    case 0xF0:
      return second >= 0x90;  // else overlong
    case 0xF4:
      return second <= 0x8F;  // else above U+10FFFF
    default:
      return true;
  }
}

}  // namespace

size_t Utf8Length(absl::string_view text) {
  if (text.empty()) return 0;
  const unsigned char first = Byte(text, 0);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || text.size() < length || !SecondFits(first, Byte(text, 1))) return 0;
  for (size_t at = 1; at < length; ++at) {
    if ((Byte(text, at) & 0xC0) != 0x80) return 0;
  }
  return length;
}

bool IsUtf8(absl::string_view text) {
  while (!text.empty()) {
    const size_t length = Utf8Length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

bool IsControl(absl::string_view character) {
  const unsigned char first = Byte(character, 0);
  return first < 0x20 || first == 0x7F || (first == 0xC2 && Byte(character, 1) < 0xA0);
}

std::string PrintableUtf8(absl::string_view text, size_t max_bytes) {
  std::string printable;
  while (!text.empty()) {
    const size_t length = Utf8Length(text);
    const absl::string_view character = text.substr(0, length == 0 ? 1 : length);
    const absl::string_view shown = length == 0 || IsControl(character) ? "?" : character;
    if (printable.size() + shown.size() > max_bytes) break;
    printable.append(shown.data(), shown.size());
    text.remove_prefix(character.size());
  }
  return printable;
}

}  // namespace beamline
