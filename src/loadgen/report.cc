// SPDX-License-Identifier: Apache-2.0
#include "loadgen/report.h"

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <thread>

#include <sys/utsname.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace beamline::loadgen {
namespace {

using nlohmann::json;

// Microseconds are the finest that means anything.
double Rounded(double ms) { return std::round(ms * 1e3) / 1e3; }

std::string QuantileName(double q) { return absl::StrFormat("p%g", q * 100); }

json ToJson(const Summary& summary) {
  json object = {{"count", summary.count}};
  if (summary.count == 0) return object;
  object["mean"] = Rounded(summary.mean);
  object["max"] = Rounded(summary.max);
  for (const Quantile& quantile : summary.quantiles) {
    const auto bound = [](const std::optional<double>& value) { return value ? json(Rounded(*value)) : json(nullptr); };
    object[QuantileName(quantile.q)] = {
        {"value", Rounded(quantile.value)}, {"low", bound(quantile.low)}, {"high", bound(quantile.high)}};
  }
  return object;
}

json CountsToJson(const std::map<int, int64_t>& counts) {
  json object = json::object();
  for (const auto& [key, count] : counts) object[absl::StrCat(key)] = count;
  return object;
}

std::string FormatQuantile(const Quantile& quantile) {
  const auto bound = [](const std::optional<double>& value) {
    return value ? absl::StrFormat("%.2f", *value) : std::string("?");
  };
  return absl::StrFormat("P%g %.2f [%s, %s]", quantile.q * 100, quantile.value, bound(quantile.low),
                         bound(quantile.high));
}

std::string CpuName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (absl::StartsWith(line, "model name")) return line.substr(std::min(line.size(), line.find(':') + 2));
  }
  return "";
}

}  // namespace

std::string NameOf(const Cell& cell) {
  std::string name = cell.load.rate ? absl::StrFormat("open loop %.6g/s", *cell.load.rate)
                                    : absl::StrFormat("closed loop of %d", cell.load.concurrency);
  if (cell.load.rate && cell.load.arrivals == Arrivals::kConstant) absl::StrAppend(&name, " evenly spaced");
  if (cell.load.batch > 1) absl::StrAppend(&name, ", ", cell.load.batch, " requests a call");
  absl::StrAppend(&name, ", ", cell.beam > 0 ? absl::StrCat("beam ", cell.beam) : std::string("default beam"),
                  ", history ", cell.history);
  return name;
}

std::string Describe(const Measurement& measured) {
  std::string text = absl::StrCat(NameOf(measured.cell), "\n");
  absl::StrAppendFormat(&text, "  requests     %d: answered %d, refused %d, expired %d, failed %d\n", measured.requests,
                        measured.answered, measured.refused, measured.expired, measured.failed);
  if (measured.failed > 0) absl::StrAppend(&text, "  failure      ", measured.failure, "\n");
  absl::StrAppendFormat(&text, "  throughput   %.2f/s; within %s: %.2f/s\n", measured.throughput,
                        absl::FormatDuration(measured.cell.load.deadline), measured.goodput);
  if (measured.latency.count > 0) {
    absl::StrAppend(&text, "  latency ms  ");
    for (const Quantile& quantile : measured.latency.quantiles) {
      absl::StrAppend(&text, " ", FormatQuantile(quantile), " ");
    }
    absl::StrAppendFormat(&text, " max %.2f\n", measured.latency.max);
    const auto median = [](const Summary& summary) { return summary.count > 0 ? summary.at(0.5).value : 0; };
    absl::StrAppendFormat(&text,
                          "  medians      queue %.2f, encode %.2f, decode %.2f, resolve %.2f; all but encode and "
                          "decode %.2f\n",
                          median(measured.queue), median(measured.encode), median(measured.decode),
                          median(measured.resolve), median(measured.overhead));
  }
  if (measured.refusal.count > 0) {
    absl::StrAppendFormat(&text, "  refusals ms  P50 %.2f  P99 %.2f  max %.2f\n", measured.refusal.at(0.5).value,
                          measured.refusal.at(0.99).value, measured.refusal.max);
  }
  for (const auto& [step, count] : measured.narrowing) {
    if (step > 0) absl::StrAppendFormat(&text, "  narrowed     %d answers by step %d of the ladder\n", count, step);
  }
  if (measured.cached > 0) absl::StrAppendFormat(&text, "  cached       %d contexts\n", measured.cached);
  if (measured.cpu) {
    absl::StrAppendFormat(&text, "  server CPU   %.3f ms per answer", *measured.cpu);
    if (measured.cpu_overhead)
      absl::StrAppendFormat(&text, ", %.3f of it beyond encode and decode", *measured.cpu_overhead);
    absl::StrAppend(&text, "\n");
  }
  // In a closed loop a call is due when it is sent.
  if (measured.open_loop() && measured.lag.count > 0 && measured.lag.at(0.99).value > 1) {
    absl::StrAppendFormat(&text,
                          "  WARNING      the load generator itself was up to %.1f ms late (P99 %.1f): give it a "
                          "core of its own, or ask for less\n",
                          measured.lag.max, measured.lag.at(0.99).value);
  }
  return text;
}

