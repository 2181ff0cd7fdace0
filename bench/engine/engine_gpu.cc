// SPDX-License-Identifier: Apache-2.0
//
// Encode and constrained beam search of whole requests on the cuda backend, without server and scheduler: what
// ModelRunner does for a batch, host work and copies included. Models with random weights, made on the device:
//   1.02B   onerec_v1, d 1536, 12 heads of 128, SwiGLU 4096, 16 + 14 layers
//   0.13B   onerec_v1, d 768, 6 heads of 128, SwiGLU 2048, 8 + 6 layers
//   0.935B  the paper's preset: 1 + 20 + 256 tokens, 24 experts in the decoder, of which two work for a row
//   trunk   1.02B whose first 10 of 14 decoder layers run once per request
//   t5      d 256, 8 heads of 32, gated FFN 1024, 4 + 4 layers
//   ranked  0.13B with a ranker of width 256 and four heads
// Contexts of 512 tokens where nothing else is said (t5: 80), SIDs of 3 x 8192, beams of 512. Useful work is counted as
// in the design's table: products and attention of the rows that a request needs, one in the first decode step and a
// beam's width afterwards.
//
// beamline_engine_gpu_bench --help has the options. Prints one JSON object per line: the ceilings (device copy, bf16
// product of 8192^3), then per case the median and P99 of a batch in ms, the median of one whose contexts are cached,
// requests per second of both kinds, measured one after the other, the share of the product's rate of the first, what
// the case took of the device's memory beyond the cases before it (activations, graphs, workers), and of how many nodes
// of each kind the graphs are that were made for it.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <latch>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <CLI/CLI.hpp>
#include <cuda_profiler_api.h>
#include <cuda_runtime_api.h>

#include "absl/strings/str_cat.h"
#include "backend/backend.h"
#include "backend/context.h"
#include "catalogue/generate.h"
#include "command_line.h"
#include "decode/beam_search.h"
#include "decode/trie_constraint.h"
#include "model/model.h"
#include "model/weight_schema.h"

