// SPDX-License-Identifier: Apache-2.0
#include "train/evaluation.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/digest.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "base/progress.h"
#include "base/thread_pool.h"
#include "base/utf8.h"
#include "beamline/status.h"
#include "train/model_folder.h"

namespace beamline::train {
namespace {

constexpr size_t kMaxShownBytes = 4000;  // two paths and a sentence

// A report may be a stranger's file, and the table goes to a terminal.
std::string Shown(absl::string_view text) { return PrintableUtf8(text, kMaxShownBytes); }

struct NamedBaseline {
  std::string name;
  std::unique_ptr<data::CountingBaseline> baseline;
};

// What the catalogue holds, as the baselines see it: items of the corpus by their index, and behind them those that the
// log does not name, which nobody has watched.
std::vector<bool> RankedItems(const Corpus& corpus, const Catalogue& catalogue) {
  std::vector<bool> ranked = ItemsWithSid(corpus, catalogue);
  const auto known = static_cast<uint64_t>(std::count(ranked.begin(), ranked.end(), true));
  ranked.resize(ranked.size() + catalogue.num_items() - known, true);
  return ranked;
}

absl::StatusOr<std::vector<NamedBaseline>> FitBaselines(const Corpus& corpus, const std::vector<bool>& ranked) {
  std::vector<NamedBaseline> baselines;
  baselines.push_back({"popularity", data::MakePopularity()});
  baselines.push_back({"markov", data::MakeMarkov()});
  // The more rows are kept the faster, whatever is kept. While they grow they are there twice.
  const int64_t bytes = std::clamp(AvailableMemory() / 16, int64_t{256} << 20, int64_t{8} << 30);
  baselines.push_back({"item-knn", data::MakeItemKnn({.kept_entries = static_cast<size_t>(bytes) / 8})});
  ItemSequences training = corpus.TrainingTargetItems();
  training.num_items = static_cast<uint32_t>(ranked.size());
  for (NamedBaseline& one : baselines) BEAMLINE_RETURN_IF_ERROR(one.baseline->Fit(training, ranked));
  return baselines;
}

struct CountingRun {
  data::SeenItems seen;
  ThreadPool* pool;
  Progress* progress;
};

absl::StatusOr<std::vector<double>> RankBy(const NamedBaseline& one, absl::Span<const data::EvaluationCase> cases,
                                           const CountingRun& run) {
  constexpr size_t kAtOnce = 4096;
  StartProgress(run.progress, one.name, static_cast<int64_t>(cases.size()), "users");
  std::vector<double> ranks;
  for (size_t done = 0; done < cases.size(); done += kAtOnce) {
    const std::vector<double> some = data::RankTargets(*one.baseline, cases.subspan(done, kAtOnce), run.seen, run.pool);
    BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
    ranks.insert(ranks.end(), some.begin(), some.end());
    UpdateProgress(run.progress, static_cast<int64_t>(ranks.size()));
  }
  FinishProgress(run.progress);
  return ranks;
}

// Cases as the model's ranker and as the baselines take them, aligned.
struct AlignedCases {
  std::vector<CorpusCase> model;
  std::vector<data::EvaluationCase> counting;
};

AlignedCases SelectCases(const Corpus& corpus, const EvaluationOptions& options) {
  AlignedCases cases;
  const absl::Span<const CorpusCase> all = corpus.Cases(options.held_out);
  for (size_t i : ChooseCases(all, options)) {
    cases.model.push_back(all[i]);
    cases.counting.push_back(corpus.CountingCase(all[i]));
  }
  return cases;
}

EvaluationReport Describe(const ItemRanker& ranker, const EvaluationOptions& options) {
  EvaluationReport report;
  report.split = options.held_out == data::HeldOut::kTest ? "test" : "validation";
  report.targets = DescribeTargets(ranker.corpus().options());
  report.catalogue_items = static_cast<int64_t>(ranker.snapshot().num_items());
  report.catalogue_sids = static_cast<int64_t>(ranker.snapshot().num_sids());
  report.catalogue_version = ranker.snapshot().version();
  report.codebook_fingerprint = ranker.snapshot().codebook_fingerprint();
  report.beam = options.beam;
  report.by_value = options.by_value;
  report.max_users = options.max_users;
  report.confidence = options.bootstrap.confidence;
  report.resamples = options.bootstrap.resamples;
  report.seed = options.bootstrap.seed;
  return report;
}

void CountCases(absl::Span<const data::EvaluationCase> cases, const std::vector<bool>& ranked,
                EvaluationReport& report) {
  report.users = static_cast<int64_t>(cases.size());
  report.targets_without_sid =
      std::count_if(cases.begin(), cases.end(), [&](const auto& one) { return !ranked[one.target]; });
  if (report.targets_without_sid == 0) return;
  const double share = static_cast<double>(report.targets_without_sid) / static_cast<double>(report.users);
  report.warnings.push_back(absl::StrFormat(
      "%d of %d targets (%.1f%%) have no semantic ID: neither the model nor a baseline can rank their items, so no R@k "
      "can be above %.4f; a tokenizer of all items of the log leaves none out",
      report.targets_without_sid, report.users, 100 * share, 1 - share));
}

}  // namespace

std::vector<size_t> ChooseCases(absl::Span<const CorpusCase> all, const EvaluationOptions& options) {
  std::vector<size_t> chosen(all.size());
  for (size_t i = 0; i < all.size(); ++i) chosen[i] = i;
  if (options.max_users > 0 && static_cast<size_t>(options.max_users) < all.size()) {
    const auto key = [&](size_t i) { return StableMix64(all[i].user, options.bootstrap.seed); };
    std::sort(chosen.begin(), chosen.end(), [&](size_t a, size_t b) { return key(a) < key(b); });
    chosen.resize(options.max_users);
    std::sort(chosen.begin(), chosen.end());
  }
  return chosen;
}

absl::StatusOr<EvaluationReport> Evaluate(const backend::Context& ctx, const model::Model& model,
                                          const ItemRanker& ranker, const EvaluationOptions& options) {
  const Corpus& corpus = ranker.corpus();
  const AlignedCases cases = SelectCases(corpus, options);
  if (cases.model.empty()) {
    return absl::FailedPreconditionError(absl::StrCat("nothing to evaluate: ", corpus.WhyNoCases(options.held_out)));
  }
  const std::vector<bool> ranked = RankedItems(corpus, ranker.snapshot());
  BEAMLINE_ASSIGN_OR_RETURN(const std::vector<NamedBaseline> baselines, FitBaselines(corpus, ranked));
  ThreadPool pool(ThreadsOrCores(options.threads) - 1);
  EvaluationReport report = Describe(ranker, options);
  CountCases(cases.counting, ranked, report);
  for (const data::SeenItems seen : {data::SeenItems::kRemove, data::SeenItems::kKeep}) {
    RankOptions rank;
    rank.beam = options.beam;
    rank.by_value = options.by_value;
    rank.threads = options.threads;
    rank.exclude_seen = seen == data::SeenItems::kRemove;
    rank.progress = options.progress;
    const absl::Time start = absl::Now();
    BEAMLINE_ASSIGN_OR_RETURN(const CaseRankings rankings, ranker.Rank(ctx, model, cases.model, rank));
    const std::vector<double>& ranks = rankings.ranks;
    report.seconds += absl::ToDoubleSeconds(absl::Now() - start);
    RankingScores scores;
    scores.seen = seen;
    scores.systems.push_back({"model", data::BootstrapMetrics(ranks, options.bootstrap), std::nullopt});
    const auto add = [&](const std::string& name, const std::vector<double>& theirs) -> absl::Status {
      BEAMLINE_ASSIGN_OR_RETURN(const data::MetricIntervals difference,
                                data::PairedBootstrap(ranks, theirs, options.bootstrap));
      scores.systems.push_back({name, data::BootstrapMetrics(theirs, options.bootstrap), difference});
      return absl::OkStatus();
    };
    if (options.by_value) {
      rank.by_value = false;
      BEAMLINE_ASSIGN_OR_RETURN(const CaseRankings by_beam, ranker.Rank(ctx, model, cases.model, rank));
      BEAMLINE_RETURN_IF_ERROR(add("beam order", by_beam.ranks));
    }
    for (const NamedBaseline& one : baselines) {
      BEAMLINE_ASSIGN_OR_RETURN(const std::vector<double> theirs,
                                RankBy(one, cases.counting, {seen, &pool, options.progress}));
      BEAMLINE_RETURN_IF_ERROR(add(one.name, theirs));
    }
    BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
    report.rankings.push_back(std::move(scores));
  }
  return report;
}

std::string EvaluationTable(const EvaluationReport& report) {
  std::string table = absl::StrFormat(
      "%s split (%s): %d users, full ranking of %d items (%d SIDs), beam %d%s; model ranked in %.0f s\n",
      Shown(report.split), Shown(report.targets), report.users, report.catalogue_items, report.catalogue_sids,
      report.beam, report.by_value ? " ordered by the ranker's value" : "", report.seconds);
  const auto row = [&](const std::string& name, const data::MetricIntervals& m, bool sign) {
    const char* format = sign ? "%-18s %+8.4f %+8.4f %+8.4f [%+.4f, %+.4f] %+8.4f [%+.4f, %+.4f]\n"
                              : "%-18s %8.4f %8.4f %8.4f [ %.4f,  %.4f] %8.4f [ %.4f,  %.4f]\n";
    const absl::ParsedFormat<'s', 'f', 'f', 'f', 'f', 'f', 'f', 'f', 'f'> parsed =
        *absl::ParsedFormat<'s', 'f', 'f', 'f', 'f', 'f', 'f', 'f', 'f'>::New(format);
    absl::StrAppend(&table,
                    absl::StrFormat(parsed, name, m.recall_5.mean, m.ndcg_5.mean, m.recall_10.mean, m.recall_10.low,
                                    m.recall_10.high, m.ndcg_10.mean, m.ndcg_10.low, m.ndcg_10.high));
  };
  for (const RankingScores& ranking : report.rankings) {
    absl::StrAppend(&table, absl::StrFormat("\nseen items %s %8s %8s %8s %19s %7s   (%.0f%% intervals)\n",
                                            ranking.seen == data::SeenItems::kRemove ? "removed" : "kept   ", "R@5",
                                            "N@5", "R@10", "", "N@10", 100 * report.confidence));
    bool none = false;
    for (const SystemScores& system : ranking.systems) {
      row(Shown(system.name), system.intervals, false);
      none |= system.intervals.recall_10.mean == 0 && system.intervals.recall_10.high > 0;
    }
    if (none) absl::StrAppend(&table, "(without a hit, an interval's end is the exact one, of Clopper and Pearson)\n");
    for (const SystemScores& system : ranking.systems) {
      if (system.model_minus.has_value()) row(absl::StrCat("model - ", Shown(system.name)), *system.model_minus, true);
    }
  }
  for (const std::string& warning : report.warnings) absl::StrAppend(&table, "\nwarning: ", Shown(warning), "\n");
  return table;
}

}  // namespace beamline::train