json ToJson(const Measurement& measured) {
  const LoadOptions& load = measured.cell.load;
  json object = {
      {"loop", load.rate ? "open" : "closed"},
      {"batch", load.batch},
      {"beam", measured.cell.beam},
      {"history", measured.cell.history},
      {"seconds", absl::ToDoubleSeconds(load.duration)},
      {"warm_up_seconds", absl::ToDoubleSeconds(load.warm_up)},
      {"deadline_ms", absl::ToDoubleMilliseconds(load.deadline)},
      {"seed", load.seed},
      {"requests", measured.requests},
      {"answered", measured.answered},
      {"late", measured.late},
      {"refused", measured.refused},
      {"refused_without_hint", measured.unhinted},
      {"expired", measured.expired},
      {"failed", measured.failed},
      {"throughput", measured.throughput},
      {"goodput", measured.goodput},
      {"latency_ms", ToJson(measured.latency)},
      {"refusal_ms", ToJson(measured.refusal)},
      {"lag_ms", ToJson(measured.lag)},
      {"stages_ms",
       {{"queue", ToJson(measured.queue)},
        {"encode", ToJson(measured.encode)},
        {"decode", ToJson(measured.decode)},
        {"resolve", ToJson(measured.resolve)},
        {"overhead", ToJson(measured.overhead)}}},
      {"context_cached", measured.cached},
      {"beams", CountsToJson(measured.beams)},
      {"narrowing", CountsToJson(measured.narrowing)},
  };
  if (load.rate) {
    object["rate"] = *load.rate;
    object["arrivals"] = load.arrivals == Arrivals::kPoisson ? "poisson" : "constant";
  } else {
    object["concurrency"] = load.concurrency;
  }
  if (measured.failed > 0) object["failure"] = measured.failure;
  if (measured.cpu) object["server_cpu_ms"] = Rounded(*measured.cpu);
  if (measured.cpu_overhead) object["server_cpu_overhead_ms"] = Rounded(*measured.cpu_overhead);
  return object;
}

json DescribeMachine() {
  utsname system{};
  uname(&system);
  double load[3] = {0, 0, 0};
  getloadavg(load, 3);
  return {{"cpu", CpuName()},
          {"cores", std::thread::hardware_concurrency()},
          {"kernel", system.release},
          {"load_average", load[0]}};
}

std::string SamplesToText(const Cell& cell, const RunResult& run) {
  std::string text = absl::StrCat("# ", NameOf(cell), "\ndue_ms\tsent_ms\tanswered_ms\tstatus\tbeams\tnarrowing\n");
  for (const Sample& sample : run.samples) {
    if (sample.due < run.begin || sample.due >= run.end) continue;
    absl::StrAppendFormat(&text, "%.3f\t%.3f\t%.3f\t%s\t%d\t%d\n", absl::ToDoubleMilliseconds(sample.due),
                          absl::ToDoubleMilliseconds(sample.sent), absl::ToDoubleMilliseconds(sample.answered),
                          absl::StatusCodeToString(sample.answer.status.code()), sample.answer.beams,
                          sample.answer.narrowing);
  }
  return text;
}

}  // namespace beamline::loadgen
