// SPDX-License-Identifier: Apache-2.0
#include "decode/beam_search.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/ops.h"
#include "decode/end_trie.h"

namespace beamline::decode {
namespace {

// What a model and a request must agree on before a kernel sees either.
absl::Status CheckRequest(const model::ModelConfig& config, const SearchRequest& request) {
  if (request.constraint == nullptr) return absl::InvalidArgumentError("constraint: missing");
  const int levels = config.levels();
  if (request.constraint->trie.levels != levels) {
    return absl::InvalidArgumentError(
        absl::StrCat("catalogue: ", request.constraint->trie.levels, " SID levels, the model has ", levels));
  }
  if (static_cast<int>(request.widths.size()) != levels) {
    return absl::InvalidArgumentError(
        absl::StrCat("beam_widths: ", request.widths.size(), " entries, the model has ", levels, " levels"));
  }
  for (int level = 0; level < levels; ++level) {
    const int width = request.widths[level];
    if (width >= 1 && width <= kernels::kMaxBeamWidth) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("beam_widths[", level, "]: ", width, " is outside 1..", kernels::kMaxBeamWidth));
  }
  return absl::OkStatus();
}

absl::Status SelectionStatus(kernels::SelectError error, int level) {
  switch (error) {
    case kernels::SelectError::kOk:
      return absl::OkStatus();
    case kernels::SelectError::kNonFiniteLogits:
      return absl::InternalError(absl::StrCat("non_finite_logits: NaN, +inf or nothing finite at level ", level));
    case kernels::SelectError::kInvalidArgument:
      break;
  }
  return absl::InternalError(
      absl::StrCat("selection refused its arguments at level ", level, ": model and catalogue do not belong together"));
}

// No more room than there are nodes; but a row is looked at even where nothing is eligible. Every level of an allow
// list has room for its leaves: else what is captured for a search would depend on which codes its items share.
int UsefulWidth(const SearchRequest& request, int level, int width) {
  const kernels::TrieView &trie = request.constraint->trie, &snapshot = request.constraint->snapshot_trie;
  const uint32_t leaves = std::min(trie.level[trie.levels - 1].num_nodes, snapshot.level[level].num_nodes);
  const uint32_t nodes = std::max({1u, trie.level[level].num_nodes, leaves});
  return static_cast<int>(std::min<uint32_t>(std::min(width, kernels::kMaxBeamWidth), nodes));
}

kernels::ScoreRule KernelRule(ScoreRule rule) {
  return rule == ScoreRule::kFull ? kernels::ScoreRule::kFull : kernels::ScoreRule::kLegal;
}

}  // namespace

// One request of a running batch.
struct BeamSearch::Live {
  const SearchRequest* request = nullptr;
  SearchResult* result = nullptr;
  BeamState beams;
  EndTrie end;                // of a model that scores the end token
  std::vector<float> values;  // of the last level's beams, of a model with a ranker

  bool active() const { return result->status.ok() && beams.count() > 0; }
  void Fail(absl::Status status) {
    result->status = std::move(status);
    beams.Clear();
  }
  void CheckValues() {
    if (std::any_of(values.begin(), values.end(), [](float value) { return !std::isfinite(value); })) {
      Fail(absl::InternalError("non_finite_value: the ranker's value of a candidate is not a number"));
    }
  }
  std::vector<Hypothesis> Hypotheses(int levels) const {
    std::vector<Hypothesis> hypotheses = beams.Hypotheses(levels);
    for (size_t i = 0; i < values.size(); ++i) hypotheses[i].value = values[i];
    return hypotheses;
  }
};

// The requests of a running batch and what their steps write to, which has room for all steps before the first. The
// context may have room for more requests than there are: `capacity` of them.
struct BeamSearch::Batch {
  std::vector<Live> live;
  std::vector<int32_t> codes, parents;             // [capacity, rows]
  std::vector<backend::SelectRequest> selections;  // [capacity]

  Batch(size_t requests, int64_t capacity) : live(requests), selections(capacity) {}
  int64_t capacity() const { return static_cast<int64_t>(selections.size()); }
  bool AnyActive() const {
    return std::any_of(live.begin(), live.end(), [](const Live& one) { return one.active(); });
  }

