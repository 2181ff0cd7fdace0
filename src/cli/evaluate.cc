// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/file.h"
#include "base/json.h"
#include "base/progress.h"
#include "base/thread_pool.h"
#include "beamline/status.h"
#include "cli/verb.h"
#include "runtime/gate_report.h"
#include "train/training_run.h"

namespace beamline::cli {
namespace {

constexpr char kExamples[] =
    R"(Ranks every user's held-out item among the whole catalogue with the engine's own beam search, and prints R@5, N@5,
R@10 and N@10, the last two with bootstrap intervals, beside popularity, Markov and item-KNN counted on the same training part, with the
targets of the history removed from the ranking and with them kept. All of them rank the items of the tokenizer.
Which events are targets comes from the training.json of the model folder. A model without one, such as
`beamline import hf --model-out` keeps, takes --targets, --k-core and --split-at, with the meaning they have for
`beamline train`.

Examples:
  beamline evaluate --model model --data data --tokenizer tokenizer
  beamline evaluate --model model --data data --tokenizer tokenizer --beam 128 --split validation --out evaluation.json
  beamline evaluate --model model --data data --tokenizer tokenizer --gate fp8 --split both --device cuda --backend cuda --out gate.json
  beamline evaluate --model ranked --data data --tokenizer tokenizer --by-value     # of `beamline train-ranker`
  beamline evaluate --model parts --data data --tokenizer parts --targets any       # of `beamline import hf --model-out parts`
  beamline evaluate --show evaluation.json

With --gate the model ranks in fp32, in bf16 and in that type instead, by value where it has a ranker, and the type
passes where its best item is bf16's for 97 % of the requests, its 32 best have at most .05 fewer of fp32's than bf16's
have, and the interval of the difference of R@10 to bf16's lies within 2 % of that, which takes some 15,000 requests
(--split both asks each user's twice). With --out the report is written,
passed or not; `beamline pack --gate` puts one that passed into the bundle, which a server needs before it serves fp8.
Where fp8 misses, fp8_mixed, which leaves self-attention in bf16, loses less. Without a GPU, --device cpu --backend aten
computes what they round.)";

constexpr char kBoth[] = "both";  // splits

struct EvaluateFlags {
  train::EvaluationRun run;
  std::string out, show, gate;
  bool overwrite = false;
  std::string split = "test";
  std::string targets = "long_view", split_at;
  int k_core = 0;
  Option *targets_option = nullptr, *k_core_option = nullptr;
};

// Lists of evaluations are deeper, and their reader says better what they are not.
constexpr JsonLimits kShownLimits{.max_depth = 32};

absl::Status Show(const std::string& path) {
  BEAMLINE_ASSIGN_OR_RETURN(const nlohmann::json json, ReadJsonFile(path, kShownLimits));
  if (runtime::IsGateJson(json)) {
    BEAMLINE_ASSIGN_OR_RETURN(const runtime::PrecisionGateReport report, runtime::ReadGate(path));
    std::fputs(runtime::GateTable(report).c_str(), stdout);
    return absl::OkStatus();
  }
  BEAMLINE_ASSIGN_OR_RETURN(const train::EvaluationReport report, train::EvaluationFromJson(json, path));
  std::fputs(train::EvaluationTable(report).c_str(), stdout);
  return absl::OkStatus();
}

absl::Status Gate(const EvaluateFlags& flags, Progress* progress) {
  BEAMLINE_ASSIGN_OR_RETURN(
      const runtime::PrecisionGateReport report,
      train::RunPrecisionGate(flags.run, {.dtype = flags.gate, .both_splits = flags.split == kBoth}, progress));
  std::fputs(runtime::GateTable(report).c_str(), stdout);
  if (!flags.out.empty()) {
    BEAMLINE_RETURN_IF_ERROR(WriteFileAtomically(flags.out, runtime::GateToJson(report).dump(1) + "\n"));
  }
  const std::vector<std::string> failures = runtime::GateFailures(report);
  if (failures.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("--gate: ", flags.gate, " is not as good as bf16: ", absl::StrJoin(failures, "; ")));
}

absl::Status RunEvaluate(EvaluateFlags& flags) {
  if (!flags.show.empty()) return Show(flags.show);
  for (const auto& [name, value] : std::map<std::string, std::string>{{"--model", flags.run.model},
                                                                      {"--data", flags.run.source.data},
                                                                      {"--tokenizer", flags.run.source.tokenizer}}) {
    if (value.empty()) return absl::InvalidArgumentError(name + ": is missing (see beamline evaluate --help)");
  }
  if (flags.split == kBoth && flags.gate.empty()) {
    return absl::InvalidArgumentError("--split: both is for --gate; use test or validation");
  }
  if (flags.targets_option->given()) {
    BEAMLINE_ASSIGN_OR_RETURN(flags.run.targets.labels, FromFlag("--targets", train::ParseTargets(flags.targets)));
  }
  if (flags.k_core_option->given()) flags.run.targets.k_core = flags.k_core;
  if (!flags.split_at.empty()) {
    BEAMLINE_ASSIGN_OR_RETURN(flags.run.targets.time_split,
                              FromFlag("--split-at", train::ParseTimeSplit(flags.split_at)));
  }
  if (!flags.out.empty()) {
    BEAMLINE_RETURN_IF_ERROR(CheckCanWrite(flags.out, "--out"));
    BEAMLINE_RETURN_IF_ERROR(CheckNotThere(flags.out, flags.overwrite));
  }
  flags.run.options.held_out = flags.split == "test" ? data::HeldOut::kTest : data::HeldOut::kValidation;
  Progress progress;
  if (!flags.gate.empty()) return Gate(flags, &progress);
  BEAMLINE_ASSIGN_OR_RETURN(const train::EvaluationReport report, train::RunEvaluation(flags.run, &progress));
  std::fputs(train::EvaluationTable(report).c_str(), stdout);
  if (flags.out.empty()) return absl::OkStatus();
  return WriteFileAtomically(flags.out, train::EvaluationToJson(report).dump(1) + "\n");
}

}  // namespace

Verb AddEvaluate(Command& root) {
  auto flags = std::make_shared<EvaluateFlags>();
  train::EvaluationRun& run = flags->run;
  Command* command = root.AddCommand("evaluate", "Rank held-out items with a model, beside counting baselines");
  command->Footer(kExamples);
  command->AddText("--model", run.model, "Folder of `beamline train`, or of `beamline import hf --model-out`");
  command->AddText("--data", run.source.data, "The data folder it was trained on");
  command->AddText("--tokenizer", run.source.tokenizer, "The tokenizer folder it was trained with");
  flags->targets_option =
      command
          ->AddText("--targets", flags->targets,
                    "Of a model without training.json: labels of events to predict, joined by |; 'any': every event")
          ->ShowDefault();
  flags->k_core_option =
      command
          ->AddNumber("--k-core", flags->k_core, {0},
                      "Of such a model, too: targets of users and items with at least this many; 0: all")
          ->ShowDefault();
  command->AddText("--split-at", flags->split_at,
                   "Of such a model, too: two moments, as 2022-05-01,2022-05-04, from which on a user's first target "
                   "is validation and test");
  Option* by_value = command->AddFlag("--by-value", run.options.by_value,
                                      "Order the beam's candidates by the model's ranker, beside the beam's own order");
  command->AddNumber("--beam", run.options.beam, {10, 65536}, "Beam width at every level")->ShowDefault();
  command
      ->AddText("--split", flags->split,
                "test (a user's last target), validation (the one before) or, for --gate, both; of a model trained "
                "with --split-at, the first targets from its two moments on")
      ->OneOf({"test", "validation", kBoth})
      ->ShowDefault();
  command->AddNumber("--max-users", run.options.max_users, {0}, "A fixed random subset of the users; 0: all");
  command->AddNumber("--resamples", run.options.bootstrap.resamples, {1, 100'000}, "Of the bootstrap")->ShowDefault();
  command->AddNumber("--seed", run.options.bootstrap.seed, {}, "Of the bootstrap and of --max-users");
  command->AddText("--device", run.device.device, "cpu, cuda or cuda:N")->ShowDefault();
  command->AddNumber("--threads", run.device.threads, {0, kMaxThreads}, "CPU threads; 0: one per core");
  command->AddText("--backend", run.device.backend, "aten, cpu (faster on the CPU), cuda (faster on a GPU) or auto")
      ->ShowDefault();
  command
      ->AddText("--gate", flags->gate,
                "Whether this type is as good as bf16: fp8 or fp8_mixed (backend cuda; their rounding on any "
                "device: backend aten) or int8 (backend cpu)")
      ->OneOf({"fp8", "fp8_mixed", "int8"})
      ->Excludes(by_value);
  command->AddText("--out", flags->out, "Write the numbers as JSON, too");
  command->AddFlag("--overwrite", flags->overwrite, "Replace a file that is there");
  command->AddText("--show", flags->show, "Print a file written with --out again; nothing else is needed");
  return {command, [flags] { return RunEvaluate(*flags); }};
}

}  // namespace beamline::cli
