// SPDX-License-Identifier: Apache-2.0
//
// Encode and constrained beam search of whole requests on the cpu and the aten backend, without server and scheduler.
// Models with random weights, of the shapes that TIGER- and LETTER-like recommenders have, in both families (t5: one
// vocabulary of 1,100 and 24,676 tokens):
//   A  d 128, 6 x 64 heads, FFN 1024 relu, 4 + 4 layers, SIDs of 4 x 256
//   B  d 256, 8 x 32 heads, gated FFN 1024, 4 + 4 layers, SIDs of 3 x 8192
// 80 history tokens, 10,000 items; or histories of many lengths in a batch, encoded without and with their padding.
// Milliseconds per request, and with its context cached (decode alone); the share that the request's arithmetic reaches
// of the rate of a 2048^3 fp32 product in the best library at hand, times the threads, both measured in turns; and
// where the time goes.
//
// beamline_engine_cpu_bench --help has the options. One thread is timed in its CPU seconds, so that other work on the
// machine disturbs little; more in wall-clock seconds: measure those on a quiet machine.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "backend/cpu/cpu_backend.h"
#include "beamline/kernels/packed_gemm.h"
#include "catalogue/generate.h"
#include "ceilings.h"
#include "command_line.h"
#include "decode/beam_search.h"
#include "decode/trie_constraint.h"
#include "model/model.h"