  // Ends requests that the gate refuses; whether any is left.
  bool Ask(SearchGate gate) {
    for (size_t b = 0; b < live.size(); ++b) {
      if (!live[b].active()) continue;
      if (absl::Status status = gate(static_cast<int>(b)); !status.ok()) live[b].Fail(std::move(status));
    }
    return AnyActive();
  }

  // The beams of the last level as the next step's input, padded with zeros to the widest active request and to
  // the capacity.
  model::StepInput NextStep(backend::Context& ctx, int level) {
    int rows = 0;
    for (const Live& one : live) rows = std::max(rows, one.active() ? one.beams.count() : 0);
    codes.assign(capacity() * rows, 0);
    parents.assign(capacity() * rows, 0);
    for (size_t b = 0; b < live.size(); ++b) {
      if (!live[b].active()) continue;
      const kernels::BeamSlots& slots = *live[b].beams.last();
      std::copy_n(slots.code, slots.count, codes.begin() + static_cast<int64_t>(b) * rows);
      std::copy_n(slots.parent, slots.count, parents.begin() + static_cast<int64_t>(b) * rows);
    }
    const int64_t shape[] = {capacity(), rows};
    return {level, backend::UploadInts(ctx, codes, shape), backend::UploadInts(ctx, parents, shape)};
  }
};

// Beams that a selection keeps: no more than there are nodes, and more than asked for where a path scorer chooses.
int BeamSearch::SelectedWidth(const SearchRequest& request, int level) const {
  int width = request.widths[level];
  if (path_scorer_ != nullptr) width = std::max(width, path_scorer_->ExpandedWidth(level, width));
  return UsefulWidth(request, level, width);
}

void BeamSearch::Reserve(Batch& batch) const {
  const int levels = model_.config().levels(), steps = model_.config().steps();
  std::vector<int> widths(steps);
  int widest = 0;
  for (Live& live : batch.live) {
    if (!live.active()) continue;
    for (int level = 0; level < steps; ++level) {
      widths[level] = SelectedWidth(*live.request, std::min(level, levels - 1));
      widest = std::max(widest, widths[level]);
    }
    live.beams.Reserve(widths);
    if (steps > levels) live.end.Reserve(widths.back());
  }
  batch.codes.reserve(batch.capacity() * widest);
  batch.parents.reserve(batch.capacity() * widest);
}

std::vector<SearchResult> BeamSearch::Run(backend::Context& ctx, model::EncodedContext context,
                                          absl::Span<const SearchRequest> requests, SearchGate gate) const {
  std::vector<SearchResult> results(requests.size());
  Batch batch(requests.size(), context.batch());
  for (size_t b = 0; b < requests.size(); ++b) {
    Live& live = batch.live[b];
    live.request = &requests[b];
    live.result = &results[b];
    if (absl::Status status = CheckRequest(model_.config(), requests[b]); !status.ok()) live.Fail(status);
  }
  if (!batch.AnyActive()) return results;
  Reserve(batch);

  if (const std::unique_ptr<backend::DeviceSearch> search = BeginOnDevice(ctx, batch); search != nullptr) {
    for (SearchResult& result : results) result.at_once = true;
    if (batch.Ask(gate)) RunOnDevice(ctx, context, *search, batch);
  } else {
    RunOnHost(ctx, std::move(context), batch, gate);
  }
  for (Live& live : batch.live) {
    if (live.active()) live.result->hypotheses = live.Hypotheses(model_.config().levels());
    if (live.request->trace) live.result->traced = live.beams.Trace();
  }
  return results;
}

void BeamSearch::RunOnHost(backend::Context& ctx, model::EncodedContext context, Batch& batch, SearchGate gate) const {
  model::DecodeState state = model_.BeginDecode(ctx, std::move(context));
  const int levels = model_.config().levels();
  for (int level = 0; level < model_.config().steps(); ++level) {
    at::Tensor logits;
    if (level == 0) {
      logits = model::FirstLogits(ctx, model_, state);
    } else {
      if (!batch.Ask(gate)) return;
      logits = model_.DecodeStep(ctx, state, batch.NextStep(ctx, level));
    }
    level < levels ? Select(ctx, logits, level, batch) : ScoreEnd(ctx, logits, batch);
  }
  if (model_.ranker() != nullptr) Rank(ctx, state.output, batch);
}

