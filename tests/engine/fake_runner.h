// SPDX-License-Identifier: Apache-2.0
//
// A runner without a model, over a small catalogue: 4 x 4 x 4 codes, items 1..`items`, several to a SID. A SID's
// log-probabilities are a fixed function of its codes and the user, and the "search" is exhaustive, so a test can say
// what every answer must be. It checks what the engine promises to runners as it runs.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/digest.h"
#include "catalogue/snapshot_builder.h"
#include "engine/model_loader.h"
#include "gtest/gtest.h"
#include "runtime/request_job.h"
#include "runtime/runner.h"

namespace beamline::engine {

inline CatalogueItem ItemOf(ItemId id) {
  CatalogueItem item;
  item.item = id;
  const uint32_t code = static_cast<uint32_t>(id * 2654435761u >> 7) % 64;
  item.sid = Sid({code / 16, code / 4 % 4, code % 4});
  item.attributes.relevance = static_cast<float>(id % 7);
  item.attributes.author = id % 11;  // 0: nobody
  item.attributes.tags = {{"region", id % 2 ? "DE" : "AT"}, {"kind", absl::StrCat(id % 5)}};
  return item;
}

inline std::shared_ptr<const catalogue::CatalogueSnapshot> MakeCatalogue(int items,
                                                                         const std::string& version = "catalogue-1") {
  auto builder = catalogue::SnapshotBuilder::Create(
      {.codebook_fingerprint = "codebook", .level_sizes = {4, 4, 4}, .version = version});
  for (ItemId id = 1; id <= static_cast<ItemId>(items); ++id) EXPECT_TRUE(builder->Add(ItemOf(id)).ok());
  return *std::move(*builder).Build();
}

// Of a code at a level for a user: distinct enough that ties are rare, and negative.
inline float FakeLogProb(const std::string& user, int level, Code code) {
  return -static_cast<float>(StableHash64(absl::StrCat(user, "/", level, "/", code), 1) % 10'000 + 1) / 1000.0f;
}

inline runtime::Hypothesis FakeHypothesis(const std::string& user, uint32_t leaf, const Sid& sid) {
  runtime::Hypothesis hypothesis{.leaf = leaf, .sid = sid};
  for (int level = 0; level < sid.levels(); ++level) {
    hypothesis.log_probs.push_back(FakeLogProb(user, level, sid[level]));
    hypothesis.score += hypothesis.log_probs.back();
  }
  return hypothesis;
}

inline bool Before(const runtime::Hypothesis& a, const runtime::Hypothesis& b) {
  return a.score != b.score ? a.score > b.score : a.sid < b.sid;
}

class FakeRunner final : public runtime::Runner {
 public:
  explicit FakeRunner(std::shared_ptr<const catalogue::CatalogueSnapshot> catalogue, const Clock* clock = nullptr,
                      FakeClock* mover = nullptr)
      : catalogue_(std::move(catalogue)), clock_(clock), mover_(mover) {
    info_.family = "fake";
    info_.version = "model-1";
    info_.level_sizes = {4, 4, 4};
    info_.codebook_fingerprint = "codebook";
    info_.parameters = 7;
    info_.ranker = true;
  }

  runtime::ModelInfo info_;
  absl::Duration cost = absl::Milliseconds(1);  // of encode, and of each step
  std::function<void(int step)> before_step;    // on the worker
  std::function<void()> before_input;           // where requests are prepared
  std::atomic<int64_t> executed_late{0};
  std::atomic<int64_t> encoded{0}, decoded{0}, decoded_rows{0};
  std::function<void(size_t requests)> before_encode;
  std::function<absl::Status(size_t requests)> fails;  // of every request of a decode
  std::optional<DeviceMemory> device_memory;
  std::function<float(const Sid&)> value;  // the model's ranker
  std::string salt;                        // changes the log-probabilities, as other weights would
  absl::Status warm_up;                    // what WarmUp returns
  absl::Status fault_;                     // set while no other thread runs
  bool throw_in_warm_up = false;
  std::string estimate;
  int concurrency = 1;  // batches at once
  int until_warm = 1;
  bool at_once = false;  // the gate is asked once, before the first step, as of a device's search
  std::vector<RecommendRequest> warmed;
  ScoreRule warmed_rule = ScoreRule::kFull;

  const runtime::ModelInfo& info() const override { return info_; }
  int max_concurrency() const override { return concurrency; }
  int runs_until_warm() const override { return until_warm; }
  absl::Status fault() const override { return fault_; }
  std::string memory_estimate() const override { return estimate; }
  std::optional<DeviceMemory> GetDeviceMemory() const override { return device_memory; }
  std::shared_ptr<const catalogue::CatalogueSnapshot> catalogue() const override { return catalogue_; }

  runtime::EncodedRequest BuildInput(const runtime::FeatureSource& source, const Catalogue& catalogue) const override {
    if (before_input) before_input();
    runtime::EncodedRequest input;
    input.static_features = {static_cast<int32_t>(StableHash64(source.user_id, 1) & 0xffff)};
    runtime::EncodedPathway& pathway = input.pathways[0];
    for (const Event& event : source.history) {
      ++(catalogue.Encode(event.item).has_value() ? input.seen_events : input.unknown_items);
      pathway.features.push_back(static_cast<int32_t>(event.item));
      pathway.order.push_back(pathway.length++);
    }
    return input;
  }

  absl::Status WarmUp(absl::Span<const RecommendRequest> recorded, ScoreRule score_rule) override {
    if (throw_in_warm_up) throw std::bad_alloc();
    warmed_rule = score_rule;
    warmed.assign(recorded.begin(), recorded.end());
    for (const RecommendRequest& request : warmed)
      EXPECT_EQ(static_cast<int>(request.beam_widths.size()), info_.levels());
    return warm_up;
  }

  bool HoldsContext(const runtime::ContextKey& key) const override { return key.user_id == "cached"; }
  // "cached" users have a context at hand; "bad encode", "bad decode" and "exhausted decode" users fail there.
  bool TryAttachContext(scheduler::Job& job) override {
    auto& request = static_cast<runtime::RequestJob&>(job);
    request.context_cached = request.context_key.user_id == "cached";
    return request.context_cached;
  }
  std::vector<absl::Status> Encode(absl::Span<scheduler::Job* const> jobs) override {
    if (before_encode) before_encode(jobs.size());
    std::vector<absl::Status> statuses(jobs.size());
    for (size_t i = 0; i < jobs.size(); ++i) {
      const auto& request = static_cast<const runtime::RequestJob&>(*jobs[i]);
      encoded.fetch_add(1);
      EXPECT_EQ(request.model.get(), this);
      EXPECT_EQ(request.beam_rows, *std::max_element(request.beam_widths.begin(), request.beam_widths.end()));
      EXPECT_EQ(request.context_tokens, request.input.context_tokens());
      if (Late(request)) executed_late.fetch_add(1);
      if (request.context_key.user_id == "bad encode") statuses[i] = absl::InternalError("encode broke");
    }
    Spend();
    return fault_.ok() ? statuses : std::vector<absl::Status>(jobs.size(), fault_);
  }
  std::vector<absl::Status> Decode(absl::Span<scheduler::Job* const> jobs, scheduler::StepGate gate) override {
    std::vector<absl::Status> statuses(jobs.size(), fails ? fails(jobs.size()) : absl::OkStatus());
    for (scheduler::Job* job : jobs) job->at_once = at_once;
    for (int step = 0; step < info_.levels(); ++step) {
      if (before_step) before_step(step);
      for (size_t i = 0; i < jobs.size(); ++i) {
        if ((step == 0) == at_once && statuses[i].ok()) statuses[i] = gate(*jobs[i]);
        if (statuses[i].ok() && Late(*jobs[i])) executed_late.fetch_add(1);
      }
      Spend();
    }
    if (!fault_.ok()) return std::vector<absl::Status>(jobs.size(), fault_);
    for (size_t i = 0; i < jobs.size(); ++i) {
      auto& request = static_cast<runtime::RequestJob&>(*jobs[i]);
      EXPECT_EQ(request.model.get(), this);
      if (!statuses[i].ok()) continue;
      decoded.fetch_add(1);
      decoded_rows.fetch_add(request.beam_rows);
      if (request.context_key.user_id == "bad decode") {
        statuses[i] = absl::InternalError("non_finite_logits");
      } else if (request.context_key.user_id == "exhausted decode") {
        statuses[i] = absl::ResourceExhaustedError("no more of it");
      } else {
        request.hypotheses = Search(request);
        request.ranked = value != nullptr;
        for (runtime::Hypothesis& one : request.hypotheses) one.value = value ? value(one.sid) : 0;
        if (request.trace) request.traced = TraceOf(request.hypotheses);
      }
    }
    return statuses;
  }

 private:
  std::vector<runtime::Hypothesis> Search(const runtime::RequestJob& job) const {
    std::vector<runtime::Hypothesis> found;
    const kernels::TrieView trie = job.eligibility ? job.eligibility->view().trie : job.snapshot->trie();
    for (uint32_t leaf = 0; leaf < trie.level[trie.levels - 1].num_nodes; ++leaf) {
      if (job.eligibility && job.eligibility->ResolveEligible(leaf, 1).empty()) continue;
      const Sid sid = job.eligibility ? job.eligibility->SidOf(leaf) : job.snapshot->SidOfLeaf(leaf);
      found.push_back(FakeHypothesis(job.context_key.user_id + salt, leaf, sid));
    }
    std::sort(found.begin(), found.end(), Before);
    found.resize(std::min<size_t>(found.size(), job.beam_widths.back()));
    return found;
  }
  // As if each hypothesis had been alone from the root on.
  static std::vector<std::vector<TracedBeam>> TraceOf(const std::vector<runtime::Hypothesis>& hypotheses) {
    std::vector<std::vector<TracedBeam>> traced(3);
    for (size_t i = 0; i < hypotheses.size(); ++i) {
      float score = 0;
      for (int level = 0; level < 3; ++level) {
        const float log_prob = hypotheses[i].log_probs[level];
        traced[level].push_back({hypotheses[i].sid[level], static_cast<int>(i), log_prob, score += log_prob});
      }
    }
    return traced;
  }
  bool Late(const scheduler::Job& job) const { return mover_ != nullptr && clock_->Now() >= job.deadline; }
  void Spend() {
    if (mover_ != nullptr) {
      mover_->Advance(cost);
    } else if (cost > absl::ZeroDuration()) {
      std::this_thread::sleep_for(absl::ToChronoNanoseconds(cost));
    }
  }

  std::shared_ptr<const catalogue::CatalogueSnapshot> catalogue_;
  const Clock* clock_;
  FakeClock* mover_;
};

// A source of one runner, whatever the bundle's name.
inline RunnerSource SourceOf(std::unique_ptr<FakeRunner> runner) {
  auto once = std::make_shared<std::unique_ptr<FakeRunner>>(std::move(runner));
  return {.identify = [](const std::string& bundle) { return bundle; },
          .load = [once](const std::string&, const std::string&) -> absl::StatusOr<std::unique_ptr<runtime::Runner>> {
            if (*once == nullptr) return absl::NotFoundError("no further bundle");
            return std::move(*once);
          }};
}

}  // namespace beamline::engine
