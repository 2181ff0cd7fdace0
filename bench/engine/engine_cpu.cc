// SPDX-License-Identifier: Apache-2.0
//
// Encode and constrained beam search of whole requests on the cpu and the aten backend, without server and scheduler.
// Models with random weights, of the shapes that TIGER- and LETTER-like recommenders have:
//   A  d 128, 6 x 64 heads, FFN 1024, 4 + 4 layers, SIDs of 4 x 256
//   B  d 256, 8 x 32 heads, gated FFN 1024, 4 + 4 layers, SIDs of 3 x 8192
// 80 history tokens, 10,000 items. Milliseconds per request; the share that the request's arithmetic reaches of a large
// matrix product's rate (2048 x 512 x 2048, times the threads), both measured in turns; and where the time goes.
//
//   beamline_engine_cpu_bench [--sizes AB] [--beams 20,50,128,512] [--batches 1,16] [--threads 1,2] [--seconds 1]
//                             [--backends cpu,aten] [--items 10000]
//
// One thread is timed in CPU seconds of the thread, so that other work on the machine disturbs little; more threads in
// wall-clock seconds: measure those on a quiet machine.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "backend/cpu/cpu_backend.h"
#include "beamline/kernels/vector_ops.h"
#include "catalogue/generate.h"
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
clockid_t ClockFor(int threads) { return threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC; }

struct Options {
  std::string sizes = "AB";
  std::vector<int> beams = {20, 50, 128, 512}, batches = {1, 16}, threads = {1, 2};
  std::vector<std::string> backends = {"cpu", "aten"};
  double seconds = 1;
  int64_t items = 10000;
};

model::ModelConfig Config(char size) {
  model::ModelConfig config;
  const bool a = size == 'A';
  config.level_sizes.assign(a ? 4 : 3, a ? 256 : 8192);
  config.d_model = a ? 128 : 256;
  config.heads = a ? 6 : 8;
  config.head_dim = a ? 64 : 32;
  config.positive.length = kTokens;
  config.positive.fusion = model::InputFusion::kSum;
  config.positive.features = {{.kind = model::FeatureKind::kSid, .shared = true}};
  config.encoder = {.layers = 4, .ffn = {.width = 1024, .gated = !a}};
  config.decoder = {.layers = 4, .ffn = {.width = 1024, .gated = !a}};
  return config;
}

// Multiply-adds of one request, times two.
double Flops(const model::ModelConfig& c, int beams) {
  const double d = c.d_model, inner = c.inner(), ffn = c.encoder.ffn.width * (c.encoder.ffn.gated ? 3.0 : 2.0) * d;
  const double token =
      c.encoder.layers * (4 * d * inner + ffn + 2 * kTokens * inner) + c.decoder.layers * 2 * d * inner;
  double total = kTokens * token, rows = 1;
  for (size_t level = 0; level < c.level_sizes.size(); ++level) {
    const double row = c.decoder.layers * (6 * d * inner + ffn + 2 * kTokens * inner + 2.0 * level * inner);
    total += rows * (row + d * c.level_sizes[level]);
    rows = beams;
  }
  return 2 * total;
}