std::unique_ptr<backend::DeviceSearch> BeamSearch::BeginOnDevice(backend::Context& ctx, const Batch& batch) const {
  if (path_scorer_ != nullptr) return nullptr;      // it values paths on the host
  if (ctx.communicator != nullptr) return nullptr;  // other ranks follow step by step
  std::vector<backend::DeviceSearchRequest> requests(batch.capacity());
  for (size_t b = 0; b < batch.live.size(); ++b) {
    if (!batch.live[b].active()) continue;
    const SearchRequest& request = *batch.live[b].request;
    requests[b].constraint = request.constraint;
    requests[b].rule = KernelRule(request.score_rule);
    requests[b].scores_end = model_.config().steps() > model_.config().levels();
    requests[b].ranked = model_.ranker() != nullptr;
    for (int level = 0; level < model_.config().levels(); ++level) {
      requests[b].widths.push_back(SelectedWidth(request, level));
    }
  }
  return backend::BeginSearch(ctx, requests);
}

std::vector<at::Tensor> BeamSearch::EnqueueSteps(backend::Context& ctx, model::EncodedContext context,
                                                 backend::DeviceSearch& search) const {
  model::DecodeState state = model_.BeginDecode(ctx, std::move(context));
  const int levels = model_.config().levels(), steps = model_.config().steps();
  for (int level = 0; level < steps; ++level) {
    model::StepInput step{.level = level};
    if (level > 0) {
      const backend::DeviceSearch::StepTensors beams = search.NextStep(ctx);
      step.codes = beams.codes;
      step.parents = beams.parents;
    }
    const at::Tensor logits = model_.DecodeStep(ctx, state, step);
    const int32_t first_code = static_cast<int32_t>(model_.config().first_code(level));
    level < levels ? search.Select(ctx, logits, level, first_code) : search.SelectEnd(ctx, logits, first_code);
  }
  if (const model::Ranker* ranker = model_.ranker(); ranker != nullptr) {
    search.Rank(ctx, model::RankerStates(ctx, *ranker, state.output), ranker->weights);
  }
  return {search.result()};
}

void BeamSearch::RunOnDevice(backend::Context& ctx, const model::EncodedContext& context, backend::DeviceSearch& search,
                             Batch& batch) const {
  std::vector<at::Tensor> inputs = {search.input(), context.order};
  inputs.insert(inputs.end(), context.key_value.begin(), context.key_value.end());
  const std::string pass = absl::StrCat("decode ", model_.serial(), " ", search.shape());
  const std::vector<at::Tensor> results = backend::RunPass(ctx, pass, inputs, [&](absl::Span<const at::Tensor> in) {
    search.Bind(in[0]);
    return EnqueueSteps(ctx, {.key_value = {in.begin() + 2, in.end()}, .order = in[1]}, search);
  });
  search.BindResult(results[0]);
  search.Finish(ctx);
  for (size_t b = 0; b < batch.live.size(); ++b) {
    Live& live = batch.live[b];
    for (int level = 0; level < model_.config().steps() && live.active(); ++level) {
      const kernels::BeamSlots from = search.Beams(level, static_cast<int>(b));
      live.beams.TakeLevel(from);
      const kernels::SelectError error = search.Error(static_cast<int>(b));
      if (from.count == 0 && error != kernels::SelectError::kOk) live.Fail(SelectionStatus(error, level));
    }
    if (model_.ranker() == nullptr || !live.active()) continue;
    const absl::Span<const float> values = search.Values(static_cast<int>(b));
    live.values.assign(values.begin(), values.end());
    live.CheckValues();
  }
}

