// SPDX-License-Identifier: Apache-2.0
//
// Beamline as one of the peers of bench/peers: the embedded engine, without gRPC, behind the JSON lines that
// bench/peers/peer.py describes. Requests go in as items of a history and come back as ranked items: preparation,
// scheduler, search and the resolution of SIDs are all inside the clock.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/blocking_counter.h"
#include "base/json.h"
#include "beamline/engine.h"
#include "beamline/kernels/packed_gemm.h"
#include "beamline/kernels/vector_ops.h"
#include "beamline/status.h"

namespace beamline {
namespace {

using nlohmann::json;

// How 16 requests at once are served: batches of `group` on `workers` threads of the scheduler, which share `threads`
// cores.
struct Setting {
  int workers = 1;
  int group = 1;

  json ToJson() const { return {{"workers", workers}, {"group", group}}; }
};

constexpr int kTrials = 2;

// Groups that fill up: one that does not waits for others first.
std::vector<Setting> Settings(int batch, int threads, bool on_cuda) {
  if (batch == 1) return {{1, 1}};
  std::vector<Setting> settings = {{1, batch}};
  if (on_cuda) {
    settings.push_back({2, batch / 2});  // one encodes while the other decodes
  } else {
    settings.insert(settings.end(), {{1, 1}, {1, 4}});
    if (threads > 1) settings.insert(settings.end(), {{threads, 1}, {threads, batch / threads}});
  }
  std::erase_if(settings, [&](const Setting& setting) { return setting.group < 1 || batch % setting.group != 0; });
  return settings;
}

class Peer {
 public:
  absl::StatusOr<json> Answer(const json& question) {
    const std::string what = question.at("do");
    if (what == "load") return Load(question);
    if (what == "cell") return Cell(question.at("beams"), question.at("batch"));
    if (what == "answer") return Lists(question.at("requests"));
    if (what == "run") return Run(question);
    return absl::InvalidArgumentError(absl::StrCat("do: '", what, "' is unknown"));
  }

 private:
  absl::StatusOr<json> Load(const json& question) {
    folder_ = question.at("folder");
    threads_ = question.at("threads");
    cached_ = question.at("options").value("cached", false);
    dtype_ = question.at("options").value("dtype", "fp32");
    on_cuda_ = question.at("options").value("device", "cpu") == "cuda";
    JsonLimits limits;
    limits.max_elements = 64'000'000;
    BEAMLINE_ASSIGN_OR_RETURN(const json workload, ReadJsonFile(folder_ + "/workload.json", limits));
    histories_ = workload.at("histories");
    code_tokens_ = workload.at("code_tokens");
    json versions{{"kernels", kernels::BestVectorOps().name}};
    using kernels::Precision;
    for (const auto& [name, precision] :
         {std::pair("fp32", Precision::kFp32), {"bf16", Precision::kBf16}, {"int8", Precision::kInt8}}) {
      versions[absl::StrCat("kernels ", name)] = kernels::BestGemm(precision).name;
    }
    return json{{"versions", versions}};
  }

  absl::Status Start(const Setting& setting) {
    engine_.reset();
    EngineOptions options;
    options.bundle = folder_ + "/beamline";
    options.device = on_cuda_ ? "cuda" : "cpu";
    options.backend = options.device;
    options.dtype = dtype_;
    options.threads = threads_;
    options.workers = setting.workers;
    options.max_batch_requests = setting.group;
    // On the CPU a batch is full by its requests alone; on a GPU the rows are what storage is kept for.
    options.max_batch_rows = on_cuda_ ? setting.group * beams_ : 1 << 16;
    options.max_queue_delay = setting.group == 1 ? absl::ZeroDuration() : absl::Seconds(1);
    options.default_deadline = absl::Minutes(30);
    options.context_cache_bytes = cached_ ? int64_t{1} << 30 : 0;
    BEAMLINE_ASSIGN_OR_RETURN(engine_, CreateEngine(options));
    return absl::OkStatus();
  }

  // Takes the fastest setting; the first batch of each is not counted.
  absl::StatusOr<json> Cell(int beams, int batch) {
    beams_ = beams;
    batch_ = batch;
    json tried = json::array();
    Setting best;
    double fastest = 0;
    const std::vector<Setting> settings = Settings(batch, threads_, on_cuda_);
    for (const Setting& setting : settings) {
      BEAMLINE_RETURN_IF_ERROR(Start(setting));
      BEAMLINE_RETURN_IF_ERROR(Batch(0).status());
      double seconds = 0;
      for (int run = 0; run < kTrials; ++run) {
        BEAMLINE_ASSIGN_OR_RETURN(const double once, Batch(batch * (run + 1)));
        seconds = run == 0 ? once : std::min(seconds, once);
      }
      tried.push_back({{"setting", setting.ToJson()}, {"ms", 1e3 * seconds / batch}});
      if (fastest != 0 && seconds >= fastest) continue;
      fastest = seconds;
      best = setting;
    }
    if (settings.size() > 1) BEAMLINE_RETURN_IF_ERROR(Start(best));
    // Where contexts are cached, all of them.
    for (size_t first = 0; first < histories_.size(); first += batch) {
      BEAMLINE_RETURN_IF_ERROR(Batch(first).status());
      if (!cached_) break;
    }
    return json{{"setting", best.ToJson()}, {"tried", tried}, {"requests_per_run", batch}};
  }

