// SPDX-License-Identifier: Apache-2.0
//
// What `beamline bench` is asked on the command line.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "cli/bench_target.h"
#include "cli/client.h"
#include "cli/command.h"
#include "loadgen/workload.h"

namespace beamline::cli {

struct BenchOptions {
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

// Options, help and examples. `options` outlives `command`.
void AddBenchOptions(Command* command, BenchOptions* options);

// INVALID_ARGUMENT names the option, the limit and the value: what contradicts itself, does not fit into memory or has
// nowhere to go, before hours of measuring.
absl::Status CheckBenchOptions(const BenchOptions& options);

}  // namespace beamline::cli
