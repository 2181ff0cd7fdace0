// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_join.h"
#include "base/progress.h"
#include "base/thread_pool.h"
#include "beamline/status.h"
#include "cli/verb.h"
#include "model/config.h"
#include "train/corpus.h"
#include "train/option_limits.h"
#include "train/train_presets.h"
#include "train/training_run.h"

namespace beamline::cli {
namespace {

constexpr char kExamples[] =
    R"(Reads events.tsv(.gz), items.tsv(.gz), users.tsv(.gz) of --data and sids.tsv, codebook.safetensors of --tokenizer.
Writes config.json, vocabulary.safetensors, training.json (options and curve) and, last, model.safetensors to --out.
Ctrl-C saves checkpoint.safetensors there; the same command goes on from it and ends with the same bits.

A user's last target is kept for the test and the one before it for validation: nothing from the validation event on is
trained on. Targets are the events with a --targets label; all events may be history
(what a model looks at of them is in its config: short_term takes any, positive takes positive feedback alone).

Examples:
  beamline train --data data --tokenizer tokenizer --preset demo --out model
  beamline train --data data --tokenizer tokenizer --preset small --epochs 30 --dropout 0.3 --average-decay 0.999 --out m
  beamline train --data data --tokenizer tokenizer --config my_model.json --targets 'like|follow' --out model
  beamline train --data data --tokenizer tokenizer --preset t5-d128 --targets any --device cuda --tf32 --out m
  beamline train --data data --tokenizer parts --from parts --preset t5-d128 --epochs 5 --out model
where parts is what `beamline import hf --model-out parts` keeps: an imported model goes on training.)";

struct TrainFlags {
  train::TrainingRun run;
  std::string targets = "long_view", split_at;
};

// The options given on the command line, over those of the preset.
void AddTrainingOptions(Command* command, train::TrainOptions& options) {
  const auto add = [&](const char* flag, auto& field, const char* help) {
    const train::OptionLimits limits = train::LimitsOf(options, &field);
    command->AddNumber(flag, field, {limits.low, limits.high}, help)->Group("Training (default: the preset's)");
  };
  add("--epochs", options.epochs, "Passes over the training part");
  add("--seed", options.seed, "Of weights, order, dropout: equal seeds give equal models");
  add("--batch", options.batch_windows, "Histories per step");
  add("--targets-per-history", options.targets_per_window,
      "Positions of one history trained in one pass (causal encoder), or random targets of one user per epoch "
      "(bidirectional)");
  add("--min-history", options.min_history, "Events a target needs before it to train (bidirectional encoder)");
  add("--learning-rate", options.learning_rate, "Peak of warm-up and cosine");
  add("--warmup", options.warmup_fraction, "Part of all steps spent warming up");
  add("--weight-decay", options.weight_decay, "Of matrices (AdamW)");
  add("--embedding-decay", options.embedding_decay, "Of embedding tables");
  add("--clip", options.clip_norm, "Largest gradient norm; 0: off");
  add("--dropout", options.dropout, "Probability of dropping an activation");
  add("--label-smoothing", options.label_smoothing, "Probability spread over all codes");
  add("--event-dropout", options.event_dropout, "Probability of leaving an event out");
  add("--hide-newest", options.hide_newest, "Probability of hiding the newest event from a target");
  add("--target-decay", options.target_decay,
      "A target trains with this probability to the power of its user's newer targets; 1: always");
  add("--first-target-decay", options.first_target_decay,
      "--target-decay of the first epoch; it goes to that of the last in a line");
  add("--average-decay", options.average_decay, "Moving average of the weights; 0: off");
  add("--balance-rate", options.balance_rate, "Step of the experts' biases (MoE)");
  command->AddFlag("--tf32", options.tf32, "Matrix products in TF32, weights stay fp32 (--device cuda)");
  add("--validate-every", options.validate_every, "Epochs between validations");
  add("--validation-users", options.validation_users, "Users ranked per validation; 0: none");
  add("--validation-beam", options.validation_beam, "Beam width of the validation");
  add("--patience", options.patience, "Validations without gain before stopping; 0: never");
}

void PrintStart(const train::RunSummary& summary) {
  const auto number = [](int64_t value) { return static_cast<long long>(value); };
  std::printf("log         %lld users, %lld events, %lld targets, of them %lld to train on\n", number(summary.users),
              number(summary.events), number(summary.targets), number(summary.training_targets));
  if (summary.targets_without_sid > 0) {
    std::printf("left out    %lld targets whose item has no semantic ID\n", number(summary.targets_without_sid));
  }
  for (const std::string& warning : summary.warnings) std::fprintf(stderr, "warning: %s\n", warning.c_str());
  std::printf("catalogue   %lld items in %lld SIDs\n", number(summary.items), number(summary.sids));
  std::printf("model       %lld parameters, %lld steps per epoch\n", number(summary.parameters),
              number(summary.steps_per_epoch));
  if (summary.resumed_epoch >= 0) {
    std::printf("resumed     from the checkpoint in --out, %d epochs done (--fresh starts over)\n",
                summary.resumed_epoch);
  }
  std::fflush(stdout);
}

void PrintEpoch(const train::EpochRecord& record) {
  std::printf("epoch %3d   loss %.4f   %6.0f s", record.epoch, record.loss, record.seconds);
  if (record.validation.has_value()) {
    std::printf("   validation %s%s", data::FormatMetrics(*record.validation).c_str(), record.best ? "  best" : "");
  }
  std::printf("\n");
  std::fflush(stdout);
}

absl::Status RunTrain(TrainFlags& flags) {
  BEAMLINE_ASSIGN_OR_RETURN(flags.run.corpus.target_labels, FromFlag("--targets", train::ParseTargets(flags.targets)));
  if (!flags.split_at.empty()) {
    BEAMLINE_ASSIGN_OR_RETURN(flags.run.corpus.time_split,
                              FromFlag("--split-at", train::ParseTimeSplit(flags.split_at)));
  }
  Progress progress;
  BEAMLINE_RETURN_IF_ERROR(train::RunTraining(flags.run, {PrintStart, PrintEpoch}, &progress));
  std::printf("wrote       %s/model.safetensors\n", flags.run.out.c_str());
  return absl::OkStatus();
}

}  // namespace

