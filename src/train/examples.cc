// SPDX-License-Identifier: Apache-2.0
#include "train/examples.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <random>
#include <utility>

#include "base/digest.h"
#include "runtime/batch_builder.h"
#include "train/loss.h"

namespace beamline::train {
namespace {

// Events further back than this reach no pathway of a sensible model; it bounds the work per window.
constexpr uint32_t kMaxHistory = 8192;
// Batches among which windows are sorted by length: little padding, still random company.
constexpr size_t kSortedBatches = 32;

using Generator = std::mt19937_64;

// std::uniform_int_distribution differs between standard libraries; this does not. The bias is below 2^-32.
uint64_t Below(Generator& generator, uint64_t n) { return n <= 1 ? 0 : (generator() >> 32) * n >> 32; }
bool Chance(Generator& generator, double probability) {
  return probability > 0 && static_cast<double>(generator() >> 11) * 0x1.0p-53 < probability;
}
template <typename T>
void Shuffle(std::vector<T>& values, Generator& generator) {
  for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[Below(generator, i)]);
}

struct Step {
  Event event;
  uint32_t item = 0;
  bool target = false;
};

// Appends batches of windows of similar length, of which `longest` elements count.
void AppendBatches(absl::Span<Window> windows, size_t batch, uint32_t longest, EpochPlan& plan) {
  std::stable_sort(windows.begin(), windows.end(), [longest](const Window& a, const Window& b) {
    return std::min(a.last_target, longest) < std::min(b.last_target, longest);
  });
  for (size_t i = 0; i < windows.size(); i += batch) {
    const absl::Span<Window> some = windows.subspan(i, batch);
    plan.emplace_back(some.begin(), some.end());
  }
}

}  // namespace

// One window made ready.
struct ExampleBuilder::Example {
  struct Target {
    int32_t limit;  // of the orders it sees
    uint32_t item;
    uint32_t behaviour;
  };
  runtime::EncodedRequest input;
  std::vector<Target> targets;
};

ExampleBuilder::ExampleBuilder(const Corpus& corpus, const runtime::FeatureBuilder& features,
                               const Catalogue& catalogue, const TrainOptions& options)
    : corpus_(corpus),
      features_(features),
      catalogue_(catalogue),
      options_(options),
      causal_(features.config().encoder.causal),
      stride_(std::max(1, features.config().short_term.enabled() ? features.config().short_term.length
                                                                 : features.config().positive.length)),
      sids_(corpus.dataset().num_items()) {
  for (int64_t item = 0; item < corpus.dataset().num_items(); ++item) {
    if (std::optional<Sid> sid = catalogue.Encode(corpus.dataset().item_id(item)); sid.has_value()) sids_[item] = *sid;
  }
}

void ExampleBuilder::PlanUser(int64_t user, uint64_t seed, std::vector<Window>& windows) const {
  const absl::Span<const uint32_t> targets = corpus_.targets(user).subspan(0, corpus_.training_targets(user));
  if (targets.empty()) return;
  Generator generator(StableMix64(user, seed));
  const uint32_t user_index = static_cast<uint32_t>(user);
  if (!causal_) {
    // A target's position is the number of events before it.
    const auto first = std::lower_bound(targets.begin(), targets.end(), static_cast<uint32_t>(options_.min_history));
    std::vector<uint32_t> chosen(first, targets.end());
    if (static_cast<int>(chosen.size()) > options_.targets_per_window) {
      Shuffle(chosen, generator);
      chosen.resize(options_.targets_per_window);
    }
    for (uint32_t target : chosen) windows.push_back({user_index, target, target});
    return;
  }
  // Back from the last target, `stride_` elements of the main pathway at a time. The newest window of a long user is
  // cut at random, so that a target stands at every place of a window over the epochs.
  const bool count_events = features_.config().short_term.enabled();
  const uint32_t elements = count_events ? targets.back() + 1 : static_cast<uint32_t>(targets.size());
  uint32_t length = elements <= stride_ + 1 ? stride_ + 1 : 1 + static_cast<uint32_t>(Below(generator, stride_));
  auto last = targets.end();
  while (last != targets.begin()) {
    const uint32_t last_target = *(last - 1);
    auto first = targets.begin();
    if (count_events) {
      if (last_target >= length) first = std::lower_bound(targets.begin(), last, last_target - length + 1);
    } else if (last - targets.begin() > length) {
      first = last - length;
    }
    windows.push_back({user_index, *first, last_target});
    last = first;
    length = stride_;
  }
}

EpochPlan ExampleBuilder::Plan(int epoch) const {
  const uint64_t seed = StableMix64(static_cast<uint64_t>(epoch), options_.seed);
  std::vector<Window> windows;
  for (int64_t user = 0; user < corpus_.num_users(); ++user) PlanUser(user, seed, windows);
  const double progress = options_.epochs > 1 ? std::min(1.0, epoch / (options_.epochs - 1.0)) : 1.0;
  const double decay = options_.first_target_decay + progress * (options_.target_decay - options_.first_target_decay);
  for (Window& window : windows) window.target_decay = decay;
  Generator generator(seed);
  Shuffle(windows, generator);

  const size_t batch = static_cast<size_t>(options_.batch_windows);
  const uint32_t longest = static_cast<uint32_t>(features_.config().max_tokens());
  EpochPlan plan;
  for (size_t begin = 0; begin < windows.size(); begin += batch * kSortedBatches) {
    AppendBatches(absl::MakeSpan(windows).subspan(begin, batch * kSortedBatches), batch, longest, plan);
  }
  Shuffle(plan, generator);
  return plan;
}

