// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "base/thread_role.h"
#include "beamline/engine.h"
#include "beamline/status.h"
#include "cli/bench_options.h"
#include "cli/bench_target.h"
#include "cli/history_input.h"
#include "cli/verb.h"
#include "loadgen/capacity.h"
#include "loadgen/engine_target.h"
#include "loadgen/measurement.h"
#include "loadgen/plot.h"
#include "loadgen/report.h"
#include "loadgen/workload.h"
#include "server/config.h"

namespace beamline::cli {
namespace {

using loadgen::Cell;
using loadgen::Measurement;
using nlohmann::json;

constexpr int64_t kLeastCalls = 20;  // of a trial of the capacity search

// What is measured, with what it is measured on and where it goes.
class Bench {
 public:
  explicit Bench(const BenchOptions& options) : options_(options) {}

  absl::Status Run() {
    BEAMLINE_RETURN_IF_ERROR(CheckBenchOptions(options_));
    BEAMLINE_RETURN_IF_ERROR(Connect());
    BEAMLINE_RETURN_IF_ERROR(FindWhatToAskWith());
    BEAMLINE_RETURN_IF_ERROR(TryAll());
    report_ = {
        {"target", target_json_}, {"machine", loadgen::DescribeMachine()}, {"started", absl::FormatTime(absl::Now())}};
    const absl::Status status = options_.find_capacity ? Capacity() : Sweep();
    // What was measured before an error or Ctrl-C is kept.
    if (!measured_.empty()) BEAMLINE_RETURN_IF_ERROR(Write());
    return status;
  }

 private:
  absl::Status Connect() {
    if (!options_.server.empty()) {
      TakeRole(ThreadRole::kAnswers);  // or an answer waits here for the slice of who reads another, up to 3 ms
      BEAMLINE_ASSIGN_OR_RETURN(target_, ServerTarget::Create(options_.server, options_.tls, options_.target));
      BEAMLINE_ASSIGN_OR_RETURN(Client client, Client::Create(options_.server, absl::Seconds(10), options_.tls));
      BEAMLINE_ASSIGN_OR_RETURN(const v1::GetStatusResponse status, client.GetStatus());
      target_json_ = {{"server", options_.server},
                      {"model_version", status.model_version()},
                      {"family", status.family()},
                      {"parameters", status.parameters()},
                      {"items", status.items()}};
      if (options_.target.health) target_json_["health"] = true;  // none of it was asked
      return absl::OkStatus();
    }
    EngineOptions engine_options;
    if (!options_.config.empty()) {
      BEAMLINE_ASSIGN_OR_RETURN(const config::v1::ServerConfig config,
                                server::LoadServerConfig(options_.config, {.bundle = options_.bundle}));
      engine_options = server::EngineOptionsOf(config);
    }
    engine_options.bundle = options_.bundle;
    BEAMLINE_ASSIGN_OR_RETURN(engine_, CreateEngine(engine_options));
    target_ = std::make_unique<loadgen::EngineTarget>(engine_.get());
    const EngineStatus status = engine_->GetStatus();
    target_json_ = {{"bundle", options_.bundle},     {"model_version", status.model_version},
                    {"family", status.family},       {"parameters", status.parameters},
                    {"items", status.num_items},     {"threads", engine_options.threads},
                    {"workers", status.workers},     {"backend", engine_options.backend},
                    {"dtype", engine_options.dtype}, {"device", status.device}};
    return absl::OkStatus();
  }