namespace beamline {
namespace {

double Now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Options {
  std::vector<std::string> models = {"1.02B", "0.13B", "0.935B", "trunk", "t5", "ranked"}, dtypes = {"bf16", "fp8"};
  std::vector<int> batches = {1, 8}, clients = {1, 2};
  int beams = 512, profile = 0;
  double seconds = 2;
  int64_t items = 100000;
};

// Exit status in `exit` where there is nothing to run.
bool ReadOptions(int argc, char** argv, Options& options, int& exit) {
  CLI::App app(
      "Times encode and beam search of whole requests on a GPU, of random weights, without server and scheduler",
      "beamline_engine_gpu_bench");
  app.footer(
      R"(A JSON object per line: the ceilings, then a case each. p50_ms and p99_ms are of a batch, cached_* of one whose contexts are
cached, of_matmul is the share of the rate of a bf16 product of 8192^3, device_mb what the case took beyond those before it.
Of the graphs that were made for it graph_kernels, graph_memsets and graph_others count the nodes; others copy, wait or allocate.
With BEAMLINE_GRAPH_FOLDER=FOLDER in the environment each graph's nodes are written there, as a file for Graphviz' dot.

  beamline_engine_gpu_bench --models 1.02B --dtypes bf16 --batches 1
  ncu --profile-from-start off beamline_engine_gpu_bench --models 0.13B --dtypes bf16 --batches 1 --clients 1 --profile 1)");
  const auto list = [&app](const char* name, auto& to, const char* what) {
    return app.add_option(name, to, what)->delimiter(',')->capture_default_str();
  };
  list("--models", options.models, "Models")
      ->check(CLI::IsMember({"1.02B", "0.13B", "0.935B", "trunk", "t5", "ranked"}));
  list("--dtypes", options.dtypes, "Types")->check(CLI::IsMember({"fp32", "bf16", "fp16", "fp8", "fp8_mixed"}));
  list("--batches", options.batches, "Requests of a batch")->check(CLI::Range(1, 4096));
  list("--clients", options.clients, "Threads that run batches at the same time, each with a stream")
      ->check(CLI::Range(1, 64));
  app.add_option("--beams", options.beams, "Beams of a request")->check(CLI::Range(1, 65536))->capture_default_str();
  app.add_option("--items", options.items, "Items of the catalogue")
      ->check(CLI::Range(int64_t{1024}, int64_t{100'000'000}))
      ->capture_default_str();
  app.add_option("--seconds", options.seconds, "Of each case")->check(CLI::Range(0.0, 3600.0))->capture_default_str();
  app.add_option("--profile", options.profile,
                 "After the warm-up so many batches of the first case between cudaProfilerStart and -Stop, and nothing "
                 "else; 0: off")
      ->check(CLI::Range(0, 1000));
  return bench::ParseCommandLine(app, argc, argv, exit);
}

constexpr int kContextTokens = 512;

model::ModelConfig Config(const std::string& name) {
  model::ModelConfig config;
  if (const auto preset = model::PresetConfig({.name = name}); preset.ok()) return *preset;
  config.level_sizes = {8192, 8192, 8192};
  if (name == "t5") {
    config.family = model::kT5;
    config.d_model = 256, config.heads = 8, config.head_dim = 32;
    config.encoder = {.layers = 4, .ffn = {.width = 1024}};
    config.decoder = {.layers = 4, .ffn = {.width = 1024}};
    const int32_t end = 3 * 8192;
    config.t5 = {.vocabulary = end + 2,
                 .activation = model::T5Activation::kGelu,
                 .start = end + 1,
                 .end = end,
                 .input = {.suffix = {end, end}, .max_items = 26}};
    model::SetT5Pathway(config);
    return config;
  }
  config.positive.length = kContextTokens;
  config.positive.fusion = model::InputFusion::kSum;
  config.positive.features = {{.kind = model::FeatureKind::kSid, .shared = true}};
  const bool ranked = name == "ranked", small = ranked || name == "0.13B";
  config.d_model = small ? 768 : 1536;
  config.heads = small ? 6 : 12;
  config.head_dim = 128;
  config.encoder = {.layers = small ? 8 : 16, .ffn = {.width = small ? 2048 : 4096}};
  config.decoder = {.layers = small ? 6 : 14, .ffn = {.width = small ? 2048 : 4096}};
  if (name == "trunk") config.decoder.trunk_layers = 10;
  if (ranked) config.ranker = {.width = 256, .heads = {{kClick, 0.2}, {kLike, 1}, {kFollow, 2}, {kLongView, 1}}};
  return config;
}

// Made where they are used: on the host a billion normal values take longer than the bench.
model::Weights RandomWeights(const backend::Context& ctx, const model::ModelConfig& config) {
  model::Weights weights;
  for (const model::WeightSpec& spec : model::WeightSchema(config)) {
    const at::TensorOptions fp32 = at::device(ctx.device).dtype(at::kFloat);
    at::Tensor values = spec.initializer == model::Initializer::kNormal ? at::randn(spec.shape, fp32).mul_(spec.stddev)
                        : spec.initializer == model::Initializer::kOnes ? at::full(spec.shape, 1.0, fp32)
                                                                        : at::zeros(spec.shape, fp32);
    weights.Set(spec.name, spec.role == model::WeightRole::kBuffer ? values : values.to(ctx.dtype));
  }
  cudaDeviceSynchronize();  // the backend's streams do not wait for the one that made them
  return weights;
}

// Multiply-adds that one request needs, times two (design: useful work). Rows of step 1: one; later: beams.
double Flops(const model::ModelConfig& c, int tokens, int beams) {
  const double d = c.d_model, inner = c.inner();
  const auto ffn = [&](const model::FeedForwardConfig& f) {
    return f.width * (f.gated || f.experts > 0 ? 3.0 : 2.0) * d * (f.experts > 0 ? f.top_k + f.shared_experts : 1);
  };
  const double encoder = c.encoder.layers * (4 * d * inner + ffn(c.encoder.ffn) + 2 * tokens * inner);
  double total = tokens * (encoder + c.decoder.layers * 2 * d * inner);
  const int own = c.decoder.layers - c.decoder.trunk_layers;
  const double layer = 6 * d * inner + ffn(c.decoder.ffn) + 2 * tokens * inner;
  const double head = d * (c.is_t5() ? c.t5.vocabulary : c.level_sizes[0]);
  const double beamwise = 1 + static_cast<double>(beams) * (c.levels() - 1);
  total += c.decoder.trunk_layers * layer * c.levels() + own * layer * beamwise + head * beamwise;
  return 2 * total;
}

struct Case {
  const std::string name;
  const model::Model& model;
  const kernels::ConstraintView& constraint;
  int beams, batch, clients;
};

// As long as the model takes them. Ids are small where a pathway has features besides codes, whose tables are.
model::EncoderInput Histories(const model::ModelConfig& config, int batch, uint32_t seed) {
  model::EncoderInput input = model::MakeEncoderInput(config, batch, config.short_term.length, config.positive.length);
  std::mt19937 random(seed);
  for (int p = 0; p < model::kPathways; ++p) {
    const model::PathwayConfig& pathway = p == model::kShortTerm ? config.short_term : config.positive;
    const uint32_t ids = pathway.features.size() > 1 ? 16 : config.level_sizes[0];
    for (int32_t& id : input.pathways[p].features) id = static_cast<int32_t>(1 + random() % ids);
  }
  const int tokens = input.tokens(config), first = config.user.enabled ? 1 : 0;
  for (size_t i = 0; i < input.order.size(); ++i) {
    if (static_cast<int>(i % tokens) >= first) input.order[i] = static_cast<int32_t>(i % tokens);
  }
  return input;
}

std::vector<model::ContextHandle> EncodeIn(backend::Context& ctx, const Case& c, const model::EncoderInput& input) {
  model::EncodedContext encoded =
      model::EncodePass(ctx, c.model, model::UploadEncoderInput(ctx, c.model.config(), input));
  model::TakeFirstStep(ctx, c.model, encoded);
  return model::SplitContext(ctx, encoded);
}

void DecodeIn(backend::Context& ctx, const Case& c, const std::vector<model::ContextHandle>& handles) {
  const std::vector<int> widths(c.model.config().levels(), c.beams);
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

std::vector<model::ContextHandle> Encode(const backend::Context& shared, const Case& c,
                                         const model::EncoderInput& input) {
  backend::Context ctx = backend::BeginBatch(shared);
  return EncodeIn(ctx, c, input);
}

// All that a request costs whose context is cached.
void Decode(const backend::Context& shared, const Case& c, const std::vector<model::ContextHandle>& handles) {
  backend::Context ctx = backend::BeginBatch(shared);
  DecodeIn(ctx, c, handles);
}

// As ModelRunner does: on an idle device the decode follows the encode by itself, beside others each is a batch.
void RunBatch(const backend::Context& shared, const Case& c, const model::EncoderInput& input) {
  if (c.clients > 1) return Decode(shared, c, Encode(shared, c, input));
  backend::Context ctx = backend::BeginBatch(shared);
  const std::vector<model::ContextHandle> handles = EncodeIn(ctx, c, input);
  backend::MarkBatch(ctx);
  DecodeIn(ctx, c, handles);
}

// Seconds of each call of `run`, for that long.
std::vector<double> TimesFor(double seconds, const std::function<void()>& run) {
  std::vector<double> times;
  const double until = Now() + seconds;
  do {
    const double begun = Now();
    run();
    times.push_back(Now() - begun);
  } while (Now() < until);
  return times;
}

double Percentile(std::vector<double> values, double p) {
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(p * static_cast<double>(values.size())))];
}

constexpr int kWarmUpBatches = 6;  // a pass is captured at its second run; and algorithms are tuned

double FreeMegabytes() {
  size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  return 1e-6 * static_cast<double>(free);
}

// Of the graphs made since then.
std::string NodesSince(const DevicePasses& before, const DevicePasses& now) {
  return absl::StrCat("\"graphs\": ", now.captured - before.captured,
                      ", \"graph_kernels\": ", now.kernel_nodes - before.kernel_nodes,
                      ", \"graph_memsets\": ", now.memset_nodes - before.memset_nodes,
                      ", \"graph_others\": ", now.other_nodes - before.other_nodes);
}

void Measure(const Options& options, const backend::Context& shared, const Case& c, double ceiling) {
  const double free_before = FreeMegabytes();
  const DevicePasses passes_before = *shared.backend->GetDevicePasses();
  struct Client {
    std::vector<double> all, cached;
  };
  std::vector<Client> clients(c.clients);
  std::vector<std::thread> threads;
  const double warm_start = Now();
  for (int i = 0; i < kWarmUpBatches; ++i) RunBatch(shared, c, Histories(c.model.config(), c.batch, 7));
  const double warm_up = Now() - warm_start;
  if (options.profile > 0) {
    cudaProfilerStart();
    for (int i = 0; i < options.profile; ++i) RunBatch(shared, c, Histories(c.model.config(), c.batch, i));
    cudaProfilerStop();
    std::exit(0);
  }
  // Rates are added up: whoever began early or ended late would have had the device to itself.
  std::latch warm(c.clients), encoded(c.clients);
  threads.reserve(c.clients);
  for (int client = 0; client < c.clients; ++client) {
    threads.emplace_back([&, client] {
      const backend::InferenceGuard guard;
      const model::EncoderInput input = Histories(c.model.config(), c.batch, client);
      if (client > 0) {
        for (int i = 0; i < kWarmUpBatches; ++i) RunBatch(shared, c, input);
      }
      warm.arrive_and_wait();
      clients[client].all = TimesFor(options.seconds, [&] { RunBatch(shared, c, input); });
      const std::vector<model::ContextHandle> handles = Encode(shared, c, input);
      encoded.arrive_and_wait();
      clients[client].cached = TimesFor(options.seconds / 2.0, [&] { Decode(shared, c, handles); });
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::vector<double> all, cached;
  double rate = 0, cached_rate = 0;
  const auto add = [&](const std::vector<double>& times, std::vector<double>& to, double& to_rate) {
    to.insert(to.end(), times.begin(), times.end());
    to_rate += c.batch * static_cast<double>(times.size()) / std::accumulate(times.begin(), times.end(), 0.0);
  };
  for (const Client& client : clients) {
    add(client.all, all, rate);
    add(client.cached, cached, cached_rate);
  }
  const double flops = Flops(c.model.config(), c.model.config().max_tokens(), c.beams);
  std::printf(
      "{\"engine\": \"%s\", \"batch\": %d, \"clients\": %d, \"beams\": %d, \"batches\": %zu, \"p50_ms\": %.3f, "
      "\"p99_ms\": %.3f, \"cached_p50_ms\": %.3f, \"requests_per_s\": %.1f, \"cached_requests_per_s\": %.1f, "
      "\"gflop\": %.0f, \"of_matmul\": %.3f, \"warm_up_s\": %.1f, \"device_mb\": %.0f, %s}\n",
      c.name.c_str(), c.batch, c.clients, c.beams, all.size(), 1e3 * Percentile(all, .5), 1e3 * Percentile(all, .99),
      1e3 * Percentile(cached, .5), rate, cached_rate, 1e-9 * flops, rate * flops / ceiling, warm_up,
      free_before - FreeMegabytes(), NodesSince(passes_before, *shared.backend->GetDevicePasses()).c_str());
  std::fflush(stdout);
}

// FLOP/s of a bf16 product of 8192^3 on random values, the median of 20.
double MeasureCeilings(c10::Device device) {
  const at::TensorOptions bf16 = at::device(device).dtype(at::kBFloat16);
  const at::Tensor a = at::randn({8192, 8192}, bf16), b = at::randn({8192, 8192}, bf16);
  const at::Tensor from = at::empty({int64_t{1} << 31}, at::device(device).dtype(at::kByte)), to = at::empty_like(from);
  cudaEvent_t begin = nullptr, end = nullptr;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  const cudaStream_t stream = nullptr;  // libtorch's, too, on this thread
  const auto median = [&](auto work) {
    std::vector<double> times;
    for (int i = 0; i < 23; ++i) {
      cudaEventRecord(begin, stream);
      work();
      cudaEventRecord(end, stream);
      cudaEventSynchronize(end);
      float ms = 0;
      cudaEventElapsedTime(&ms, begin, end);
      if (i >= 3) times.push_back(1e-3 * ms);
    }
    return Percentile(times, .5);
  };
  const double product = median([&] { at::matmul(a, b); });
  const double copy = median([&] { to.copy_(from); });
  const double rate = 2.0 * 8192 * 8192 * 8192 / product;
  std::printf("{\"ceiling\": \"matmul\", \"tflop_per_s\": %.0f}\n{\"ceiling\": \"copy\", \"gb_per_s\": %.0f}\n",
              rate * 1e-12, 2e-9 * static_cast<double>(from.nbytes()) / copy);
  return rate;
}

int Run(const Options& options) {
  const backend::InferenceGuard guard;
  const auto device = backend::MakeContext("cuda", "fp32", "cuda");
  if (!device.ok()) {
    std::fprintf(stderr, "%s\n", device.status().ToString().c_str());
    return 1;
  }
  const double ceiling = MeasureCeilings(device->device);
  const auto catalogue =
      catalogue::GenerateCatalogue({.items = static_cast<uint64_t>(options.items), .levels = 3, .codes = 8192});
  const auto constraint = decode::MakeConstraint(**catalogue, nullptr);
  for (const std::string& name : options.models) {
    for (const std::string& dtype : options.dtypes) {
      auto context = backend::MakeContext("cuda", dtype, "cuda");
      if (!context.ok()) {
        std::fprintf(stderr, "%s: %s\n", dtype.c_str(), context.status().ToString().c_str());
        return 1;
      }
      context->workers = context->backend->NewWorkers();  // which end with the model, as in ModelRunner
      const model::ModelConfig config = Config(name);
      const auto model = model::MakeModel(config, RandomWeights(*context, config));
      if (!model.ok()) {
        std::fprintf(stderr, "%s: %s\n", name.c_str(), model.status().ToString().c_str());
        return 1;
      }
      for (const int batch : options.batches) {
        for (const int clients : options.clients) {
          Measure(options, *context, {name + " " + dtype, **model, *constraint, options.beams, batch, clients},
                  ceiling);
        }
      }
      context->backend->ReleaseUnusedWeights();
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
