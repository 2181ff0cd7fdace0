// SPDX-License-Identifier: Apache-2.0
#include "train/ranker_examples.h"

#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/index_select.h>

#include "absl/numeric/bits.h"
#include "absl/strings/str_cat.h"
#include "data/labels.h"
#include "train/loss.h"

namespace beamline::train {

int64_t BehaviourCounts::With(uint32_t label) const { return with_label[absl::countr_zero(label)]; }

BehaviourCounts CountBehaviours(const Corpus& every_event, const Catalogue& catalogue) {
  const data::Dataset& dataset = every_event.dataset();
  std::vector<bool> known(dataset.num_items());
  for (int64_t item = 0; item < dataset.num_items(); ++item) {
    known[item] = catalogue.Encode(dataset.item_id(item)).has_value();
  }
  BehaviourCounts counts;
  for (int64_t user = 0; user < every_event.num_users(); ++user) {
    for (const data::CompactEvent& event : dataset.events(user).subspan(0, every_event.training_end(user))) {
      if (!known[event.item]) {
        ++counts.without_sid;
        continue;
      }
      ++counts.events;
      for (int bit = 0; bit < kNumLabels; ++bit) counts.with_label[bit] += event.labels >> bit & 1;
    }
  }
  return counts;
}

absl::Status CheckHeads(const model::RankerConfig& ranker, const BehaviourCounts& counts) {
  for (const model::RankerHead& head : ranker.heads) {
    const int64_t with = counts.With(head.label);
    if (with > 0 && with < counts.events) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("heads: '", data::FormatLabels(head.label), "' is the label of ", with, " of ", counts.events,
                     " events to learn from; a head needs events with its label and events without"));
  }
  return absl::OkStatus();
}

RankerRows MakeRankerRows(backend::Context& ctx, const model::Model& model, const ExampleBatch& batch) {
  const at::NoGradGuard no_gradients;
  const model::ModelConfig& config = model.config();
  const int levels = config.levels();
  std::vector<int32_t> chosen, codes;
  std::vector<float> labels;
  for (size_t i = 0; i < batch.behaviours.size(); ++i) {
    if (batch.labels[i * levels] == kNoLabel) continue;
    const size_t last = i * levels + levels - 1;
    chosen.push_back(static_cast<int32_t>(last));
    codes.push_back(batch.teacher.codes[last]);
    for (const model::RankerHead& head : config.ranker.heads) {
      labels.push_back((batch.behaviours[i] & head.label) != 0 ? 1.0f : 0.0f);
    }
  }
  const model::EncodedContext context = model.Encode(ctx, model::UploadEncoderInput(ctx, config, batch.encoder));
  const at::Tensor output =
      model.TeacherForcedOutput(ctx, context, model::UploadTeacherInput(ctx, config, batch.teacher));
  const auto rows = static_cast<int64_t>(chosen.size()), heads = static_cast<int64_t>(config.ranker.heads.size());
  return {.output = output.index_select(0, backend::UploadInts(ctx, chosen, {rows})),
          .codes = backend::UploadInts(ctx, codes, {rows}),
          .labels = backend::UploadFloats(ctx, labels, {rows, heads})};
}

at::Tensor RowLogits(backend::Context& ctx, const model::Ranker& ranker, const RankerRows& rows) {
  return backend::RankerLogits(ctx, model::RankerStates(ctx, ranker, rows.output), ranker.weights, rows.codes);
}

}  // namespace beamline::train
