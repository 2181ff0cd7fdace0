// SPDX-License-Identifier: Apache-2.0
#include "train/trainer.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <utility>

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/digest.h"
#include "base/interrupt.h"
#include "beamline/status.h"
#include "model/weight_schema.h"
#include "train/batches_ahead.h"
#include "train/expert_balance.h"
#include "train/loss.h"
#include "train/model_folder.h"

namespace beamline::train {
namespace {

// Streams of random numbers, so that none repeats another's.
enum Stream : uint64_t { kDropoutStream = 0x64726f70, kExampleStream = 0x6578616d, kValidationStream = 0x76616c69 };

absl::Status CheckFeatures(const model::ModelConfig& config) {
  if (!config.encoder.causal) return absl::OkStatus();
  for (const model::PathwayConfig* pathway : {&config.short_term, &config.positive}) {
    for (const model::FeatureConfig& feature : pathway->features) {
      if (pathway->enabled() && feature.kind == model::FeatureKind::kAge) {
        return absl::InvalidArgumentError(
            "config: a causal encoder trains on many positions of a history at once and cannot use the feature 'age', "
            "which depends on the request's time; use 'gap', or set encoder.causal to false");
      }
    }
  }
  return absl::OkStatus();
}

std::vector<CorpusCase> ValidationSubset(const Corpus& corpus, int users, uint64_t seed) {
  const absl::Span<const CorpusCase> all = corpus.Cases(data::HeldOut::kValidation);
  std::vector<CorpusCase> cases(all.begin(), all.end());
  if (users >= static_cast<int>(cases.size())) return cases;
  const auto key = [seed](const CorpusCase& one) { return StableMix64(one.user, seed ^ kValidationStream); };
  std::sort(cases.begin(), cases.end(), [&](const CorpusCase& a, const CorpusCase& b) { return key(a) < key(b); });
  cases.resize(users);
  std::sort(cases.begin(), cases.end(), [](const CorpusCase& a, const CorpusCase& b) { return a.user < b.user; });
  return cases;
}

OptimizerOptions OptimizerFrom(const TrainOptions& options) {
  return {.weight_decay = options.weight_decay,
          .embedding_decay = options.embedding_decay,
          .beta1 = options.beta1,
          .beta2 = options.beta2,
          .epsilon = options.epsilon,
          .clip_norm = options.clip_norm};
}

// A GPU works on the steps handed to it while the host prepares the next ones; their values are looked at once in this
// many steps, and batches are built by this many threads beside the one that trains.
constexpr size_t kPendingOnGpu = 32;
constexpr int kBuildersForGpu = 3;
// Cases ranked together on a GPU, which small batches do not fill.
constexpr int kRankedOnGpu = 256;
// An epoch on a GPU may take a second, and a checkpoint's digest and file a good part of that.
constexpr absl::Duration kBetweenSaves = absl::Seconds(20);

absl::Status CheckTargets(const Corpus& corpus, const Catalogue& catalogue) {
  const std::vector<bool> has_sid = ItemsWithSid(corpus, catalogue);
  int64_t targets = 0;
  for (int64_t user = 0; user < corpus.num_users(); ++user) {
    for (const uint32_t item : corpus.target_items().user(user).subspan(0, corpus.training_targets(user))) {
      if (has_sid[item]) return absl::OkStatus();
      ++targets;
    }
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "nothing to train on: of ", targets,
      " targets in the training part of the log none is of an item with a "
      "semantic ID; the tokenizer is of other items, or of other ids (`beamline tokenize --ids`, --id-offset)"));
}

at::Tensor UploadLabels(backend::Context& ctx, const ExampleBatch& batch, int steps) {
  const std::vector<int32_t> columns(batch.labels.begin(), batch.labels.end());
  return backend::UploadInts(ctx, columns, {batch.teacher.batch, batch.teacher.targets, steps}).to(at::kLong);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Trainer>> Trainer::Create(backend::Context ctx, const TrainInputs& inputs,
                                                         const TrainOptions& options) {
  BEAMLINE_RETURN_IF_ERROR(Validate(options));
  const model::ModelConfig& config = inputs.features->config();
  BEAMLINE_RETURN_IF_ERROR(CheckFeatures(config));
  if (ctx.dtype != at::kFloat) return absl::InvalidArgumentError("training runs in fp32: open the context with it");
  if (options.tf32 && ctx.device.is_cpu()) {
    return absl::InvalidArgumentError("training option tf32 is of GPUs; train with device cuda or without it");
  }
  BEAMLINE_ASSIGN_OR_RETURN(ItemRanker ranker, ItemRanker::Create(*inputs.corpus, *inputs.features, inputs.snapshot));
  BEAMLINE_RETURN_IF_ERROR(model::CheckMemory(config, {}, 0));
  try {
    model::Weights weights =
        inputs.initial == nullptr ? model::InitWeights(ctx, config, options.seed) : CloneWeights(*inputs.initial);
    BEAMLINE_ASSIGN_OR_RETURN(std::unique_ptr<model::Model> model, model::MakeModel(config, weights));
    std::unique_ptr<Trainer> trainer(
        new Trainer(std::move(ctx), inputs, options, {std::move(ranker), std::move(weights), std::move(model)}));
    if (trainer->steps_per_epoch_ == 0) {
      return absl::InvalidArgumentError("nothing to train on: the training part of the log holds no target");
    }
    BEAMLINE_RETURN_IF_ERROR(CheckTargets(*inputs.corpus, *inputs.snapshot));
    return trainer;
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("preparing the training: ", error.what()));
  }
}

Trainer::Trainer(backend::Context ctx, const TrainInputs& inputs, const TrainOptions& options, Prepared prepared)
    : ctx_(std::move(ctx)),
      inputs_(inputs),
      options_(options),
      examples_(*inputs.corpus, *inputs.features, *inputs.snapshot, options),
      ranker_(std::move(prepared.ranker)),
      weights_(std::move(prepared.weights)),
      model_(std::move(prepared.model)),
      optimizer_(model_->config(), weights_, OptimizerFrom(options)),
      validation_cases_(ValidationSubset(*inputs.corpus, options.validation_users, options.seed)),
      steps_per_epoch_(examples_.batches_per_epoch()) {
  if (options.average_decay > 0) average_.emplace(weights_, options.average_decay);
  at::globalContext().setAllowTF32CuBLAS(options.tf32);  // of the process
  ctx_.training = true;
  ctx_.dropout = options.dropout;
  ctx_.generator = backend::MakeGenerator(ctx_, options.seed);
  schedule_.peak = options.learning_rate;
  schedule_.total_steps = steps_per_epoch_ * options.epochs;
  schedule_.warmup_steps =
      std::min(options.max_warmup_steps,
               static_cast<int64_t>(options.warmup_fraction * static_cast<double>(schedule_.total_steps)));
  schedule_.final_fraction = options.final_rate_fraction;
  running_.level_losses.resize(model_->config().steps());
}

const model::Weights& Trainer::result() const { return best_.tensors().empty() ? current() : best_; }

void Trainer::EnqueueStep(const ExampleBatch& batch) {
  ctx_.generator->set_current_seed(StableMix64(static_cast<uint64_t>(step_), options_.seed ^ kDropoutStream));
  std::vector<backend::ExpertLoad> loads;
  ctx_.expert_loads = options_.balance_rate > 0 ? &loads : nullptr;
  optimizer_.ZeroGradients();
  const model::ModelConfig& config = model_->config();
  const model::EncoderBatch encoder = model::UploadEncoderInput(ctx_, config, batch.encoder);
  const at::Tensor labels = UploadLabels(ctx_, batch, config.steps());
  // Padding is no load: its rows are alike and go to the same experts.
  ctx_.expert_rows = encoder.order.ne(backend::kPaddingOrder).flatten();
  const model::EncodedContext context = model_->Encode(ctx_, encoder);
  ctx_.expert_rows = labels.narrow(2, 0, config.levels()).ne(kNoLabel).flatten();
  const std::vector<at::Tensor> logits =
      model_->TeacherForced(ctx_, context, model::UploadTeacherInput(ctx_, config, batch.teacher));
  ctx_.expert_rows = at::Tensor();
  Loss loss = CodeLoss(logits, labels, options_.label_smoothing);
  if (options_.mean_over_codes) loss.total = loss.total.div(config.steps());
  loss.total.backward();
  ctx_.expert_loads = nullptr;
  pending_.Add(step_, batch.targets, loss, optimizer_.Step(schedule_.At(step_)));
  if (options_.balance_rate > 0) UpdateExpertBiases(ctx_, loads, options_.balance_rate, weights_);
  if (average_.has_value()) average_->Update(step_);
  ++step_;
}

absl::Status Trainer::AccountForSteps() {
  for (const StepValues& step : pending_.Take()) {
    if (!std::isfinite(step.gradient_norm) || !std::isfinite(step.loss)) {
      return absl::InternalError(absl::StrCat(
          "step ", step.step + 1, ": the loss is ", step.loss, " and the gradient's norm ", step.gradient_norm,
          "; lower the learning rate (", schedule_.peak, ") or the gradient clipping (", options_.clip_norm, ")"));
    }
    const double targets = static_cast<double>(step.targets);
    running_.loss += step.loss * targets;
    for (size_t level = 0; level < step.level_losses.size(); ++level) {
      running_.level_losses[level] += step.level_losses[level] * targets;
    }
    running_.gradient_norm += step.gradient_norm * targets;
    running_.targets += step.targets;
    last_loss_ = step.loss;
  }
  return absl::OkStatus();
}

absl::StatusOr<double> Trainer::TrainStep(const ExampleBatch& batch) {
  EnqueueStep(batch);
  BEAMLINE_RETURN_IF_ERROR(AccountForSteps());
  return last_loss_;
}

absl::Status Trainer::BudgetSpent() const {
  return absl::CancelledError(
      absl::StrCat("stopped before step ", step_ + 1, " of ", schedule_.total_steps, ", as asked"));
}

absl::Status Trainer::RunEpoch(Progress* progress) {
  const EpochPlan plan = examples_.Plan(epoch_);
  const int64_t batches = static_cast<int64_t>(plan.size());
  if (batch_ >= batches) return absl::OkStatus();
  StartProgress(progress, absl::StrFormat("epoch %d/%d", epoch_ + 1, options_.epochs), batches, "batches");
  const bool on_gpu = !ctx_.device.is_cpu();
  const auto build = [&](int64_t batch) {
    const uint64_t seed = StableMix64(StableMix64(epoch_, batch), options_.seed ^ kExampleStream);
    return examples_.Build(plan[batch], seed);
  };
  BatchesAhead ahead(build, batch_, batches, on_gpu ? kBuildersForGpu : 0);
  absl::Time started = absl::Now();
  while (batch_ < batches) {
    BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
    if (step_ == stop_before_step_ || absl::Now() >= stop_at_) return BudgetSpent();
    const ExampleBatch batch = ahead.Next();
    if (batch.targets > 0) EnqueueStep(batch);
    ++batch_;
    if (!on_gpu || pending_.size() == kPendingOnGpu || batch_ == batches) BEAMLINE_RETURN_IF_ERROR(AccountForSteps());
    const absl::Time now = absl::Now();
    running_.seconds += absl::ToDoubleSeconds(now - started);
    started = now;
    UpdateProgress(progress, batch_,
                   absl::StrFormat("loss %.4f, %.0f targets/s", running_.loss / std::max<int64_t>(1, running_.targets),
                                   static_cast<double>(running_.targets) / std::max(1e-9, running_.seconds)));
  }
  FinishProgress(progress);
  return absl::OkStatus();
}

absl::StatusOr<data::RankingMetrics> Trainer::ValidateWeights(Progress* progress) {
  BEAMLINE_ASSIGN_OR_RETURN(const std::unique_ptr<model::Model> model, model::MakeModel(model_->config(), current()));
  backend::Context ctx = ctx_;
  ctx.training = false;
  ctx.generator.reset();
  RankOptions rank;
  rank.beam = options_.validation_beam;
  rank.exclude_seen = options_.exclude_seen;
  if (!ctx.device.is_cpu()) rank.batch = kRankedOnGpu;
  rank.threads = at::get_num_threads();
  rank.progress = progress;
  BEAMLINE_ASSIGN_OR_RETURN(const CaseRankings rankings, ranker_.Rank(ctx, *model, validation_cases_, rank));
  return data::MeanMetrics(rankings.ranks);
}

absl::Status Trainer::FinishEpoch(Progress* progress) {
  EpochRecord record;
  record.epoch = epoch_ + 1;
  record.step = step_;
  record.learning_rate = step_ == 0 ? 0 : schedule_.At(step_ - 1);
  record.targets = running_.targets;
  record.seconds = running_.seconds;
  const double targets = static_cast<double>(std::max<int64_t>(1, running_.targets));
  record.loss = running_.loss / targets;
  record.gradient_norm = running_.gradient_norm / targets;
  for (double loss : running_.level_losses) record.level_losses.push_back(loss / targets);

  const bool due = (epoch_ + 1) % options_.validate_every == 0 || epoch_ + 1 == options_.epochs;
  if (due && !validation_cases_.empty()) {
    if (absl::Now() >= stop_at_) return BudgetSpent();
    BEAMLINE_ASSIGN_OR_RETURN(record.validation, ValidateWeights(progress));
    const double score = record.validation->recall_10 + record.validation->ndcg_10;
    record.best = score > best_score_;
    if (record.best) {
      best_score_ = score;
      worse_ = 0;
      best_ = CloneWeights(current());
    } else if (++worse_ >= options_.patience && options_.patience > 0) {
      stopped_early_ = true;
    }
  }
  curve_.push_back(std::move(record));
  ++epoch_;
  batch_ = 0;
  running_ = Running{};
  running_.level_losses.resize(model_->config().steps());
  return absl::OkStatus();
}

absl::Status Trainer::Run(const std::string& checkpoint, Progress* progress,
                          const std::function<void(const EpochRecord&)>& on_epoch) {
  absl::Time next_save = absl::Now();
  while (epoch_ < options_.epochs && !stopped_early_) {
    absl::Status status;
    try {
      status = RunEpoch(progress);
      if (status.ok()) status = FinishEpoch(progress);
      if (!status.ok() && !absl::IsCancelled(status)) return status;
      BEAMLINE_RETURN_IF_ERROR(AccountForSteps());  // of a run that was stopped
    } catch (const std::exception& error) {
      return absl::InternalError(absl::StrCat("training, step ", step_ + 1, ": ", error.what()));
    }
    if (!checkpoint.empty() && (!status.ok() || absl::Now() >= next_save)) {
      BEAMLINE_RETURN_IF_ERROR(Save(checkpoint));
      next_save = absl::Now() + kBetweenSaves;
    }
    BEAMLINE_RETURN_IF_ERROR(status);
    if (on_epoch) on_epoch(curve_.back());
  }
  return absl::OkStatus();
}

}  // namespace beamline::train