  absl::Status FindWhatToAskWith() {
    const uint32_t longest = *std::max_element(options_.histories.begin(), options_.histories.end());
    if (!options_.data.empty()) {
      BEAMLINE_ASSIGN_OR_RETURN(histories_, ReadHistoriesFromData(options_.data, options_.workload.requests, longest));
      return absl::OkStatus();
    }
    if (options_.target.health) {
      items_ = {1};  // nobody will look at them
      return absl::OkStatus();
    }
    if (!options_.items.empty()) {
      BEAMLINE_ASSIGN_OR_RETURN(items_, ParseItemList(options_.items, "--items"));
      if (items_.empty()) return absl::InvalidArgumentError("--items: is empty");
      return absl::OkStatus();
    }
    absl::StatusOr<std::vector<ItemId>> items = loadgen::DiscoverItems(*target_, absl::Seconds(60));
    if (absl::IsUnimplemented(items.status())) return NoRecommendations();
    BEAMLINE_ASSIGN_OR_RETURN(items_, std::move(items));
    return absl::OkStatus();
  }

  absl::Status NoRecommendations() const {
    return absl::UnimplementedError(
        absl::StrCat("--server: ", options_.server,
                     " answers no Recommend calls; name the port that does (listen.port), not the admin listener's"));
  }

  loadgen::LoadOptions LoadOf(std::optional<double> rate, int concurrency, int batch) const {
    return {.rate = rate,
            .arrivals = options_.arrivals == "constant" ? loadgen::Arrivals::kConstant : loadgen::Arrivals::kPoisson,
            .concurrency = concurrency,
            .batch = batch,
            .warm_up = absl::Seconds(options_.warm_up),
            .duration = absl::Seconds(options_.seconds),
            .deadline = absl::Milliseconds(options_.deadline_ms),
            .seed = options_.workload.seed};
  }

  std::vector<Cell> Cells() const {
    std::vector<Cell> cells;
    for (const uint32_t beam : options_.beams) {
      for (const uint32_t history : options_.histories) {
        for (const uint32_t batch : options_.batches) {
          for (const double rate : options_.rates) {
            cells.push_back({LoadOf(rate, 1, batch), static_cast<int>(beam), static_cast<int>(history)});
          }
          if (!options_.rates.empty()) continue;
          for (const uint32_t concurrency : options_.concurrency) {
            cells.push_back({LoadOf({}, concurrency, batch), static_cast<int>(beam), static_cast<int>(history)});
          }
        }
      }
    }
    return cells;
  }

  // At most: where every call takes its whole deadline, and with what chance adds to their number.
  static int64_t OpenCalls(const loadgen::LoadOptions& load) {
    if (!load.rate) return load.concurrency;
    const double mean = std::min(*load.rate * absl::ToDoubleSeconds(load.deadline), 1e9);
    return static_cast<int64_t>(mean + 4 * std::sqrt(mean));
  }

  loadgen::WorkloadOptions WorkloadOf(const Cell& cell) const {
    loadgen::WorkloadOptions workload = options_.workload;
    workload.beam = cell.beam;
    workload.history = cell.history;
    return workload;
  }

  // A value that the target refuses is found before anything is measured: every beam with every history, then the
  // largest batch. Other errors are the measurement's, and end the trial.
  absl::Status TryAll() {
    if (options_.target.health) return absl::OkStatus();
    for (const uint32_t beam : options_.beams) {
      for (const uint32_t history : options_.histories) {
        const absl::Status status = Try({{}, static_cast<int>(beam), static_cast<int>(history)}, 1);
        if (absl::IsInvalidArgument(status)) return status;
        if (absl::IsUnimplemented(status)) return NoRecommendations();
        if (!status.ok()) return CheckInterrupted();
      }
    }
    const auto batch = static_cast<int>(*std::max_element(options_.batches.begin(), options_.batches.end()));
    if (batch == 1) return absl::OkStatus();
    const absl::Status status =
        Try({{}, static_cast<int>(options_.beams[0]), static_cast<int>(options_.histories[0])}, batch);
    return absl::IsInvalidArgument(status) ? status : CheckInterrupted();
  }

