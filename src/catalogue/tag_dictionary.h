// SPDX-License-Identifier: Apache-2.0
//
// Interned item tags: each distinct (key, value) pair has a number. Intern numbers pairs in order of arrival while a
// snapshot is being built; Sorted renumbers them in (key, value) order, which is how a snapshot keeps them. Reading is
// thread-safe once nothing is interned any more.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace beamline::catalogue {

inline constexpr uint32_t kMaxTags = 1u << 24;  // distinct pairs in one catalogue

class TagDictionary {
 public:
  using Tag = std::pair<std::string, std::string>;

  // The pair's number, new or old. INVALID_ARGUMENT: an empty key, a text too long, not UTF-8 or with control
  // characters; RESOURCE_EXHAUSTED: kMaxTags reached.
  absl::StatusOr<uint32_t> Intern(absl::string_view key, absl::string_view value);
  std::optional<uint32_t> Find(absl::string_view key, absl::string_view value) const;

  uint32_t size() const { return static_cast<uint32_t>(tags_.size()); }
  const Tag& operator[](uint32_t id) const { return tags_[id]; }

  // The used ones of these pairs in ascending order; new_ids[old id] = new id. REQUIRES: used.size() == size().
  TagDictionary Sorted(const std::vector<bool>& used, std::vector<uint32_t>* new_ids) const;

 private:
  std::vector<Tag> tags_;
  absl::flat_hash_map<Tag, uint32_t> ids_;
};

}  // namespace beamline::catalogue
