// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/progress.h"
#include "base/thread_pool.h"
#include "beamline/status.h"
#include "cli/verb.h"
#include "data/labels.h"
#include "train/option_limits.h"
#include "train/ranker_run.h"

namespace beamline::cli {
namespace {

constexpr char kExamples[] =
    R"(A model of `beamline train` says what a user may watch next; a ranker says what the user does with it, and orders the
answer by the sum of its heads' probabilities times their weights, and the beam's score times its own: without the score
a list finds much less of what comes next. Each head is a label of the log. The ranker learns from
every event of the training part, those without a head's label included, on what the model's decoder sees of it; the
model's own weights stay as they are. What it reaches on held-out events (area under the curve, log loss beside that of
the label's rate in training) is printed and kept in training.json.

--out is a model folder like that of `beamline train`, for pack, evaluate and serve. Weights count in the answer and
not in training: other ones need another run. Ctrl-C leaves nothing behind.

Examples:
  beamline train-ranker --model model --data data --tokenizer tokenizer --heads 'long_view=1,like=2' --out ranked
  beamline evaluate --model ranked --data data --tokenizer tokenizer --by-value     # beside the beam's order
  beamline pack --model ranked --tokenizer tokenizer --items data/items.tsv.gz --out bundle)";

struct TrainRankerFlags {
  train::RankerRun run;
  std::string heads;
};

void AddTrainingOptions(Command* command, train::RankerOptions& options) {
  const auto add = [&](const char* flag, auto& field, const char* help) {
    const train::OptionLimits limits = train::LimitsOf(options, &field);
    command->AddNumber(flag, field, {limits.low, limits.high}, help)->ShowDefault()->Group("Training");
  };
  add("--epochs", options.epochs, "Passes over the training part");
  add("--seed", options.seed, "Of weights and order: equal seeds give equal rankers");
  add("--batch", options.batch_windows, "Histories per step");
  add("--targets-per-history", options.targets_per_window,
      "Events of one history trained in one pass (causal encoder), or random events of one user per epoch "
      "(bidirectional)");
  add("--learning-rate", options.learning_rate, "Peak of warm-up and cosine");
  add("--warmup", options.warmup_fraction, "Part of all steps spent warming up");
  add("--weight-decay", options.weight_decay, "Of matrices (AdamW)");
  add("--embedding-decay", options.embedding_decay, "Of the last code's vectors");
  add("--clip", options.clip_norm, "Largest gradient norm; 0: off");
}

void PrintStart(const model::RankerConfig& ranker, const train::RankerSummary& summary) {
  const auto number = [](int64_t value) { return static_cast<long long>(value); };
  for (const std::string& warning : summary.warnings) std::fprintf(stderr, "warning: %s\n", warning.c_str());
  std::printf("log         %lld events to learn from\n", number(summary.counts.events));
  if (summary.counts.without_sid > 0) {
    std::printf("left out    %lld events whose item has no semantic ID\n", number(summary.counts.without_sid));
  }
  for (const model::RankerHead& head : ranker.heads) {
    std::printf("head        %s: %lld of them\n", data::FormatLabels(head.label).c_str(),
                number(summary.counts.With(head.label)));
  }
  std::printf("ranker      %lld parameters\n", number(summary.parameters));
  std::fflush(stdout);
}

void PrintEpoch(const train::RankerEpoch& record) {
  std::printf("epoch %3d   loss %.4f   %6.0f s\n", record.epoch, record.loss, record.seconds);
  std::fflush(stdout);
}

absl::Status RunTrainRanker(TrainRankerFlags& flags) {
  BEAMLINE_ASSIGN_OR_RETURN(flags.run.ranker.heads, FromFlag("--heads", train::ParseHeads(flags.heads)));
  const auto start = [&](const train::RankerSummary& summary) { PrintStart(flags.run.ranker, summary); };
  Progress progress;
  BEAMLINE_ASSIGN_OR_RETURN(const train::RankerReport report,
                            train::RunRankerTraining(flags.run, {start, PrintEpoch}, &progress));
  std::printf("%swrote       %s/model.safetensors\n", train::RankerTable(report).c_str(), flags.run.out.c_str());
  return absl::OkStatus();
}

}  // namespace

Verb AddTrainRanker(Command& root) {
  auto flags = std::make_shared<TrainRankerFlags>();
  train::RankerRun& run = flags->run;
  Command* command = root.AddCommand("train-ranker", "Train what orders a model's answers, from what users did");
  command->Footer(kExamples);
  command->AddText("--model", run.model, "Folder of `beamline train`")->Required();
  command->AddText("--data", run.source.data, "The data folder it was trained on")->Required();
  command->AddText("--tokenizer", run.source.tokenizer, "The tokenizer folder it was trained with")->Required();
  command->AddText("--out", run.out, "Folder of the model with its ranker")->Required();
  command->AddText("--heads", flags->heads, "Labels and what their probabilities count for: long_view=1,like=2")
      ->Required();
  command
      ->AddNumber("--score-weight", run.ranker.score_weight, {}, "What the beam's score (nats) counts for beside them")
      ->ShowDefault();
  run.ranker.width = 64;
  command->AddNumber("--width", run.ranker.width, {8, 4096}, "Of the hidden layer, a multiple of 8")->ShowDefault();
  command->AddText("--device", run.device.device, "cpu, cuda or cuda:N")->ShowDefault();
  command->AddNumber("--threads", run.device.threads, {0, kMaxThreads}, "CPU threads; 0: one per core");
  command->AddFlag("--retrain", run.retrain, "Replace the ranker that the model has");
  command->AddFlag("--fresh", run.fresh, "Replace a model in --out");
  AddTrainingOptions(command, run.options);
  return {command, [flags] { return RunTrainRanker(*flags); }};
}

}  // namespace beamline::cli