  RecommendRequest Request(size_t index) const {
    RecommendRequest request;
    index %= histories_.size();
    if (cached_) request.user_id = absl::StrCat("user", index);
    for (const ItemId item : histories_[index]) request.history.push_back({.item = item});
    request.top_k = beams_;
    request.beam_widths = {beams_};
    return request;
  }

  // Submits requests at once; seconds until the last answer, which are then in results_.
  absl::StatusOr<double> Submit(std::vector<RecommendRequest> requests) {
    const int count = static_cast<int>(requests.size());
    results_.assign(count, absl::UnknownError("no answer"));
    absl::BlockingCounter left(count);
    const auto company = std::make_shared<Company>(count);
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < count; ++i) {
      requests[i].company = company;
      engine_->Submit(std::move(requests[i]), [this, i, &left](absl::StatusOr<RecommendResult> result) {
        results_[i] = std::move(result);
        left.DecrementCount();
      });
    }
    left.Wait();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    for (const auto& result : results_) BEAMLINE_RETURN_IF_ERROR(result.status());
    return elapsed.count();
  }

  absl::StatusOr<double> Batch(size_t first) {
    std::vector<RecommendRequest> requests;
    requests.reserve(batch_);
    for (int i = 0; i < batch_; ++i) requests.push_back(Request(first + i));
    return Submit(std::move(requests));
  }

  absl::StatusOr<json> Lists(const std::vector<size_t>& indices) {
    std::vector<RecommendRequest> requests;
    requests.reserve(indices.size());
    for (const size_t index : indices) requests.push_back(Request(index));
    BEAMLINE_RETURN_IF_ERROR(Submit(std::move(requests)).status());
    json lists = json::array();
    for (const auto& result : results_) {
      json list = json::array();
      for (const RecommendedItem& item : result->items) {
        std::vector<int> tokens;
        tokens.reserve(item.sid.levels());
        for (int level = 0; level < item.sid.levels(); ++level) tokens.push_back(code_tokens_[level][item.sid[level]]);
        list.push_back({tokens, item.score});
      }
      lists.push_back(std::move(list));
    }
    return json{{"lists", std::move(lists)}};
  }

  absl::StatusOr<json> Run(const json& question) {
    size_t first = question.at("first");
    const int least = question.at("least");
    const std::chrono::duration<double> span(question.at("seconds"));
    const auto until = std::chrono::steady_clock::now() + span;
    std::vector<double> milliseconds;
    while (static_cast<int>(milliseconds.size()) < least || std::chrono::steady_clock::now() < until) {
      BEAMLINE_ASSIGN_OR_RETURN(const double seconds, Batch(first));
      milliseconds.push_back(1e3 * seconds / batch_);
      first += batch_;
    }
    return json{{"ms", milliseconds}};
  }

  std::string folder_;
  int threads_ = 1, beams_ = 1, batch_ = 1;
  bool cached_ = false, on_cuda_ = false;
  std::string dtype_;
  std::vector<std::vector<ItemId>> histories_;
  std::vector<std::vector<int>> code_tokens_;  // [level][code]
  std::unique_ptr<Engine> engine_;
  std::vector<absl::StatusOr<RecommendResult>> results_;
};

int Serve() {
  // Standard output belongs to the answers alone: whatever logs to it goes to the error stream.
  FILE* const answers = fdopen(dup(STDOUT_FILENO), "w");
  dup2(STDERR_FILENO, STDOUT_FILENO);
  Peer peer;
  for (std::string line; std::getline(std::cin, line);) {
    absl::StatusOr<json> answer;
    try {
      const absl::StatusOr<json> question = ParseJson(line, "question");
      answer = question.ok() ? peer.Answer(*question) : question.status();
    } catch (const json::exception& error) {
      answer = absl::InvalidArgumentError(error.what());
    }
    const json reply = answer.ok() ? *answer : json{{"error", answer.status().ToString()}};
    std::fprintf(answers, "%s\n", reply.dump().c_str());
    std::fflush(answers);
  }
  std::fclose(answers);
  return 0;
}

}  // namespace
}  // namespace beamline

int main() { return beamline::Serve(); }