// Seconds of a large product that no cache holds, one thread: 2048 x 512 x 2048, where this kernel is as fast as it
// gets.
constexpr int64_t kGemmSize = 2048, kGemmDepth = 512;
double GemmSeconds() {
  constexpr int64_t n = kGemmSize, k = kGemmDepth;
  static std::vector<float> a(n * k, 0.5f), packed(kernels::PackedFloats(n, k), 0.25f), c(n * n);
  const double start = Seconds(CLOCK_THREAD_CPUTIME_ID);
  kernels::BestVectorOps().gemm({.a = a.data(),
                                 .lda = k,
                                 .m = n,
                                 .k = k,
                                 .b = packed.data(),
                                 .n = n,
                                 .c = c.data(),
                                 .ldc = n,
                                 .panel_begin = 0,
                                 .panel_end = kernels::PanelCount(n)});
  return Seconds(CLOCK_THREAD_CPUTIME_ID) - start;
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
  using Tensor = at::Tensor;
  Tensor FeedForward(backend::Context& ctx, const Tensor& x, const backend::FeedForwardWeights& w) const override {
    return Timed("ffn", [&] { return CpuBackend::FeedForward(ctx, x, w); });
  }
  Tensor SelfAttention(backend::Context& ctx, const Tensor& x, const backend::SelfAttentionWeights& w,
                       const Tensor& mask) const override {
    return Timed("encoder attention", [&] { return CpuBackend::SelfAttention(ctx, x, w, mask); });
  }
  Tensor ContextKeyValue(backend::Context& ctx, const Tensor& x, const backend::CrossAttentionWeights& w,
                         int64_t batch) const override {
    return Timed("context keys, values", [&] { return CpuBackend::ContextKeyValue(ctx, x, w, batch); });
  }
  Tensor CrossAttention(backend::Context& ctx, const Tensor& x, const backend::CrossAttentionWeights& w,
                        const Tensor& context, const Tensor& mask) const override {
    return Timed("cross attention", [&] { return CpuBackend::CrossAttention(ctx, x, w, context, mask); });
  }
  Tensor LineageAttention(backend::Context& ctx, const Tensor& x, const backend::SelfAttentionWeights& w, int64_t batch,
                          const Tensor& lineage, bool last, backend::LineageCache& cache) const override {
    return Timed("self attention",
                 [&] { return CpuBackend::LineageAttention(ctx, x, w, batch, lineage, last, cache); });
  }
  Tensor LevelHead(backend::Context& ctx, const Tensor& x, const backend::HeadWeights& head, int levels, int level,
                   int64_t batch) const override {
    return Timed("head", [&] { return CpuBackend::LevelHead(ctx, x, head, levels, level, batch); });
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
};

model::EncoderInput Histories(const model::ModelConfig& config, int batch) {
  model::EncoderInput input = model::MakeEncoderInput(config, batch, 0, kTokens);
  std::mt19937 random(1);
  for (int32_t& code : input.pathways[model::kPositive].features) code = 1 + random() % config.level_sizes[0];
  for (size_t i = 0; i < input.order.size(); ++i) input.order[i] = static_cast<int32_t>(i % kTokens);
  return input;
}

void RunBatch(const backend::Context& shared, const Case& c, const model::EncoderInput& input) {
  backend::Context ctx = backend::BeginBatch(shared);
  const std::vector<int> widths(c.model.config().level_sizes.size(), c.beams);
  const model::EncodedContext encoded = c.model.Encode(ctx, model::UploadEncoderInput(ctx, c.model.config(), input));
  const std::vector<model::ContextHandle> handles = model::SplitContext(ctx, encoded);
  std::vector<const model::ContextHandle*> pointers;
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
  double gemm = 1e9;
};

Timing Measure(const Options& options, const backend::Context& ctx, const Case& c, int threads) {
  const model::EncoderInput input = Histories(c.model.config(), c.batch);
  for (int warm_up = 0; warm_up < 2; ++warm_up) RunBatch(ctx, c, input);
  Timing timing;
  const double until = Seconds(CLOCK_MONOTONIC) + options.seconds;
  for (int run = 0; run < 5 || Seconds(CLOCK_MONOTONIC) < until; ++run) {
    const double start = Seconds(ClockFor(threads));
    RunBatch(ctx, c, input);
    timing.request = std::min(timing.request, (Seconds(ClockFor(threads)) - start) / c.batch);
    if (run % 4 == 0) timing.gemm = std::min(timing.gemm, GemmSeconds());
  }
  return timing;
}

void PrintShares(const backend::Context& ctx, const Case& c) {
  static const TimedBackend* const timed = new TimedBackend;
  backend::Context timed_ctx = ctx;
  timed_ctx.backend = timed;
  const model::EncoderInput input = Histories(c.model.config(), c.batch);
  RunBatch(timed_ctx, c, input);
  timed->Clear();
  const double start = Seconds(CLOCK_THREAD_CPUTIME_ID);
  for (int run = 0; run < 4; ++run) RunBatch(timed_ctx, c, input);
  const double total = Seconds(CLOCK_THREAD_CPUTIME_ID) - start;
  double rest = total;
  std::printf("    ");
  for (const auto& [what, seconds] : timed->seconds()) {
    std::printf("%s %.1f %%, ", what.c_str(), 100 * seconds / total);
    rest -= seconds;
  }
  std::printf("rest %.1f %%\n", 100 * rest / total);
}

int Run(const Options& options) {
  const backend::InferenceGuard guard;
  std::printf("vector kernels: %s\n%-5s %-5s %5s %5s %7s %10s %9s %12s\n", kernels::BestVectorOps().name, "size",
              "back", "beams", "batch", "threads", "ms/request", "GFLOP/s", "of GEMM");
  for (const char size : options.sizes) {
    const model::ModelConfig config = Config(size);
    const auto catalogue = catalogue::GenerateCatalogue({.items = static_cast<uint64_t>(options.items),
                                                         .levels = static_cast<int>(config.level_sizes.size()),
                                                         .codes = config.level_sizes[0]});
    const auto constraint = decode::MakeConstraint(**catalogue, nullptr);
    for (const std::string& name : options.backends) {
      for (const int threads : options.threads) {
        backend::SetThreads(threads);
        backend::Context ctx = *backend::MakeContext("cpu", "fp32", name);
        const auto model = *model::MakeModel(config, model::InitWeights(ctx, config, 1));
        for (const int batch : options.batches) {
          for (const int beams : options.beams) {
            const Case c{*model, *constraint, beams, batch};
            const Timing timing = Measure(options, ctx, c, threads);
            const double rate = Flops(config, beams) / timing.request * 1e-9;
            const double ceiling = 2e-9 * kGemmSize * kGemmSize * kGemmDepth / timing.gemm * threads;
            std::printf("%-5c %-5s %5d %5d %7d %10.2f %9.1f %10.0f %%\n", size, name.c_str(), beams, batch, threads,
                        timing.request * 1e3, rate, 100 * rate / ceiling);
            if (name == "cpu" && threads == 1) PrintShares(ctx, c);
            std::fflush(stdout);
          }
        }
      }
    }
  }
  return 0;
}

std::vector<int> Ints(const std::string& text) {
  std::vector<int> values;
  for (const auto part : absl::StrSplit(text, ',')) {
    int value = 0;
    if (!absl::SimpleAtoi(part, &value) || value < 1) {
      std::fprintf(stderr, "not a list of positive numbers: %s\n", text.c_str());
      std::exit(2);
    }
    values.push_back(value);
  }
  return values;
}

int Main(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i], value = argv[i + 1];
    if (flag == "--sizes")
      options.sizes = value;
    else if (flag == "--beams")
      options.beams = Ints(value);
    else if (flag == "--batches")
      options.batches = Ints(value);
    else if (flag == "--threads")
      options.threads = Ints(value);
    else if (flag == "--seconds")
      options.seconds = Ints(value)[0];
    else if (flag == "--items")
      options.items = Ints(value)[0];
    else if (flag == "--backends")
      options.backends = absl::StrSplit(value, ',');
    else
      argc = 0;
  }
  if (argc % 2 == 0 || options.sizes.find_first_not_of("AB") != std::string::npos) {
    std::fprintf(stderr, "see the head of bench/engine/engine_cpu.cc for the options\n");
    return 2;
  }
  return Run(options);
}

}  // namespace
}  // namespace beamline

int main(int argc, char** argv) { return beamline::Main(argc, argv); }
