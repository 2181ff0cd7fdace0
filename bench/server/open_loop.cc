// SPDX-License-Identifier: Apache-2.0
//
// What gRPC and scheduling cost: sends Recommend calls to a server at a fixed rate, whether or not earlier ones have
// been answered (open loop), and compares what the caller and the server's process spend with what the answers say the
// model took (StageTimings: encode and decode).
//
//   beamline_open_loop --target 127.0.0.1:PORT --server-pid PID --items 1,4,7 [--rate 200] [--seconds 20] [--beams 20]
//
// Prints one JSON line, milliseconds: P50 and P99 of the latency; of the latency less encode and decode, which is
// network, gRPC on both sides, checks, scheduling, items and answer; and the server's CPU time per request less encode
// and decode. The client's own CPU time is another process's and in none of the server's. Needs a server with
// one thread, no queue delay and no context cache: bench/server/overhead.sh starts such a one.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <unistd.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/blocking_counter.h"
#include "beamline/v1/recommend.grpc.pb.h"
#include "grpcpp/grpcpp.h"

namespace beamline {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  std::string target;
  int pid = 0;
  int rate = 200;
  int seconds = 20;
  int beams = 20;
  std::vector<uint64_t> items;
};

struct Call {
  grpc::ClientContext context;
  v1::RecommendRequest request;
  v1::RecommendResponse response;
  Clock::time_point due;
  double latency_ms = 0;
  double model_ms = 0;
  bool ok = false;
};

double Milliseconds(Clock::duration duration) { return std::chrono::duration<double, std::milli>(duration).count(); }

// User and system time of all threads of a process.
double CpuMilliseconds(int pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(file)), {});
  const size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(text.substr(name_end + 2));
  std::string field;
  double ticks = 0, count = 0;
  for (int i = 3; i < 14 && fields >> field; ++i) {
  }
  for (int i = 14; i <= 15 && fields >> count; ++i) ticks += count;
  return 1e3 * ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
}

double Percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(share * static_cast<double>(values.size())))];
}

// Calls due one after another at the rate; latency counts from when a call was due, not from when it was sent.
std::vector<std::unique_ptr<Call>> Send(v1::RecommendService::Stub& stub, const Options& options, int count) {
  std::vector<std::unique_ptr<Call>> calls;
  for (int i = 0; i < count; ++i) {
    auto call = std::make_unique<Call>();
    for (size_t j = 0; j < 10; ++j) {
      call->request.add_history()->set_item_id(options.items[(i + j * j) % options.items.size()]);
    }
    call->request.set_top_k(10);
    call->request.add_beam_widths(options.beams);
    calls.push_back(std::move(call));
  }
  absl::BlockingCounter left(count);
  const auto begin = Clock::now();
  for (int i = 0; i < count; ++i) {
    Call& call = *calls[i];
    call.due = begin + i * std::chrono::nanoseconds(1'000'000'000 / options.rate);
    std::this_thread::sleep_until(call.due);
    call.context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    stub.async()->Recommend(&call.context, &call.request, &call.response, [&call, &left](const grpc::Status& status) {
      call.latency_ms = Milliseconds(Clock::now() - call.due);
      const v1::StageTimings& timings = call.response.timings();
      call.model_ms = 1e-3 * static_cast<double>(timings.encode_us() + timings.decode_us());
      call.ok = status.ok() && !timings.context_cached();
      if (!status.ok()) std::fprintf(stderr, "%s\n", status.error_message().c_str());
      left.DecrementCount();
    });
  }
  left.Wait();
  return calls;
}

int Run(const Options& options) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  const auto stub = v1::RecommendService::NewStub(
      grpc::CreateCustomChannel(options.target, grpc::InsecureChannelCredentials(), arguments));
  Send(*stub, options, options.rate);  // warm-up, a second
  const double cpu_before = CpuMilliseconds(options.pid);
  const auto calls = Send(*stub, options, options.rate * options.seconds);
  const double cpu = (CpuMilliseconds(options.pid) - cpu_before) / static_cast<double>(calls.size());
  std::vector<double> latency, rest, model;
  for (const auto& call : calls) {
    if (!call->ok) {
      std::fprintf(stderr, "a call failed or was answered from the context cache\n");
      return 1;
    }
    latency.push_back(call->latency_ms);
    model.push_back(call->model_ms);
    rest.push_back(call->latency_ms - call->model_ms);
  }
  double model_mean = 0;
  for (const double value : model) model_mean += value / static_cast<double>(model.size());
  std::printf(
      "{\"rate\": %d, \"requests\": %zu, \"latency_p50\": %.3f, \"latency_p99\": %.3f, \"model_p50\": %.3f, "
      "\"overhead_p50\": %.3f, \"overhead_p99\": %.3f, \"server_cpu\": %.3f, \"server_cpu_overhead\": %.3f}\n",
      options.rate, calls.size(), Percentile(latency, 0.5), Percentile(latency, 0.99), Percentile(model, 0.5),
      Percentile(rest, 0.5), Percentile(rest, 0.99), cpu, cpu - model_mean);
  return 0;
}

int Main(int argc, char** argv) {
  Options options;
  bool good = argc % 2 == 1;
  for (int i = 1; good && i + 1 < argc; i += 2) {
    const std::string flag = argv[i], value = argv[i + 1];
    if (flag == "--target")
      options.target = value;
    else if (flag == "--server-pid")
      good = absl::SimpleAtoi(value, &options.pid);
    else if (flag == "--rate")
      good = absl::SimpleAtoi(value, &options.rate) && options.rate > 0;
    else if (flag == "--seconds")
      good = absl::SimpleAtoi(value, &options.seconds) && options.seconds > 0;
    else if (flag == "--beams")
      good = absl::SimpleAtoi(value, &options.beams) && options.beams > 0;
    else if (flag == "--items") {
      for (const auto part : absl::StrSplit(value, ',')) {
        uint64_t item = 0;
        good = good && absl::SimpleAtoi(part, &item);
        options.items.push_back(item);
      }
    } else {
      good = false;
    }
  }
  if (!good || options.target.empty() || options.pid == 0 || options.items.empty()) {
    std::fprintf(stderr, "see the head of bench/server/open_loop.cc for the options\n");
    return 2;
  }
  return Run(options);
}

}  // namespace
}  // namespace beamline

int main(int argc, char** argv) { return beamline::Main(argc, argv); }
