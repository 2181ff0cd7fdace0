// SPDX-License-Identifier: Apache-2.0
#include "train/ranker_options.h"

#include <limits>
#include <string>
#include <utility>

#include "absl/numeric/bits.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "beamline/status.h"
#include "data/labels.h"
#include "train/option_fields.h"

namespace beamline::train {
namespace {

// The one table of fields: name, member, smallest and largest value.
constexpr auto kRankerFields = [](auto& o, auto&& visit) {
  visit("seed", o.seed, 0, std::numeric_limits<double>::infinity());
  visit("epochs", o.epochs, 1, 100000);
  visit("batch_windows", o.batch_windows, 1, 65536);
  visit("targets_per_window", o.targets_per_window, 1, 100000);
  visit("learning_rate", o.learning_rate, 0, 10);
  visit("warmup_fraction", o.warmup_fraction, 0, 1);
  visit("weight_decay", o.weight_decay, 0, 10);
  visit("embedding_decay", o.embedding_decay, 0, 10);
  visit("clip_norm", o.clip_norm, 0, 1e6);
};

}  // namespace

absl::Status Validate(const RankerOptions& options) { return ValidateFields(options, kRankerFields, "ranker"); }

OptionLimits LimitsOf(const RankerOptions& options, const void* field) {
  return LimitsOfField(options, kRankerFields, field);
}

nlohmann::json ToJson(const RankerOptions& options) { return FieldsToJson(options, kRankerFields); }

absl::StatusOr<std::vector<model::RankerHead>> ParseHeads(absl::string_view text) {
  std::vector<model::RankerHead> heads;
  for (const absl::string_view head : absl::StrSplit(text, ',')) {
    const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(head, absl::MaxSplits('=', 1));
    double weight = 0;
    if (!absl::SimpleAtod(parts.second, &weight)) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", head, "' is no label with a weight; write them as long_view=1,like=2"));
    }
    BEAMLINE_ASSIGN_OR_RETURN(const uint32_t label,
                              data::ParseLabels(std::string_view(parts.first.data(), parts.first.size())));
    if (!absl::has_single_bit(label)) {
      return absl::InvalidArgumentError(absl::StrCat("'", head, "' must name one label before its weight"));
    }
    heads.push_back({label, weight});
  }
  return heads;
}

}  // namespace beamline::train