EpochPlan ExampleBuilder::HeldOutPlan() const {
  std::vector<Window> windows;
  for (int64_t user = 0; user < corpus_.num_users(); ++user) {
    for (uint32_t target : corpus_.targets(user).subspan(corpus_.training_targets(user))) {
      windows.push_back({static_cast<uint32_t>(user), target, target});
    }
  }
  EpochPlan plan;
  AppendBatches(absl::MakeSpan(windows), static_cast<size_t>(options_.batch_windows),
                static_cast<uint32_t>(features_.config().max_tokens()), plan);
  return plan;
}

int64_t ExampleBuilder::batches_per_epoch() const { return static_cast<int64_t>(Plan(0).size()); }

ExampleBuilder::Example ExampleBuilder::MakeExample(const Window& window, uint64_t seed) const {
  Generator generator(seed);
  const data::Dataset& dataset = corpus_.dataset();
  const absl::Span<const data::CompactEvent> events = dataset.events(window.user);
  const absl::Span<const uint32_t> targets = corpus_.targets(window.user);
  const uint32_t begin = window.last_target > kMaxHistory ? window.last_target - kMaxHistory : 0;
  const int64_t newest = corpus_.training_targets(window.user) - 1;
  std::vector<Step> steps;
  auto next = std::lower_bound(targets.begin(), targets.end(), begin);
  for (uint32_t i = begin; i <= window.last_target; ++i) {
    bool target = next != targets.end() && *next == i;
    if (target) {
      const int64_t newer = newest - (next++ - targets.begin());
      target = i >= window.first_target &&
               (window.target_decay >= 1 || Chance(generator, std::pow(window.target_decay, newer)));
    }
    if (i < window.last_target && Chance(generator, options_.event_dropout)) continue;
    steps.push_back({ToEvent(dataset, events[i]), events[i].item, target});
  }

  std::vector<Event> history;
  history.reserve(steps.size());
  for (const Step& step : steps) history.push_back(step.event);
  history.pop_back();
  Example example;
  runtime::FeatureSource source;
  source.user_id = dataset.user_id(window.user);
  source.user_attributes = dataset.user_attributes(window.user);
  source.history = history;
  example.input = features_.Build(source, catalogue_);
  std::vector<uint32_t> positions;
  for (uint32_t i = 0; i < steps.size(); ++i) {
    if (steps[i].target && !sids_[steps[i].item].empty()) positions.push_back(i);
  }
  if (static_cast<int>(positions.size()) > options_.targets_per_window) {
    Shuffle(positions, generator);
    positions.resize(options_.targets_per_window);
    std::sort(positions.begin(), positions.end());
  }
  for (uint32_t position : positions) {
    int32_t limit = backend::kSeesAllOrders;
    if (causal_) {
      limit = static_cast<int32_t>(position) - 1 - example.input.first_event;
      while (limit > 0 && Chance(generator, options_.hide_newest)) --limit;
      limit = std::max(-1, limit);
    }
    example.targets.push_back({limit, steps[position].item, steps[position].event.labels});
  }
  return example;
}

ExampleBatch ExampleBuilder::Build(absl::Span<const Window> windows, uint64_t seed) const {
  std::vector<Example> examples;
  std::vector<const runtime::EncodedRequest*> inputs;
  size_t capacity = 1;
  examples.reserve(windows.size());
  for (size_t i = 0; i < windows.size(); ++i) {
    examples.push_back(MakeExample(windows[i], StableMix64(i, seed)));
    inputs.push_back(&examples.back().input);
    capacity = std::max(capacity, examples.back().targets.size());
  }
  ExampleBatch batch;
  batch.encoder = runtime::BuildEncoderBatch(features_.config(), inputs);
  batch.teacher.batch = static_cast<int>(windows.size());
  batch.teacher.targets = static_cast<int>(capacity);
  const int levels = features_.config().levels(), steps = features_.config().steps();
  batch.teacher.codes.resize(windows.size() * capacity * levels);
  batch.teacher.order_limit.assign(windows.size() * capacity, -1);
  batch.labels.assign(windows.size() * capacity * steps, kNoLabel);
  batch.behaviours.resize(windows.size() * capacity);
  for (size_t b = 0; b < examples.size(); ++b) {
    for (size_t t = 0; t < examples[b].targets.size(); ++t) {
      const auto& [limit, item, behaviour] = examples[b].targets[t];
      batch.teacher.order_limit[b * capacity + t] = limit;
      batch.behaviours[b * capacity + t] = behaviour;
      for (int step = 0; step < steps; ++step) {
        const int32_t code = step < levels ? static_cast<int32_t>(sids_[item][step]) : 0;  // 0: the end token
        if (step < levels) batch.teacher.codes[(b * capacity + t) * levels + step] = code;
        batch.labels[(b * capacity + t) * steps + step] = features_.config().first_code(step) + code;
      }
      ++batch.targets;
    }
  }
  return batch;
}

}  // namespace beamline::train