  // One call of `batch` requests, each the cell's with most events.
  absl::Status Try(const Cell& cell, int batch) {
    const std::vector<RecommendRequest> pool = loadgen::MakeWorkload(WorkloadOf(cell), items_, histories_);
    const auto longest = std::max_element(
        pool.begin(), pool.end(), [](const auto& a, const auto& b) { return a.history.size() < b.history.size(); });
    absl::Status status = loadgen::TryOnce(*target_, std::vector<RecommendRequest>(batch, *longest), absl::Seconds(60));
    if (!absl::IsInvalidArgument(status)) return status;
    return absl::InvalidArgumentError(absl::StrCat(cell.beam > 0 ? absl::StrCat("--beam ", cell.beam, ", ") : "",
                                                   batch > 1 ? absl::StrCat("--batch ", batch, ", ") : "", "--history ",
                                                   cell.history, ", --top-k ", longest->top_k,
                                                   ": the engine refuses them: ", status.message(),
                                                   " (its limits are in the server's configuration, or in --config)"));
  }

  absl::StatusOr<Measurement> MeasureCell(const Cell& cell) {
    loadgen::WorkloadOptions workload = WorkloadOf(cell);
    if (!options_.classes.empty()) {
      workload.classes = {static_cast<int>(options_.classes[0]), static_cast<int>(options_.classes[1]),
                          static_cast<int>(options_.classes[2])};
    }
    std::vector<RecommendRequest> pool = loadgen::MakeWorkload(workload, items_, histories_);
    std::vector<Priority> priorities;
    priorities.reserve(pool.size());
    for (const RecommendRequest& request : pool) priorities.push_back(request.priority);
    BEAMLINE_RETURN_IF_ERROR(target_->Prepare(std::move(pool), OpenCalls(cell.load)));
    absl::StatusOr<loadgen::RunResult> ran = loadgen::RunLoad(*target_, workload.requests, cell.load, &progress_);
    if (engine_ != nullptr) BEAMLINE_RETURN_IF_ERROR(engine_->GetStatus().fault);  // it measured refusals
    BEAMLINE_ASSIGN_OR_RETURN(const loadgen::RunResult run, std::move(ran));
    if (!options_.samples_file.empty()) samples_ += loadgen::SamplesToText(cell, run);
    Measurement measured = loadgen::Measure(cell, run);
    if (measured.answered == 0 && measured.failed > 0) return absl::UnavailableError(measured.failure);
    json entry = loadgen::ToJson(measured);
    if (target_->connections() > 0) entry["connections"] = target_->connections();
    if (!options_.classes.empty()) {
      const std::pair<const char*, Priority> names[] = {
          {"critical", Priority::kCritical}, {"default", Priority::kDefault}, {"sheddable", Priority::kSheddable}};
      for (const auto& [name, priority] : names) {
        entry["classes"][name] = loadgen::ToJson(loadgen::MeasureClass(cell, run, priorities, priority));
      }
    }
    cells_.push_back(std::move(entry));
    measured_.push_back(measured);
    return measured;
  }

  absl::Status Sweep() {
    for (const Cell& cell : Cells()) {
      BEAMLINE_ASSIGN_OR_RETURN(const Measurement measured, MeasureCell(cell));
      Print(loadgen::Describe(measured));
    }
    return absl::OkStatus();
  }

