// SPDX-License-Identifier: Apache-2.0
//
// Digests that are written to files and therefore never change between versions or machines: SHA-256 for integrity and
// fingerprints, and a fast 64-bit hash for bucketing attribute values (not for integrity, and not secure).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

struct evp_md_ctx_st;

namespace beamline {

// 64 lower-case hexadecimal digits.
std::string Sha256Hex(std::string_view bytes);

// The same over pieces. Not thread-safe.
class Sha256 {
 public:
  Sha256();
  Sha256& Update(std::string_view bytes);
  std::string HexDigest();  // once; the object is used up

 private:
  struct Deleter {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, Deleter> context_;
};

// FNV-1a over the bytes from a seeded start, finished by a bijective mix. Stable for ever: model buckets depend on it.
uint64_t StableHash64(std::string_view bytes, uint64_t seed = 0);

// The bijective mix alone (splitmix64's finaliser over value + golden ratio * (seed + 1)); for integer keys and seeds.
uint64_t StableMix64(uint64_t value, uint64_t seed = 0);

}  // namespace beamline