void BeamSearch::ScoreEnd(backend::Context& ctx, const at::Tensor& logits, Batch& batch) const {
  for (Live& live : batch.live) {
    if (live.active()) live.end.Bind(*live.beams.last());
  }
  for (ScoreRule rule : {ScoreRule::kFull, ScoreRule::kLegal}) {
    bool any = false;
    for (size_t b = 0; b < batch.live.size(); ++b) {
      Live& live = batch.live[b];
      batch.selections[b] = {};
      if (!live.active() || live.request->score_rule != rule || live.beams.levels() != model_.config().levels())
        continue;
      const int width = live.beams.count();
      batch.selections[b] = {&live.end.constraint(), &live.end.beams(), live.beams.OpenLevel(width).out, width};
      any = true;
    }
    if (!any) continue;
    backend::SelectBeams(ctx, {.logits = logits,
                               .level = EndTrie::kEndLevel,
                               .first_code = model_.config().first_code(model_.config().levels()),
                               .rule = KernelRule(rule),
                               .requests = absl::MakeSpan(batch.selections)});
    for (size_t b = 0; b < batch.live.size(); ++b) {
      const backend::SelectRequest& selection = batch.selections[b];
      if (selection.out == nullptr) continue;
      batch.live[b].end.RestoreLeaves(*selection.out);
      absl::Status status = SelectionStatus(selection.error, model_.config().levels());
      if (!status.ok()) batch.live[b].Fail(std::move(status));
    }
  }
}

void BeamSearch::Rank(backend::Context& ctx, const at::Tensor& output, Batch& batch) const {
  const model::Ranker& ranker = *model_.ranker();
  std::vector<backend::RankRequest> requests(batch.capacity());
  for (size_t b = 0; b < batch.live.size(); ++b) {
    Live& live = batch.live[b];
    if (!live.active()) continue;
    live.values.resize(live.beams.count());
    requests[b] = {live.beams.last(), live.values.data()};
  }
  backend::RankBeams(
      ctx, {.states = model::RankerStates(ctx, ranker, output), .weights = ranker.weights, .requests = requests});
  for (Live& live : batch.live) {
    if (live.active()) live.CheckValues();
  }
}

void BeamSearch::Select(backend::Context& ctx, const at::Tensor& logits, int level, Batch& batch) const {
  // One op call per score rule in use: requests of the other rule have width 0 and are skipped.
  for (ScoreRule rule : {ScoreRule::kFull, ScoreRule::kLegal}) {
    bool any = false;
    for (size_t b = 0; b < batch.live.size(); ++b) {
      Live& live = batch.live[b];
      batch.selections[b] = {};
      if (!live.active() || live.request->score_rule != rule || live.beams.levels() != level) continue;
      const int width = SelectedWidth(*live.request, level);
      const BeamState::OpenedLevel opened = live.beams.OpenLevel(width);
      batch.selections[b] = {live.request->constraint, opened.in, opened.out, width};
      any = true;
    }
    if (!any) continue;
    backend::SelectBeams(ctx, {.logits = logits,
                               .level = level,
                               .first_code = model_.config().first_code(level),
                               .rule = KernelRule(rule),
                               .requests = absl::MakeSpan(batch.selections)});
    for (size_t b = 0; b < batch.live.size(); ++b) {
      if (batch.selections[b].out == nullptr) continue;
      Live& live = batch.live[b];
      absl::Status status = SelectionStatus(batch.selections[b].error, level);
      if (status.ok() && path_scorer_ != nullptr) {
        status = KeepBestPaths(static_cast<int>(b), level, live.request->widths[level], live.beams);
      }
      if (!status.ok()) live.Fail(std::move(status));
    }
  }
}

absl::Status BeamSearch::KeepBestPaths(int request, int level, int width, BeamState& beams) const {
  const int count = beams.count();
  if (count <= width) return absl::OkStatus();
  std::vector<Sid> prefixes;
  prefixes.reserve(count);
  for (int row = 0; row < count; ++row) prefixes.push_back(beams.Prefix(row));
  const std::vector<float> values =
      path_scorer_->Score({request, level, prefixes, absl::MakeConstSpan(beams.last()->score, count)});
  if (static_cast<int>(values.size()) != count ||
      std::any_of(values.begin(), values.end(), [](float value) { return std::isnan(value); })) {
    return absl::InternalError(
        absl::StrCat("path scorer: NaN, or ", values.size(), " values for ", count, " candidates at level ", level));
  }
  std::vector<int> rows(count);
  std::iota(rows.begin(), rows.end(), 0);
  std::stable_sort(rows.begin(), rows.end(), [&](int a, int b) { return values[a] > values[b]; });
  rows.resize(width);
  std::sort(rows.begin(), rows.end());
  beams.KeepRows(rows);
  return absl::OkStatus();
}

}  // namespace beamline::decode
