// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
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
#include "base/progress.h"
#include "base/thread_role.h"
#include "beamline/engine.h"
#include "beamline/status.h"
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

constexpr int64_t kLeastRequests = 20;  // of a trial of the capacity search
constexpr double kMostRequests = 1e7;   // of one measurement of an open loop: some gigabytes
constexpr double kMostEvents = 1e8;     // of all distinct requests

struct Options {
  std::string bundle, server, config;
  ServerTarget::Options target;
  TlsFlags tls;
  // Load.
  std::vector<double> rates;
  std::vector<uint32_t> concurrency = {1}, batches = {1}, beams = {0}, histories = {50};
  std::string arrivals = "poisson";
  double seconds = 10, warm_up = 2;
  int deadline_ms = 1000;
  // Requests.
  std::string data, items;
  std::vector<uint32_t> classes;
  loadgen::WorkloadOptions workload;
  // Capacity.
  bool find_capacity = false;
  double goodput = 99, precision = 5;
  // Out.
  std::string json_file, plot_file, samples_file;
};

// What is measured, with what it is measured on and where it goes.
class Bench {
 public:
  explicit Bench(const Options& options) : options_(options) {}

  absl::Status Run() {
    BEAMLINE_RETURN_IF_ERROR(Check());
    BEAMLINE_RETURN_IF_ERROR(Connect());
    BEAMLINE_RETURN_IF_ERROR(FindWhatToAskWith());
    report_ = {
        {"target", target_json_}, {"machine", loadgen::DescribeMachine()}, {"started", absl::FormatTime(absl::Now())}};
    const absl::Status status = options_.find_capacity ? Capacity() : Sweep();
    // What was measured before an error or Ctrl-C is kept.
    if (!measured_.empty()) BEAMLINE_RETURN_IF_ERROR(Write());
    return status;
  }

 private:
  absl::Status Check() const {
    if (options_.bundle.empty() == options_.server.empty()) {
      return absl::InvalidArgumentError("give --bundle DIR (an engine in this process) or --server HOST:PORT");
    }
    if (!options_.classes.empty() &&
        (options_.classes.size() != 3 || options_.classes[0] + options_.classes[1] + options_.classes[2] != 100)) {
      return absl::InvalidArgumentError("--classes: give three percentages that make 100: critical,default,sheddable");
    }
    BEAMLINE_RETURN_IF_ERROR(CheckSizes());
    // Before hours of measuring, not behind them.
    if (options_.json_file != "-") BEAMLINE_RETURN_IF_ERROR(CheckOutput("--json", options_.json_file));
    BEAMLINE_RETURN_IF_ERROR(CheckOutput("--plot", options_.plot_file));
    BEAMLINE_RETURN_IF_ERROR(CheckOutput("--samples", options_.samples_file));
    for (const auto& [a, b] :
         {std::pair(&options_.json_file, &options_.samples_file), std::pair(&options_.json_file, &options_.plot_file),
          std::pair(&options_.samples_file, &options_.plot_file)}) {
      if (*a == *b && !a->empty()) {
        return absl::InvalidArgumentError(
            absl::StrCat("--json, --samples, --plot: two of them name ", *a, "; give each its own file"));
      }
    }
    return options_.find_capacity ? CheckCapacity() : absl::OkStatus();
  }