Verb AddTrain(Command& root) {
  auto flags = std::make_shared<TrainFlags>();
  train::TrainingRun& run = flags->run;
  Command* command = root.AddCommand("train", "Train a model on a behaviour log and its semantic IDs");
  command->Footer(kExamples);
  command->AddText("--data", run.source.data, "Folder of `beamline import` or `generate-data`")->Required();
  command->AddText("--tokenizer", run.source.tokenizer, "Folder of `beamline tokenize`")->Required();
  command->AddText("--out", run.out, "Folder of the model")->Required();
  // Before the training options, so that its callback runs before theirs.
  command
      ->AddCallback(
          "--preset",
          [flags](const std::string& name) {
            flags->run.preset = name;
            flags->run.options = train::PresetTrainOptions(name);
          },
          "Model and training options by name: " + absl::StrJoin(model::PresetNames(), ", "))
      ->OneOf(model::PresetNames())
      ->ShowDefault(run.preset);
  Option* config = command->AddText("--config", run.config, "Model configuration (JSON) instead of the preset's model");
  command->AddText("--from", run.from, "Folder of a model to go on training, instead of the preset's")
      ->Excludes(config);
  command->AddText("--targets", flags->targets, "Labels of events to predict, joined by |; 'any': every event")
      ->ShowDefault();
  command->AddNumber("--k-core", run.corpus.k_core, {0}, "Targets: users and items with at least this many; 0: all");
  command->AddText("--split-at", flags->split_at,
                   "Two moments, as 2022-05-01,2022-05-04: train on what is before the first, validate on each user's "
                   "first target from there on; the second is where the test begins; --k-core still counts the whole "
                   "log. Without it a user's last target "
                   "is the test, the one before it validation");
  command->AddText("--device", run.device.device, "cpu, cuda or cuda:N")->ShowDefault();
  command->AddNumber("--threads", run.device.threads, {0, kMaxThreads}, "CPU threads; 0: one per core");
  command->AddNumber(
      "--max-minutes", run.max_minutes, {0},
      "Stop after so long, with exit code 130 and a checkpoint; the same command, without --fresh, goes on from it; 0: "
      "no limit");
  command->AddFlag(
      "--fresh", run.fresh,
      "Forget the checkpoint of an earlier run, and replace its model, which stays in OUT/replaced until the end");
  run.options = train::PresetTrainOptions(run.preset);
  AddTrainingOptions(command, run.options);
  return {command, [flags] { return RunTrain(*flags); }};
}

}  // namespace beamline::cli
