// SPDX-License-Identifier: Apache-2.0
#include "fuzz/mutate.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <string_view>

namespace beamline::fuzz {
namespace {

using namespace std::string_view_literals;

// Numbers at the borders of their types, and what our text formats are made of or trip over.
constexpr uint64_t kNumbers[] = {0,           1,          2,          0x7f,    0x80,       0xff,       0x100,
                                 0x7fff,      0x8000,     0xffff,     0x10000, 0x7fffffff, 0x80000000, 0xffffffff,
                                 0x100000000, ~0ull >> 1, 1ull << 63, ~0ull,   ~0ull - 1,  1ull << 40};
constexpr std::string_view kWords[] = {"\0"sv,
                                       "\n"sv,
                                       "\r\n"sv,
                                       "\t"sv,
                                       "\""sv,
                                       "\\"sv,
                                       "\\u0000"sv,
                                       "{"sv,
                                       "}"sv,
                                       "["sv,
                                       "]"sv,
                                       ","sv,
                                       ":"sv,
                                       "#"sv,
                                       "'"sv,
                                       "-1"sv,
                                       "0"sv,
                                       "00"sv,
                                       "0x10"sv,
                                       "1e3"sv,
                                       "1e400"sv,
                                       "nan"sv,
                                       "inf"sv,
                                       "null"sv,
                                       "true"sv,
                                       "1.5"sv,
                                       "65536"sv,
                                       "\xff"sv,
                                       "\xc3\x28"sv,
                                       "\xef\xbb\xbf"sv,
                                       "\xed\xa0\x80"sv,
                                       "\x1f\x8b"sv,
                                       "PK\x03\x04"sv,
                                       "2147483648"sv,
                                       "4294967296"sv,
                                       "9223372036854775808"sv,
                                       "18446744073709551616"sv,
                                       "[[[[[[[[[["sv};

size_t Below(size_t end, std::mt19937_64& random) { return end == 0 ? 0 : random() % end; }

// A block of `text`: begin and length, mostly short.
std::pair<size_t, size_t> Block(const std::string& text, std::mt19937_64& random) {
  const size_t begin = Below(text.size(), random);
  const size_t longest = text.size() - begin;
  return {begin, std::min(longest, 1 + Below(random() % 4 == 0 ? longest : std::min<size_t>(longest, 16), random))};
}

void PutNumber(std::string& text, std::mt19937_64& random) {
  const size_t bytes = size_t{1} << random() % 4;
  if (text.size() < bytes) return;
  const size_t at = Below(text.size() - bytes + 1, random);
  uint64_t number = kNumbers[random() % std::size(kNumbers)];
  if (random() % 3 == 0) {  // near what stands there
    number = 0;
    for (size_t i = bytes; i-- > 0;) number = number << 8 | static_cast<unsigned char>(text[at + i]);
    number += random() % 33 - 16;
  }
  for (size_t i = 0; i < bytes; ++i) text[at + i] = static_cast<char>(number >> 8 * i);
}

void ChangeOnce(std::string& text, const std::vector<std::string>& others, std::mt19937_64& random) {
  switch (random() % 10) {
    case 0:
      if (!text.empty()) text[Below(text.size(), random)] ^= static_cast<char>(1 << random() % 8);
      return;
    case 1:
      if (!text.empty()) text[Below(text.size(), random)] = static_cast<char>(random());
      return;
    case 2:
      return PutNumber(text, random);
    case 3: {
      const auto [begin, length] = Block(text, random);
      text.erase(begin, length);
      return;
    }
    case 4: {
      const auto [begin, length] = Block(text, random);
      const std::string block = text.substr(begin, length);
      const size_t times = random() % 16 == 0 ? 1 + random() % 64 : 1;
      for (size_t i = 0; i < times; ++i) text.insert(begin, block);
      return;
    }
    case 5:
      text.insert(Below(text.size() + 1, random), kWords[random() % std::size(kWords)]);
      return;
    case 6: {  // a word in the place of what stands there
      const auto [begin, length] = Block(text, random);
      text.replace(begin, length, kWords[random() % std::size(kWords)]);
      return;
    }
    case 7: {  // a block moved
      const auto [begin, length] = Block(text, random);
      const std::string block = text.substr(begin, length);
      text.erase(begin, length);
      text.insert(Below(text.size() + 1, random), block);
      return;
    }
    case 8:
      if (!others.empty()) {
        const std::string& other = others[Below(others.size(), random)];
        const auto [begin, length] = Block(other, random);
        text.insert(Below(text.size() + 1, random), other, begin, length);
      }
      return;
    default:  // cut off, or the beginning of one with the end of another
      text.resize(Below(text.size() + 1, random));
      if (!others.empty() && random() % 2 == 0) {
        const std::string& other = others[Below(others.size(), random)];
        text.append(other, Below(other.size() + 1, random));
      }
  }
}

}  // namespace

std::string Mutate(std::string input, const std::vector<std::string>& others, size_t max_bytes,
                   std::mt19937_64& random) {
  for (size_t changes = 1 + (random() % 2 == 0 ? 0 : random() % 8); changes > 0; --changes) {
    ChangeOnce(input, others, random);
    if (input.size() > max_bytes) input.resize(max_bytes);
  }
  return input;
}

}  // namespace beamline::fuzz
