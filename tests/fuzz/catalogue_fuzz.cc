// SPDX-License-Identifier: Apache-2.0
//
// A catalogue snapshot, as it is and with its checksums put right, so that the checks behind them are reached too. A
// refusal names the file; a snapshot that loads answers for every item, and eligibility compiled on it is consistent.
#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "base/digest.h"
#include "catalogue/eligibility.h"
#include "catalogue/snapshot_file.h"
#include "fuzz/fuzz_target.h"

namespace beamline::catalogue {
namespace {

using fuzz::Require;

// The layout of catalogue/section_file.h.
constexpr size_t kHeader = 24, kEntry = 72, kDigest = 32, kOffsetAt = 24, kBytesAt = 32, kDigestAt = 40;

uint64_t NumberAt(const std::string& file, size_t at, size_t bytes) {
  uint64_t number = 0;
  std::memcpy(&number, file.data() + at, bytes);
  return number;
}

void PutDigest(std::string& file, size_t at, size_t begin, size_t bytes) {
  file.replace(at, kDigest, absl::HexStringToBytes(Sha256Hex(std::string_view(file).substr(begin, bytes))));
}

// Size and checksums as the writer would have them; false where there is no header to put right.
bool PutRight(std::string& file) {
  if (file.size() < kHeader + kDigest) return false;
  const uint64_t sections = NumberAt(file, 12, 4);
  if (sections > 256 || kHeader + sections * kEntry + kDigest > file.size()) return false;
  const uint64_t size = file.size();
  std::memcpy(file.data() + 16, &size, sizeof(size));
  for (uint64_t i = 0; i < sections; ++i) {
    const size_t entry = kHeader + i * kEntry;
    const uint64_t offset = NumberAt(file, entry + kOffsetAt, 8), bytes = NumberAt(file, entry + kBytesAt, 8);
    if (offset <= size && bytes <= size - offset) PutDigest(file, entry + kDigestAt, offset, bytes);
  }
  PutDigest(file, kHeader + sections * kEntry, 0, kHeader + sections * kEntry);
  return true;
}

void CheckEligibility(const std::shared_ptr<const CatalogueSnapshot>& snapshot) {
  RuleCache rules(snapshot, 4);
  const uint32_t items = static_cast<uint32_t>(snapshot->num_items());
  Eligibility eligibility;
  if (snapshot->tags().size() > 0) eligibility.rule = {{snapshot->tags()[0].first, {snapshot->tags()[0].second}}};
  eligibility.deny = {snapshot->item_id(0), snapshot->item_id(items - 1), 4711};
  for (int restricted = 0; restricted < 2; ++restricted) {
    eligibility.restrict_to_allow = restricted == 1;
    for (uint32_t i = 0; restricted == 1 && i < items; i += 2) eligibility.allow.push_back(snapshot->item_id(i));
    const auto compiled = CompileEligibility(rules, eligibility);
    fuzz::RequireOk(compiled.status(), "a rule of the catalogue's own tags compiles");
    uint64_t eligible = 0;
    for (uint32_t position = 0; position < items; ++position) eligible += (*compiled)->IsEligible(position) ? 1 : 0;
    Require(eligible == (*compiled)->eligible_items(), "eligible items are counted right");
  }
}

void CheckSnapshot(const std::shared_ptr<const CatalogueSnapshot>& snapshot) {
  const uint32_t items = static_cast<uint32_t>(snapshot->num_items());
  Require(items > 0 && snapshot->num_sids() <= items, "no SID without an item");
  for (uint32_t position = 0; position < items; ++position) {
    const ItemId id = snapshot->item_id(position);
    Require(snapshot->FindPosition(id) == position, "an item is found where it is");
    const std::optional<CatalogueItem> item = snapshot->GetItem(id);
    Require(item && item->sid == snapshot->Encode(id), "an item has one SID");
    Require(item->sid.levels() == snapshot->levels(), "a SID has the catalogue's levels");
    const std::vector<ItemId> same = snapshot->Resolve(item->sid);
    Require(std::count(same.begin(), same.end(), id) == 1, "a SID has its items");
  }
  for (int level = 0; level < snapshot->levels(); ++level) {
    uint32_t end = 0;
    for (uint32_t node = 0; node < snapshot->num_nodes(level); ++node) {
      const ItemRange range = snapshot->NodeItems(level, node);
      Require(range.begin == end && range.size() > 0, "the nodes of a level divide its items");
      end = range.end;
    }
    Require(end == items, "the nodes of a level divide its items");
  }
  CheckEligibility(snapshot);
}

void CheckFile(const fuzz::ScratchFile& file) {
  const auto snapshot = LoadSnapshot(file.path());
  if (!snapshot.ok()) return fuzz::RequireNames(snapshot.status(), file.path());
  CheckSnapshot(*snapshot);
}

}  // namespace
}  // namespace beamline::catalogue

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace beamline;  // NOLINT(google-build-using-namespace)
  static const fuzz::ScratchFile file("items");
  std::string bytes(fuzz::AsText(data, size));
  file.Write(bytes);
  catalogue::CheckFile(file);
  if (!catalogue::PutRight(bytes)) return 0;
  file.Write(bytes);
  catalogue::CheckFile(file);
  return 0;
}
