// SPDX-License-Identifier: Apache-2.0
#include "train/item_ranker.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <mutex>
#include <numeric>
#include <utility>

#include <ATen/Parallel.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/interrupt.h"
#include "base/thread_pool.h"
#include "beamline/status.h"
#include "catalogue/eligibility.h"
#include "data/ranking_metrics.h"
#include "decode/beam_search.h"
#include "runtime/batch_builder.h"

namespace beamline::train {
namespace {

double RankOf(ItemId target, absl::Span<const ItemId> items) {
  const auto found = std::find(items.begin(), items.end(), target);
  return found == items.end() ? data::kMissRank : static_cast<double>(found - items.begin() + 1);
}

bool HasHigherValue(const decode::Hypothesis& a, const decode::Hypothesis& b) { return a.value > b.value; }

// Torch threads of this process, put back at the end: workers set their own to one.
class TorchThreads {
 public:
  TorchThreads() : threads_(at::get_num_threads()) {}
  ~TorchThreads() { at::set_num_threads(threads_); }

 private:
  int threads_;
};

}  // namespace

ItemRanker::ItemRanker(const Corpus& corpus, const runtime::FeatureBuilder& features,
                       std::shared_ptr<const catalogue::CatalogueSnapshot> snapshot)
    : corpus_(&corpus),
      features_(&features),
      snapshot_(std::move(snapshot)),
      rules_(std::make_unique<catalogue::RuleCache>(snapshot_, 1)) {}

absl::StatusOr<ItemRanker> ItemRanker::Create(const Corpus& corpus, const runtime::FeatureBuilder& features,
                                              std::shared_ptr<const catalogue::CatalogueSnapshot> snapshot) {
  if (snapshot->level_sizes() != features.config().level_sizes) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the catalogue has levels of ", absl::StrJoin(snapshot->level_sizes(), ","), " codes, the model of ",
        absl::StrJoin(features.config().level_sizes, ","), ": they come from different tokenizers"));
  }
  return ItemRanker(corpus, features, std::move(snapshot));
}

absl::StatusOr<std::vector<std::vector<ItemId>>> ItemRanker::RankedItems(backend::Context ctx,
                                                                         const model::Model& model,
                                                                         absl::Span<const CorpusCase> cases,
                                                                         const RankOptions& options) const {
  const backend::InferenceGuard no_gradients;
  if (backend::SearchesOnDevice(ctx)) ctx = backend::BeginBatch(ctx);  // such a backend computes inside of batches
  const data::Dataset& dataset = corpus_->dataset();
  std::vector<runtime::EncodedRequest> encoded;
  std::vector<std::shared_ptr<const catalogue::CompiledEligibility>> eligibility;
  for (const CorpusCase& one : cases) {
    std::vector<Event> history;
    const absl::Span<const data::CompactEvent> events = dataset.events(one.user).subspan(0, one.event);
    for (const data::CompactEvent& event : events) history.push_back(ToEvent(dataset, event));
    runtime::FeatureSource source;
    source.user_id = dataset.user_id(one.user);
    source.user_attributes = dataset.user_attributes(one.user);
    source.history = history;
    encoded.push_back(features_->Build(source, *snapshot_));
    BEAMLINE_RETURN_IF_ERROR(runtime::CheckEncodedRequest(features_->config(), encoded.back()));

    std::vector<ItemId> seen;
    for (uint32_t target : corpus_->targets(one.user)) {
      if (options.exclude_seen && target < one.event) seen.push_back(dataset.item_id(events[target].item));
    }
    BEAMLINE_ASSIGN_OR_RETURN(auto compiled, catalogue::CompileEligibility(*rules_, Eligibility{}, seen));
    eligibility.push_back(std::move(compiled));
  }

  std::vector<const runtime::EncodedRequest*> inputs;
  inputs.reserve(encoded.size());
  for (const runtime::EncodedRequest& one : encoded) inputs.push_back(&one);
  const model::EncoderInput batch = runtime::BuildEncoderBatch(features_->config(), inputs);
  model::EncodedContext context = model.Encode(ctx, model::UploadEncoderInput(ctx, features_->config(), batch));
  const std::vector<int> widths(features_->config().levels(), options.beam);
  std::vector<decode::SearchRequest> requests(cases.size());
  for (size_t i = 0; i < cases.size(); ++i) {
    requests[i].constraint = &eligibility[i]->view();
    requests[i].widths = widths;
  }
  std::vector<decode::SearchResult> results =
      decode::BeamSearch(model).Run(ctx, std::move(context), requests, [](int) { return absl::OkStatus(); });

  std::vector<std::vector<ItemId>> lists(cases.size());
  for (size_t i = 0; i < cases.size(); ++i) {
    BEAMLINE_RETURN_IF_ERROR(results[i].status);
    std::vector<decode::Hypothesis>& hypotheses = results[i].hypotheses;
    if (options.by_value) std::stable_sort(hypotheses.begin(), hypotheses.end(), HasHigherValue);
    for (const decode::Hypothesis& hypothesis : hypotheses) {
      const std::vector<ItemId> items =
          eligibility[i]->ResolveEligible(hypothesis.leaf, std::numeric_limits<int>::max());
      lists[i].insert(lists[i].end(), items.begin(), items.end());
    }
  }
  return lists;
}