  absl::Status CheckCapacity() const {
    const std::pair<absl::string_view, size_t> sizes[] = {{"--rate", options_.rates.size()},
                                                          {"--batch", options_.batches.size()},
                                                          {"--beam", options_.beams.size()},
                                                          {"--history", options_.histories.size()}};
    for (const auto& [name, values] : sizes) {
      if (values > 1) {
        return absl::InvalidArgumentError(
            absl::StrCat(name, ": ", values, " values; --find-capacity looks for one capacity, so give one"));
      }
    }
    if (options_.seconds * 1000 < 5 * options_.deadline_ms) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "--seconds: %g is less than five deadlines of %d ms, too short to see a queue grow; measure longer",
          options_.seconds, options_.deadline_ms));
    }
    return absl::OkStatus();
  }

  static absl::Status CheckOutput(absl::string_view option, const std::string& file) {
    return file.empty() ? absl::OkStatus() : CheckCanWrite(file, option);
  }

  // What is made before the first call, and what is kept of every request, must fit into memory.
  absl::Status CheckSizes() const {
    const double events = static_cast<double>(options_.workload.requests) *
                          *std::max_element(options_.histories.begin(), options_.histories.end());
    if (events > kMostEvents) {
      return absl::InvalidArgumentError(
          absl::StrFormat("--requests, --history: %g events in all are more than %g", events, kMostEvents));
    }
    const double rate = options_.rates.empty() ? 0 : *std::max_element(options_.rates.begin(), options_.rates.end());
    const double calls = rate * (options_.seconds + options_.warm_up);
    const double requests = calls * *std::max_element(options_.batches.begin(), options_.batches.end());
    if (requests <= kMostRequests) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrFormat("--rate, --seconds, --batch: %g requests are more than %g; measure for a shorter time",
                        requests, kMostRequests));
  }

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
    target_json_ = {{"bundle", options_.bundle},         {"model_version", status.model_version},
                    {"family", status.family},           {"parameters", status.parameters},
                    {"items", status.num_items},         {"threads", engine_options.threads},
                    {"workers", engine_options.workers}, {"backend", engine_options.backend},
                    {"dtype", engine_options.dtype}};
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
    BEAMLINE_ASSIGN_OR_RETURN(items_, loadgen::DiscoverItems(*target_, absl::Seconds(60)));
    return absl::OkStatus();
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

  absl::StatusOr<Measurement> MeasureCell(const Cell& cell) {
    loadgen::WorkloadOptions workload = options_.workload;
    workload.beam = cell.beam;
    workload.history = cell.history;
    if (!options_.classes.empty()) {
      workload.classes = {static_cast<int>(options_.classes[0]), static_cast<int>(options_.classes[1]),
                          static_cast<int>(options_.classes[2])};
    }
    std::vector<RecommendRequest> pool = loadgen::MakeWorkload(workload, items_, histories_);
    std::vector<Priority> priorities;
    priorities.reserve(pool.size());
    for (const RecommendRequest& request : pool) priorities.push_back(request.priority);
    BEAMLINE_RETURN_IF_ERROR(target_->Prepare(std::move(pool)));
    BEAMLINE_ASSIGN_OR_RETURN(const loadgen::RunResult run,
                              loadgen::RunLoad(*target_, workload.requests, cell.load, &progress_));
    if (!options_.samples_file.empty()) samples_ += loadgen::SamplesToText(cell, run);
    Measurement measured = loadgen::Measure(cell, run);
    if (measured.answered == 0 && measured.failed > 0) return absl::UnavailableError(measured.failure);
    json entry = loadgen::ToJson(measured);
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
      if (measured.throughput == 0)
        return absl::FailedPreconditionError("nothing was answered in a second; say where to begin with --rate");
      start = measured.throughput / cell.load.batch;
    }
    const auto carries = [&](double rate) -> absl::StatusOr<bool> {
      cell.load.rate = rate;
      ++cell.load.seed;  // the last trial confirms a rate, not the luck of one run of arrivals
      BEAMLINE_ASSIGN_OR_RETURN(const Measurement measured, MeasureCell(cell));
      if (measured.requests < kLeastRequests) {
        return absl::FailedPreconditionError(absl::StrFormat(
            "at %.3g/s only %d requests come due in --seconds %g, too few to judge by: measure longer, or "
            "allow a longer --deadline-ms",
            rate, measured.requests, options_.seconds));
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
                           {"goodput_percent", options_.goodput},
                           {"precision_percent", options_.precision},
                           {"deadline_ms", options_.deadline_ms}};
    Print(loadgen::Describe(measured_.back()));
    Print(absl::StrFormat("capacity     %.2f/s: %g %% within %d ms and no refusal\n", capacity, options_.goodput,
                          options_.deadline_ms));
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

  const Options& options_;
  Progress progress_;
  std::unique_ptr<Engine> engine_;  // before the target, which uses it
  std::unique_ptr<loadgen::Target> target_;
  std::vector<ItemId> items_;
  std::vector<std::vector<Event>> histories_;
  std::vector<Measurement> measured_;
  std::string samples_;
  json target_json_, report_, cells_ = json::array();
};

constexpr char kExamples[] =
    R"(Two kinds of load. --rate: calls leave at these times whatever becomes of earlier ones, as users do, and every latency
counts from the time the call was due, so a stall is charged for all it kept waiting. --concurrency: so many calls are
always open; that shows throughput, but hides what a queue does to latency. Lists are swept: every combination is
measured for --seconds after --warmup. Brackets hold 95 % confidence intervals; "?": too few calls to say.

Examples:
  beamline bench --bundle bundle                                   # one at a time, in this process
  beamline bench --bundle bundle --beam 20,50,128 --history 10,50,200 --plot sweep.svg
  beamline bench --bundle bundle --concurrency 1,4,16,64 --json sweep.json
  beamline bench --server 127.0.0.1:50051 --rate 50,100,200 --deadline-ms 200 --plot latency.svg
  beamline bench --server 127.0.0.1:50051 --find-capacity --deadline-ms 200
  beamline bench --server 127.0.0.1:50051 --rate 400 --classes 20,60,20 --samples samples.tsv
  beamline bench --server 127.0.0.1:50051 --data data --rate 100   # histories of a real log
  taskset -c 1 beamline bench --server 127.0.0.1:50051 --server-pid $(pidof beamline) --rate 200 --arrivals constant

Items come from --data or --items, else from what the target itself recommends. Contexts are not reused unless --users
gives requests user ids. bench/README.md says how to read the numbers and lists the ready-made suites.)";

