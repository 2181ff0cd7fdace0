// SPDX-License-Identifier: Apache-2.0
//
// A read-only view of one immutable catalogue snapshot: SID <-> items with their attributes. Thread-safe; hold the
// shared_ptr to keep a snapshot alive while you use it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "beamline/types.h"

namespace beamline {

struct ItemAttributes {
  uint64_t author = 0;
  int64_t duration_ms = 0;
  int64_t created_ms = 0;
  float relevance = 0;  // orders the items of one SID, largest first
  std::string title;
  std::vector<std::pair<std::string, std::string>> tags;  // (key, value), e.g. ("tag", "39"); what rules test
};

struct CatalogueItem {
  ItemId item = 0;
  Sid sid;
  ItemAttributes attributes;
};

class Catalogue {
 public:
  virtual ~Catalogue() = default;

  virtual const std::string& version() const = 0;
  // Digest of the codebook the SIDs were made with; a model refuses another one's catalogue.
  virtual const std::string& codebook_fingerprint() const = 0;
  virtual int levels() const = 0;
  virtual std::vector<uint32_t> level_sizes() const = 0;
  virtual uint64_t num_items() const = 0;
  virtual uint64_t num_sids() const = 0;

  virtual std::optional<Sid> Encode(ItemId item) const = 0;
  // Items of a SID, by relevance, then id. Empty when the SID is not in the catalogue.
  virtual std::vector<ItemId> Resolve(const Sid& sid) const = 0;
  virtual std::optional<CatalogueItem> GetItem(ItemId item) const = 0;
};

}  // namespace beamline
