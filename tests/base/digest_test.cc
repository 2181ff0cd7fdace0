// SPDX-License-Identifier: Apache-2.0
#include "base/digest.h"

#include <set>
#include <string>

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace beamline {
namespace {

TEST(DigestTest, Sha256OfTheStandard) {
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256().Update("a").Update("").Update("bc").HexDigest(), Sha256Hex("abc"));
}

// Files hold values made with these: a changed value here is a broken format.
TEST(DigestTest, StableHashNeverChanges) {
  EXPECT_EQ(StableMix64(0), 0xE220A8397B1DCDAFull);     // the first output of splitmix64 seeded with 0
  EXPECT_EQ(StableMix64(0, 1), 0x6E789E6AA1B965F4ull);  // and the second
  EXPECT_EQ(StableHash64(""), StableHash64(std::string_view()));
  EXPECT_EQ(StableHash64("author=17"), 0x7AE295D1483A5EC3ull);
  EXPECT_EQ(StableHash64("author=17", 5), 0xA7916A8F76E69872ull);
}

TEST(DigestTest, SeedsAndBytesMatter) {
  std::set<uint64_t> hashes;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    for (int value = 0; value < 200; ++value) hashes.insert(StableHash64(absl::StrCat(value), seed));
  }
  EXPECT_EQ(hashes.size(), 50u * 200u);
  EXPECT_NE(StableHash64(std::string("\0", 1)), StableHash64(""));
}

}  // namespace
}  // namespace beamline
