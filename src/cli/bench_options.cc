// SPDX-License-Identifier: Apache-2.0
#include "cli/bench_options.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "beamline/status.h"
#include "loadgen/run.h"

namespace beamline::cli {
namespace {

constexpr double kMostEvents = 1e8;  // of all distinct requests

absl::Status CheckOutput(absl::string_view option, const std::string& file) {
  return file.empty() ? absl::OkStatus() : CheckCanWrite(file, option);
}

// What is made before the first call, and what an open loop keeps of its requests, must fit into memory; what is not
// known beforehand is counted as it runs (loadgen/run.h).
absl::Status CheckSizes(const BenchOptions& options) {
  const double events = static_cast<double>(options.workload.requests) *
                        *std::max_element(options.histories.begin(), options.histories.end());
  if (events > kMostEvents) {
    return absl::InvalidArgumentError(
        absl::StrFormat("--requests, --history: %g events in all are more than %g", events, kMostEvents));
  }
  const double rate = options.rates.empty() ? 0 : *std::max_element(options.rates.begin(), options.rates.end());
  const double calls = rate * (options.seconds + options.warm_up);
  const double requests = calls * *std::max_element(options.batches.begin(), options.batches.end());
  const double most = static_cast<double>(loadgen::LoadOptions{}.max_requests);
  if (requests <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat(
      "--rate, --seconds, --batch: %g requests are more than %g; measure for a shorter time", requests, most));
}

absl::Status CheckCapacity(const BenchOptions& options) {
  const std::pair<absl::string_view, size_t> sizes[] = {{"--rate", options.rates.size()},
                                                        {"--batch", options.batches.size()},
                                                        {"--beam", options.beams.size()},
                                                        {"--history", options.histories.size()}};
  for (const auto& [name, values] : sizes) {
    if (values > 1) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ": ", values, " values; --find-capacity looks for one capacity, so give one"));
    }
  }
  if (options.seconds * 1000 < 5 * options.deadline_ms) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "--seconds: %g is less than five deadlines of %d ms, too short to see a queue grow; measure longer",
        options.seconds, options.deadline_ms));
  }
  return absl::OkStatus();
}

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

void AddTargetOptions(Command* command, BenchOptions* options) {
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

void AddLoadOptions(Command* command, BenchOptions* options) {
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

void AddRequestOptions(Command* command, BenchOptions* options) {
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

void AddBenchOptions(Command* command, BenchOptions* options) {
  AddTargetOptions(command, options);
  AddLoadOptions(command, options);
  AddRequestOptions(command, options);
  const char* const group = "Output";
  command->AddText("--json", options->json_file, "All numbers; - is standard output")->TypeName("FILE|-")->Group(group);
  command->AddText("--plot", options->plot_file, "A picture of them")->TypeName("FILE.svg")->Group(group);
  command->AddText("--samples", options->samples_file, "A line per request that is measured: times, status, beams")
      ->TypeName("FILE.tsv")
      ->Group(group);
  AddTlsFlags(command, &options->tls);
  command->Footer(kExamples);
}

absl::Status CheckBenchOptions(const BenchOptions& options) {
  if (options.bundle.empty() == options.server.empty()) {
    return absl::InvalidArgumentError("give --bundle DIR (an engine in this process) or --server HOST:PORT");
  }
  if (!options.classes.empty() &&
      (options.classes.size() != 3 || options.classes[0] + options.classes[1] + options.classes[2] != 100)) {
    return absl::InvalidArgumentError("--classes: give three percentages that make 100: critical,default,sheddable");
  }
  BEAMLINE_RETURN_IF_ERROR(CheckSizes(options));
  // Before hours of measuring, not behind them.
  if (options.json_file != "-") BEAMLINE_RETURN_IF_ERROR(CheckOutput("--json", options.json_file));
  BEAMLINE_RETURN_IF_ERROR(CheckOutput("--plot", options.plot_file));
  BEAMLINE_RETURN_IF_ERROR(CheckOutput("--samples", options.samples_file));
  for (const auto& [a, b] :
       {std::pair(&options.json_file, &options.samples_file), std::pair(&options.json_file, &options.plot_file),
        std::pair(&options.samples_file, &options.plot_file)}) {
    if (*a == *b && !a->empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--json, --samples, --plot: two of them name ", *a, "; give each its own file"));
    }
  }
  return options.find_capacity ? CheckCapacity(options) : absl::OkStatus();
}

}  // namespace beamline::cli