void AddTargetOptions(Command* command, Options* options) {
  const char* const group = "What is measured";
  Option* bundle = command->AddText("--bundle", options->bundle, "An engine in this process, with this bundle")
                       ->TypeName("DIR")
                       ->Group(group);
  Option* server =
      command->AddText("--server", options->server, "A running server")->TypeName("HOST:PORT")->Group(group);
  bundle->Excludes(server);
  command->AddText("--config", options->config, "Options of the engine: its section of a server's configuration")
      ->TypeName("FILE")
      ->Group(group)
      ->Needs(bundle);
  command
      ->AddNumber("--server-pid", options->target.pid, {1, 1 << 22},
                  "The server's process, on this machine: its CPU time per answer")
      ->TypeName("PID")
      ->Group(group)
      ->Needs(server);
  command
      ->AddFlag("--health", options->target.health,
                "Ask the server's health service instead, which does nothing: what gRPC itself costs")
      ->Group(group)
      ->Needs(server);
}

void AddLoadOptions(Command* command, Options* options) {
  const char* const group = "Load";
  Option* rate = command->AddNumber("--rate", options->rates, {0.001, 1e6}, "Open loop: calls a second")
                     ->Separator(',')
                     ->TypeName("N[,N...]")
                     ->Group(group);
  command->AddText("--arrivals", options->arrivals, "Of an open loop")
      ->OneOf({"poisson", "constant"})
      ->ShowDefault()
      ->Group(group);
  Option* concurrency =
      command->AddNumber("--concurrency", options->concurrency, {1, 4096}, "Closed loop: calls always open")
          ->Separator(',')
          ->ShowDefault("1")
          ->TypeName("N[,N...]")
          ->Group(group)
          ->Excludes(rate);
  command->AddNumber("--batch", options->batches, {1, 4096}, "Requests of one call")
      ->Separator(',')
      ->ShowDefault("1")
      ->TypeName("N[,N...]")
      ->Group(group);
  command->AddNumber("--seconds", options->seconds, {0.1, 1e6}, "Measured, of each combination")
      ->ShowDefault()
      ->Group(group);
  command->AddNumber("--warmup", options->warm_up, {0, 1e5}, "Seconds of the same load before, not counted")
      ->ShowDefault()
      ->Group(group);
  command->AddNumber("--deadline-ms", options->deadline_ms, {1, 3'600'000}, "Of each call, from when it is due")
      ->ShowDefault()
      ->Group(group);
  command
      ->AddFlag("--find-capacity", options->find_capacity,
                "Find the largest open-loop rate that is answered in time and without refusal; --rate: begin there")
      ->Group(group)
      ->Excludes(concurrency);
  command->AddNumber("--goodput", options->goodput, {1, 100}, "Percent in time that capacity asks for")
      ->ShowDefault()
      ->Group(group);
  command->AddNumber("--precision", options->precision, {0.5, 50}, "Of the capacity, in percent")
      ->ShowDefault()
      ->Group(group);
}

void AddRequestOptions(Command* command, Options* options) {
  const char* const group = "Requests";
  loadgen::WorkloadOptions& workload = options->workload;
  command->AddNumber("--beam", options->beams, {1, 65536}, "Beams at every level; default: the target's")
      ->Separator(',')
      ->TypeName("N[,N...]")
      ->Group(group);
  command->AddNumber("--history", options->histories, {0, 1e6}, "Events of each history")
      ->Separator(',')
      ->ShowDefault("50")
      ->TypeName("N[,N...]")
      ->Group(group);
  command->AddNumber("--top-k", workload.top_k, {1, 100000}, "Items wanted")->ShowDefault()->Group(group);
  Option* data =
      command->AddText("--data", options->data, "Histories of this data folder's users")->TypeName("DIR")->Group(group);
  command->AddText("--items", options->items, "Items of synthetic histories, popular ones first: 1,2,3")
      ->TypeName("IDS")
      ->Group(group)
      ->Excludes(data);
  command->AddNumber("--requests", workload.requests, {1, 1e6}, "Distinct requests, used in turn")
      ->ShowDefault()
      ->Group(group);
  command->AddNumber("--users", workload.users, {0, 1e6}, "User ids given to them in turn; 0: none, nothing is cached")
      ->ShowDefault()
      ->Group(group);
  command->AddNumber("--classes", options->classes, {0, 100}, "Percent that are critical, default, sheddable")
      ->Separator(',')
      ->TypeName("C,D,S")
      ->Group(group);
  command->AddNumber("--seed", workload.seed, {}, "Of requests and arrivals")->ShowDefault()->Group(group);
}

}  // namespace

Verb AddBench(Command& root) {
  auto options = std::make_shared<Options>();
  Command* command = root.AddCommand("bench", "Measure latency and throughput of an engine or of a running server");
  AddTargetOptions(command, options.get());
  AddLoadOptions(command, options.get());
  AddRequestOptions(command, options.get());
  const char* const group = "Output";
  command->AddText("--json", options->json_file, "All numbers; - is standard output")->TypeName("FILE|-")->Group(group);
  command->AddText("--plot", options->plot_file, "A picture of them")->TypeName("FILE.svg")->Group(group);
  command->AddText("--samples", options->samples_file, "A line per request: times, status, beams")
      ->TypeName("FILE.tsv")
      ->Group(group);
  AddTlsFlags(command, &options->tls);
  command->Footer(kExamples);
  return {command, [options] { return Bench(*options).Run(); }};
}

}  // namespace beamline::cli
