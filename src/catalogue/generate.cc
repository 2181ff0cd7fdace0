// SPDX-License-Identifier: Apache-2.0
#include "catalogue/generate.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "beamline/status.h"
#include "catalogue/snapshot_builder.h"

namespace beamline::catalogue {
namespace {

constexpr int kRegions = 8;
constexpr int kCategories = 64;
constexpr int64_t kDayMs = 86'400'000;
constexpr int64_t kNewestMs = 1'700'000'000'000;  // a fixed "now", so that equal options give equal files
constexpr uint64_t kReportEvery = 65536;
constexpr int64_t kBytesPerItem = 140;  // at the peak, while building: 10^7 items take 1.3 GB

// A stream of draws that belongs to one item, whatever the order of generation.
class Draws {
 public:
  Draws(uint64_t item, uint64_t seed) : base_(StableMix64(item, seed)) {}
  // Uniform in [0, bound).
  uint64_t Below(uint64_t bound) {
    const uint64_t draw = StableMix64(base_ + ++count_);
    return ((draw >> 32) * bound) >> 32;
  }
  float Unit() { return static_cast<float>(StableMix64(base_ + ++count_) >> 40) * 0x1p-24f; }

 private:
  const uint64_t base_;
  uint64_t count_ = 0;
};

struct Tags {
  std::vector<uint32_t> region, category;
  uint32_t adult = 0;
};

absl::StatusOr<Tags> InternTags(SnapshotBuilder& builder) {
  Tags tags;
  for (int i = 0; i < kRegions; ++i) {
    BEAMLINE_ASSIGN_OR_RETURN(const uint32_t tag, builder.InternTag("region", absl::StrCat("r", i)));
    tags.region.push_back(tag);
  }
  for (int i = 0; i < kCategories; ++i) {
    BEAMLINE_ASSIGN_OR_RETURN(const uint32_t tag, builder.InternTag("category", absl::StrCat("c", i)));
    tags.category.push_back(tag);
  }
  BEAMLINE_ASSIGN_OR_RETURN(tags.adult, builder.InternTag("age", "18+"));
  return tags;
}

absl::Status AddItem(const GenerateOptions& options, const Tags& tags, ItemId item, SnapshotBuilder& builder) {
  Draws draws(item, options.seed);
  ItemRow row;
  row.item = item;
  for (int level = 0; level < options.levels; ++level) row.sid.push_back(static_cast<Code>(draws.Below(options.codes)));
  row.author = 1 + draws.Below(options.items / 10 + 1);
  row.duration_ms = 3'000 + static_cast<int64_t>(draws.Below(297'000));
  row.created_ms = kNewestMs - static_cast<int64_t>(draws.Below(90)) * kDayMs;
  row.relevance = draws.Unit();
  const std::string title = absl::StrCat("video ", item);
  row.title = title;
  std::vector<uint32_t> item_tags = {tags.region[draws.Below(kRegions)], tags.category[draws.Below(kCategories)]};
  if (draws.Below(10) == 0) item_tags.push_back(tags.adult);
  row.tags = item_tags;
  return builder.Add(row);
}

}  // namespace

absl::StatusOr<std::shared_ptr<const CatalogueSnapshot>> GenerateCatalogue(const GenerateOptions& options,
                                                                           Progress* progress) {
  if (options.items < 1 || options.items > kMaxItems) {
    return absl::InvalidArgumentError(absl::StrCat("items: is ", options.items, ", must be 1 to ", kMaxItems));
  }
  if (options.levels < 1 || options.levels > kMaxLevels) {
    return absl::InvalidArgumentError(absl::StrCat("levels: is ", options.levels, ", must be 1 to ", kMaxLevels));
  }
  BEAMLINE_RETURN_IF_ERROR(CheckMemory(absl::StrCat(options.items, " items"),
                                       static_cast<int64_t>(options.items) * kBytesPerItem, "ask for fewer"));
  SnapshotOptions snapshot_options;
  snapshot_options.codebook_fingerprint = options.codebook_fingerprint.empty()
                                              ? absl::StrCat("generated-", options.levels, "x", options.codes)
                                              : options.codebook_fingerprint;
  snapshot_options.level_sizes.assign(options.levels, options.codes);
  snapshot_options.expected_items = options.items;
  BEAMLINE_ASSIGN_OR_RETURN(SnapshotBuilder builder, SnapshotBuilder::Create(std::move(snapshot_options)));
  BEAMLINE_ASSIGN_OR_RETURN(const Tags tags, InternTags(builder));
  StartProgress(progress, "generate items", static_cast<int64_t>(options.items), "items");
  for (ItemId item = 1; item <= options.items; ++item) {
    BEAMLINE_RETURN_IF_ERROR(AddItem(options, tags, item, builder));
    if (item % kReportEvery != 0) continue;
    BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
    UpdateProgress(progress, static_cast<int64_t>(item));
  }
  FinishProgress(progress);
  return std::move(builder).Build(progress);
}

}  // namespace beamline::catalogue