namespace beamline {
namespace {

constexpr int kTokens = 80;

double Seconds(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

struct Options {
  std::vector<std::string> sizes = {"A", "B"};
  std::vector<int> beams = {20, 50, 128, 512}, batches = {1, 16}, threads = {1, 2}, clients = {1};
  std::vector<std::string> families = {"t5", "onerec_v1"}, dtypes = {"fp32"}, backends = {"cpu", "aten"};
  std::vector<std::string> lengths = {"full"};
  double seconds = 1;
  int64_t items = 10000;
};

// Exit status in `exit` where there is nothing to run.
bool ReadOptions(int argc, char** argv, Options& options, int& exit) {
  CLI::App app(
      "Times encode and beam search of whole requests on the CPU, of random weights, without server and scheduler",
      "beamline_engine_cpu_bench");
  app.footer(
      R"(A line per case: milliseconds of a request, the fastest; those with its context cached; and the share of the rate
of a 2048^3 fp32 product, measured in turns. Of one thread also where the time goes.

  beamline_engine_cpu_bench --backends cpu --batches 1 --threads 1          # one core against its ceiling
  beamline_engine_cpu_bench --backends cpu --dtypes fp32,bf16,int8 --batches 1 --threads 1
  beamline_engine_cpu_bench --backends cpu --items 10000000 --beams 512     # what a large catalogue costs
  beamline_engine_cpu_bench --backends cpu --batches 16 --lengths mixed,padded  # what leaving padding out brings)");
  const auto list = [&app](const char* name, auto& to, const char* what) {
    return app.add_option(name, to, what)->delimiter(',')->capture_default_str();
  };
  list("--families", options.families, "Model families")->check(CLI::IsMember({"t5", "onerec_v1"}));
  list("--sizes", options.sizes, "A: d 128, SIDs of 4 x 256; B: d 256, SIDs of 3 x 8192")
      ->check(CLI::IsMember({"A", "B"}));
  list("--beams", options.beams, "Beams of a request")->check(CLI::Range(1, 65536));
  list("--batches", options.batches, "Requests of a batch")->check(CLI::Range(1, 4096));
  list("--threads", options.threads, "Threads of the process")->check(CLI::Range(1, 1024));
  list("--clients", options.clients,
       "Batches at the same time, sharing the threads; ms are one divided by the throughput")
      ->check(CLI::Range(1, 1024));
  list("--dtypes", options.dtypes, "fp32, bf16, int8 (not aten)")->check(CLI::IsMember({"fp32", "bf16", "int8"}));
  list("--backends", options.backends, "cpu, aten")->check(CLI::IsMember({"cpu", "aten"}));
  list("--lengths", options.lengths,
       "Of histories: full, all of 80 tokens; mixed, evenly spread from 80 / batch to 80; padded, the same, and the "
       "encoder runs over their padding, too")
      ->check(CLI::IsMember({"full", "mixed", "padded"}));
  app.add_option("--items", options.items, "Items of the catalogue")
      ->check(CLI::Range(int64_t{1024}, int64_t{100'000'000}))
      ->capture_default_str();
  app.add_option("--seconds", options.seconds, "Of each case, at least")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  return bench::ParseCommandLine(app, argc, argv, exit);
}

model::ModelConfig Config(const std::string& family, char size) {
  model::ModelConfig config;
  config.family = family;
  const bool a = size == 'A';
  config.level_sizes.assign(a ? 4 : 3, a ? 256 : 8192);
  config.d_model = a ? 128 : 256;
  config.heads = a ? 6 : 8;
  config.head_dim = a ? 64 : 32;
  config.encoder = {.layers = 4, .ffn = {.width = 1024, .gated = !a}};
  config.decoder = {.layers = 4, .ffn = {.width = 1024, .gated = !a}};
  if (config.is_t5()) {
    const int32_t end = a ? 4 * 256 : 3 * 8192;
    config.t5 = {
        .vocabulary = a ? 1100 : 24676,
        .activation = a ? model::T5Activation::kRelu : model::T5Activation::kGelu,
        .start = end + 1,
        .end = end,
        .input = {.suffix = std::vector<int32_t>(kTokens % (a ? 4 : 3), end), .max_items = kTokens / (a ? 4 : 3)}};
    model::SetT5Pathway(config);
  } else {
    config.positive.length = kTokens;
    config.positive.fusion = model::InputFusion::kSum;
    config.positive.features = {{.kind = model::FeatureKind::kSid, .shared = true}};
  }
  return config;
}

// Multiply-adds of a request of so many tokens, times two. A level has no more rows than the level before it has nodes.
double Flops(const model::ModelConfig& c, const kernels::TrieView& trie, int beams, int tokens) {
  const double d = c.d_model, inner = c.inner(), ffn = c.encoder.ffn.width * (c.encoder.ffn.gated ? 3.0 : 2.0) * d;
  const double token = c.encoder.layers * (4 * d * inner + ffn + 2 * tokens * inner) + c.decoder.layers * 2 * d * inner;
  double total = tokens * token, rows = 1;
  for (size_t level = 0; level < c.level_sizes.size(); ++level) {
    const double row = c.decoder.layers * (6 * d * inner + ffn + 2 * tokens * inner + 2.0 * level * inner);
    total += rows * (row + d * static_cast<double>(c.is_t5() ? c.t5.vocabulary : c.level_sizes[level]));
    rows = std::min<double>(beams, trie.level[level].num_nodes);
  }
  return 2 * total;
}

// The cpu backend, with a clock around the ops a request spends its time in.
class TimedBackend final : public backend::CpuBackend {
 private:
  template <typename F>
  auto Timed(const char* what, F f) const {
    const double start = Seconds(CLOCK_THREAD_CPUTIME_ID);
    auto result = f();
    seconds_[what] += Seconds(CLOCK_THREAD_CPUTIME_ID) - start;
    return result;
  }

 public:
  using CpuBackend::CpuBackend;
  using Tensor = at::Tensor;
  Tensor FeedForward(backend::Context& ctx, const Tensor& x, const backend::FeedForwardWeights& w) const override {
    return Timed("ffn", [&] { return CpuBackend::FeedForward(ctx, x, w); });
  }
  Tensor SelfAttention(backend::Context& ctx, const Tensor& x, const backend::SelfAttentionWeights& w,
                       const backend::TokenView& view) const override {
    return Timed("encoder attention", [&] { return CpuBackend::SelfAttention(ctx, x, w, view); });
  }
  Tensor ContextKeyValue(backend::Context& ctx, const Tensor& x, const backend::CrossAttentionWeights& w,
                         int64_t batch) const override {
    return Timed("context keys, values", [&] { return CpuBackend::ContextKeyValue(ctx, x, w, batch); });
  }
  Tensor CrossAttention(backend::Context& ctx, const Tensor& x, const backend::CrossAttentionWeights& w,
                        const backend::ContextView& context) const override {
    return Timed("cross attention", [&] { return CpuBackend::CrossAttention(ctx, x, w, context); });
  }
  Tensor LineageAttention(backend::Context& ctx, const Tensor& x, const backend::SelfAttentionWeights& w,
                          const backend::LineageStep& step) const override {
    return Timed("self attention", [&] { return CpuBackend::LineageAttention(ctx, x, w, step); });
  }
  Tensor LevelHead(backend::Context& ctx, const Tensor& x, const backend::HeadWeights& head,
                   const backend::LevelRows& of) const override {
    return Timed("head", [&] { return CpuBackend::LevelHead(ctx, x, head, of); });
  }
  void SelectBeams(backend::Context& ctx, const backend::SelectBeamsArgs& args) const override {
    Timed("selection", [&] { return CpuBackend::SelectBeams(ctx, args), 0; });
  }

  void Clear() const { seconds_.clear(); }
  const std::map<std::string, double>& seconds() const { return seconds_; }

 private:
  mutable std::map<std::string, double> seconds_;  // one thread benches
};

struct Case {
  const model::Model& model;
  const kernels::ConstraintView& constraint;
  int beams, batch;
  int threads = 1, clients = 1;
  std::string lengths = "full";

  int tokens(int request) const { return lengths == "full" ? kTokens : kTokens * (request + 1) / batch; }
};

model::EncoderInput Histories(const Case& c) {
  const model::ModelConfig& config = c.model.config();
  const bool t5 = config.is_t5();
  model::EncoderInput input = model::MakeEncoderInput(config, c.batch, t5 ? kTokens : 0, t5 ? 0 : kTokens);
  std::mt19937 random(1);
  for (int32_t& code : input.pathways[t5 ? model::kShortTerm : model::kPositive].features) {
    code = static_cast<int32_t>(1 + random() % config.level_sizes[0]);
  }
  for (int i = 0; i < c.batch * kTokens; ++i) {
    if (i % kTokens < c.tokens(i / kTokens)) input.order[i] = i % kTokens;
  }
  return input;
}

std::vector<model::ContextHandle> Encode(backend::Context& ctx, const Case& c, const model::EncoderInput& input) {
  model::EncoderBatch batch = model::UploadEncoderInput(ctx, c.model.config(), input);
  if (c.lengths == "padded") {
    batch.packing = {};
    batch.order = backend::UploadInts(ctx, input.order, batch.order.sizes());
  }
  model::EncodedContext encoded = c.model.Encode(ctx, batch);
  model::TakeFirstStep(ctx, c.model, encoded);
  return model::SplitContext(ctx, encoded);
}

void Decode(backend::Context& ctx, const Case& c, const std::vector<model::ContextHandle>& handles) {
  const std::vector<int> widths(c.model.config().level_sizes.size(), c.beams);
  std::vector<const model::ContextHandle*> pointers;
  pointers.reserve(handles.size());
  for (const model::ContextHandle& handle : handles) pointers.push_back(&handle);
  const std::vector<decode::SearchRequest> requests(c.batch, {&c.constraint, widths, ScoreRule::kFull});
  const auto results = decode::BeamSearch(c.model).Run(ctx, model::PackContexts(ctx, pointers), requests,
                                                       [](int) { return absl::OkStatus(); });
  for (const decode::SearchResult& result : results) {
    if (result.status.ok() && static_cast<int>(result.hypotheses.size()) == c.beams) continue;
    std::fprintf(stderr, "a request failed: %s, %zu hypotheses\n", result.status.ToString().c_str(),
                 result.hypotheses.size());
    std::exit(1);
  }
}

struct Timing {
  double request = 1e9;  // seconds, the fastest
  double decode = 1e9;   // of a request whose context is cached
  double gemm = 1e9;     // of the ceiling's product
};

// Seconds per request when several batches run at the same time.
double MeasureThroughput(const backend::Context& shared, const Case& c, const model::EncoderInput& input) {
  constexpr int kRuns = 4;
  const double start = Seconds(CLOCK_MONOTONIC);
  std::vector<std::thread> clients;
  clients.reserve(c.clients);
  for (int client = 0; client < c.clients; ++client) {
    clients.emplace_back([&] {
      const backend::InferenceGuard guard;
      for (int run = 0; run < kRuns; ++run) {
        backend::Context ctx = backend::BeginBatch(shared);
        Decode(ctx, c, Encode(ctx, c, input));
      }
    });
  }
  for (std::thread& client : clients) client.join();
  return (Seconds(CLOCK_MONOTONIC) - start) / (kRuns * c.clients * c.batch);
}

Timing Measure(const Options& options, const backend::Context& shared, const Case& c,
               const bench::GemmLibrary& ceiling) {
  const clockid_t clock = c.threads * c.clients == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
  const model::EncoderInput input = Histories(c);
  Timing timing;
  const double until = Seconds(CLOCK_MONOTONIC) + options.seconds;
  for (int run = 0; run < 7 || Seconds(CLOCK_MONOTONIC) < until; ++run) {
    if (c.clients > 1) {
      timing.request = timing.decode = std::min(timing.request, MeasureThroughput(shared, c, input));
      if (run % 8 == 2) timing.gemm = std::min(timing.gemm, ceiling.seconds());
      continue;
    }
    const double start = Seconds(clock);
    backend::Context ctx = backend::BeginBatch(shared);
    const std::vector<model::ContextHandle> handles = Encode(ctx, c, input);
    const double encoded = Seconds(clock);
    Decode(ctx, c, handles);
    const double end = Seconds(clock);
    if (run < 2) continue;
    timing.request = std::min(timing.request, (end - start) / c.batch);
    timing.decode = std::min(timing.decode, (end - encoded) / c.batch);
    if (run % 8 == 2) timing.gemm = std::min(timing.gemm, ceiling.seconds());
  }
  return timing;
}

void PrintShares(const TimedBackend& timed, const Case& c) {
  backend::Context shared;
  shared.backend = &timed;
  const model::EncoderInput input = Histories(c);
  double start = 0;
  constexpr int kRuns = 5;
  for (int run = 0; run < kRuns; ++run) {
    if (run == 1) {
      timed.Clear();
      start = bench::ThreadSeconds();
    }
    backend::Context ctx = backend::BeginBatch(shared);
    Decode(ctx, c, Encode(ctx, c, input));
  }
  const double total = bench::ThreadSeconds() - start;
  double rest = total;
  std::printf("    ");
  for (const auto& [what, seconds] : timed.seconds()) {
    std::printf("%s %.1f %%, ", what.c_str(), 100 * seconds / total);
    rest -= seconds;
  }
  std::printf("rest %.1f %%\n", 100 * rest / total);
}

// The fastest library, all of them printed.
bench::GemmLibrary MeasureCeilings() {
  bench::GemmLibrary best;
  double fastest = 1e9;
  for (const bench::GemmLibrary& library : bench::GemmLibraries()) {
    double seconds = 1e9;
    for (int run = 0; run < 4; ++run) seconds = std::min(seconds, library.seconds());
    std::printf("2048^3 in fp32 on one thread, %s: %.1f GFLOP/s\n", library.name.c_str(),
                1e-9 * bench::kCeilingFlops / seconds);
    if (seconds >= fastest) continue;
    fastest = seconds;
    best = library;
  }
  return best;
}

void PrintCase(const Timing& timing, const Case& c) {
  double flops = 0;
  for (int i = 0; i < c.batch; ++i) flops += Flops(c.model.config(), c.constraint.trie, c.beams, c.tokens(i)) / c.batch;
  const double ceiling = bench::kCeilingFlops / timing.gemm * c.threads;
  std::printf("%-7s %5d %5d %7d %7d %8.2f %8.2f %6.2f %7.2f %9.1f %7.0f %%\n", c.lengths.c_str(), c.beams, c.batch,
              c.threads, c.clients, timing.request * 1e3, timing.decode * 1e3, timing.request / timing.decode,
              flops * 1e-9, flops / timing.request * 1e-9, 100 * flops / timing.request / ceiling);
}

kernels::Precision PrecisionOf(const std::string& dtype) {
  return dtype == "int8"   ? kernels::Precision::kInt8
         : dtype == "bf16" ? kernels::Precision::kBf16
                           : kernels::Precision::kFp32;
}

int Run(const Options& options) {
  const backend::InferenceGuard guard;
  backend::SetThreads(1);
  const bench::GemmLibrary ceiling = MeasureCeilings();
  std::printf("of GEMM: of the fastest, %s; kernels:", ceiling.name.c_str());
  for (const char* dtype : {"fp32", "bf16", "int8"}) {
    std::printf(" %s %s", dtype, kernels::BestGemm(PrecisionOf(dtype)).name);
  }
  std::printf("\n%-22s %-7s %5s %5s %7s %7s %8s %8s %6s %7s %9s %9s\n", "model", "lengths", "beams", "batch", "threads",
              "clients", "ms", "cached", "ratio", "GFLOP", "GFLOP/s", "of GEMM");
  for (const std::string& family : options.families) {
    for (const std::string& size : options.sizes) {
      const model::ModelConfig config = Config(family, size[0]);
      const auto catalogue = catalogue::GenerateCatalogue({.items = static_cast<uint64_t>(options.items),
                                                           .levels = static_cast<int>(config.level_sizes.size()),
                                                           .codes = config.level_sizes[0]});
      const auto constraint = decode::MakeConstraint(**catalogue, nullptr);
      for (const std::string& name : options.backends) {
        for (const std::string& dtype : options.dtypes) {
          const auto context = backend::MakeContext("cpu", dtype, name);
          if (!context.ok()) continue;  // aten has no int8
          backend::Context ctx = *context;
          const auto model = *model::MakeModel(config, model::InitWeights(ctx, config, 1));
          const TimedBackend timed(PrecisionOf(dtype));
          for (const int threads : options.threads) {
            backend::SetThreads(threads);
            for (const int clients : options.clients) {
              for (const int batch : options.batches) {
                for (const int beams : options.beams) {
                  for (const std::string& lengths : options.lengths) {
                    const Case c{*model, *constraint, beams, batch, threads, clients, lengths};
                    const Timing timing = Measure(options, ctx, c, ceiling);
                    std::printf("%-22s ", absl::StrCat(family, " ", size, " ", name, " ", dtype).c_str());
                    PrintCase(timing, c);
                    if (name == "cpu" && threads * clients == 1) PrintShares(timed, c);
                    std::fflush(stdout);
                  }
                }
              }
            }
          }
        }
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace beamline

int main(int argc, char** argv) {
  beamline::Options options;
  int exit = 0;
  return beamline::ReadOptions(argc, argv, options, exit) ? beamline::Run(options) : exit;
}