absl::StatusOr<CaseRankings> ItemRanker::Rank(const backend::Context& ctx, const model::Model& model,
                                              absl::Span<const CorpusCase> cases, const RankOptions& options) const {
  if (options.by_value && model.ranker() == nullptr) {
    return absl::FailedPreconditionError("by_value: the model has no ranker");
  }
  // Cases of similar history length share a batch: less padding.
  std::vector<uint32_t> order(cases.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return cases[a].event < cases[b].event; });
  CaseRankings rankings{std::vector<double>(cases.size(), data::kMissRank), {}};
  rankings.lists.resize(cases.size());
  const auto rank_batch = [&](int64_t begin, int64_t end) -> absl::Status {
    BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
    std::vector<CorpusCase> batch;
    for (int64_t i = begin; i < end; ++i) batch.push_back(cases[order[i]]);
    try {
      BEAMLINE_ASSIGN_OR_RETURN(auto lists, RankedItems(ctx, model, batch, options));
      for (int64_t i = begin; i < end; ++i) {
        const data::CompactEvent& target = corpus_->dataset().events(batch[i - begin].user)[batch[i - begin].event];
        std::vector<ItemId>& items = lists[i - begin];
        rankings.ranks[order[i]] = RankOf(corpus_->dataset().item_id(target.item), items);
        if (items.size() > options.list) items.resize(options.list);
        rankings.lists[order[i]] = std::move(items);
      }
    } catch (const std::exception& error) {
      return absl::InternalError(absl::StrCat("ranking: ", error.what()));
    }
    return absl::OkStatus();
  };

  std::mutex mu;
  absl::Status failure;  // the first one; guarded by mu
  std::atomic<int64_t> done{0};
  StartProgress(options.progress, "rank", static_cast<int64_t>(cases.size()), "requests");
  {
    const TorchThreads restored;
    ThreadPool pool(ThreadsOrCores(options.threads) - 1);
    ParallelFor(&pool, static_cast<int64_t>(cases.size()), options.batch, [&](int64_t begin, int64_t end) {
      at::set_num_threads(1);
      {
        const std::lock_guard<std::mutex> lock(mu);
        if (!failure.ok()) return;
      }
      const absl::Status status = rank_batch(begin, end);
      {
        const std::lock_guard<std::mutex> lock(mu);
        failure.Update(status);
      }
      UpdateProgress(options.progress, done += end - begin);
    });
  }
  if (!failure.ok()) return failure;
  FinishProgress(options.progress);
  return rankings;
}

}  // namespace beamline::train