  absl::Status Capacity() {
    Cell cell = {LoadOf({}, 1, options_.batches[0]), static_cast<int>(options_.beams[0]),
                 static_cast<int>(options_.histories[0])};
    double start = options_.rates.empty() ? 0 : options_.rates[0];
    if (start == 0) {
      Cell alone = cell;
      alone.load.warm_up = alone.load.duration = absl::Seconds(1);
      BEAMLINE_ASSIGN_OR_RETURN(const Measurement measured, MeasureCell(alone));
      if (measured.throughput == 0) {
        return absl::FailedPreconditionError("nothing was answered in a second; say where to begin with --rate");
      }
      start = measured.throughput / cell.load.batch;
    }
    start = std::max(start, 2 * static_cast<double>(kLeastCalls) / options_.seconds);  // enough to judge the first by
    const auto carries = [&](double rate) -> absl::StatusOr<bool> {
      cell.load.rate = rate;
      ++cell.load.seed;  // the last trial confirms a rate, not the luck of one run of arrivals
      BEAMLINE_ASSIGN_OR_RETURN(const Measurement measured, MeasureCell(cell));
      const int64_t calls = measured.requests / cell.load.batch;
      if (calls < kLeastCalls) {
        return absl::FailedPreconditionError(
            absl::StrFormat("at %.3g/s only %d calls come due in --seconds %g, too few to judge by: measure longer",
                            rate, calls, options_.seconds));
      }
      const auto in_time = static_cast<double>(measured.answered - measured.late);
      const bool carried = measured.refused == 0 && measured.failed == 0 &&
                           in_time >= options_.goodput / 100 * static_cast<double>(measured.requests);
      Print(absl::StrFormat("%10.2f/s  %s: %d of %d in time, %d refused; P99 %.1f ms\n", rate,
                            carried ? "carried" : "too much", measured.answered - measured.late, measured.requests,
                            measured.refused, measured.latency.count > 0 ? measured.latency.at(0.99).value : 0));
      return carried;
    };
    BEAMLINE_ASSIGN_OR_RETURN(const double capacity,
                              loadgen::FindCapacity({.start = start, .precision = options_.precision / 100}, carries));
    report_["capacity"] = {{"rate", capacity},
                           {"batch", cell.load.batch},
                           {"goodput_percent", options_.goodput},
                           {"precision_percent", options_.precision},
                           {"deadline_ms", options_.deadline_ms}};
    Print(loadgen::Describe(measured_.back()));
    Print(absl::StrFormat("capacity     %.2f calls/s of %d request%s: %g %% within %d ms and no refusal\n", capacity,
                          cell.load.batch, cell.load.batch == 1 ? "" : "s", options_.goodput, options_.deadline_ms));
    return absl::OkStatus();
  }

  // Standard output is the JSON's where it is asked for.
  void Print(const std::string& text) const {
    std::fputs(text.c_str(), options_.json_file == "-" ? stderr : stdout);
    std::fflush(stdout);
  }

  absl::Status Write() {
    report_["cells"] = cells_;
    if (options_.json_file == "-") {
      std::printf("%s\n", report_.dump(2).c_str());
    } else if (!options_.json_file.empty()) {
      BEAMLINE_RETURN_IF_ERROR(WriteFileAtomically(options_.json_file, report_.dump(2) + "\n"));
    }
    if (!options_.samples_file.empty()) BEAMLINE_RETURN_IF_ERROR(WriteFileAtomically(options_.samples_file, samples_));
    if (options_.plot_file.empty()) return absl::OkStatus();
    std::vector<Measurement> shown = measured_;
    // Trials of a search are in no order.
    std::stable_sort(shown.begin(), shown.end(), [&](const Measurement& a, const Measurement& b) {
      return options_.find_capacity && a.cell.load.rate.value_or(0) < b.cell.load.rate.value_or(0);
    });
    const std::string title = absl::StrCat("beamline bench, model ", target_json_["model_version"].get<std::string>());
    return WriteFileAtomically(options_.plot_file, loadgen::PlotSvg(shown, title));
  }

  const BenchOptions& options_;
  Progress progress_;
  std::unique_ptr<Engine> engine_;  // before the target, which uses it
  std::unique_ptr<loadgen::Target> target_;
  std::vector<ItemId> items_;
  std::vector<std::vector<Event>> histories_;
  std::vector<Measurement> measured_;
  std::string samples_;
  json target_json_, report_, cells_ = json::array();
};

}  // namespace

Verb AddBench(Command& root) {
  auto options = std::make_shared<BenchOptions>();
  Command* command = root.AddCommand("bench", "Measure latency and throughput of an engine or of a running server");
  AddBenchOptions(command, options.get());
  return {command, [options] { return Bench(*options).Run(); }};
}

}  // namespace beamline::cli
