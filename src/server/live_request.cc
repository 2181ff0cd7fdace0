// SPDX-License-Identifier: Apache-2.0
#include "server/live_request.h"

#include <memory>
#include <string>
#include <utility>

#include <arpa/inet.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "base/clock.h"
#include "base/json.h"
#include "beamline/status.h"
#include "google/protobuf/util/json_util.h"
#include "server/config.h"

namespace beamline::server {
namespace {

using nlohmann::json;

constexpr absl::Duration kDeadline = absl::Seconds(5);
constexpr absl::Duration kPatience = absl::Seconds(6);  // with an engine that keeps no deadline
constexpr const char* kLabelNames[kNumLabels] = {"click",   "like", "follow",    "comment",
                                                 "forward", "hate", "long view", "profile"};

HttpPage JsonPage(int status, const json& body) {
  // What is not UTF-8 in a title is replaced, not thrown over.
  return {status, "application/json", body.dump(-1, ' ', false, json::error_handler_t::replace)};
}

HttpPage ErrorPage(int status, absl::string_view error) { return JsonPage(status, {{"error", std::string(error)}}); }

// Without the port; "[::1]:80" is "::1".
std::string HostOf(absl::string_view host) {
  if (absl::StartsWith(host, "[")) return std::string(host.substr(1, host.find(']') - 1));
  return std::string(host.substr(0, host.find(':')));
}

// A page elsewhere can make a browser send requests here, also under a name that it makes point here: neither is ours.
absl::Status CheckSender(const HttpPost& post) {
  unsigned char parsed[sizeof(in6_addr)];
  const std::string host = HostOf(post.host);
  const bool address = inet_pton(AF_INET, host.c_str(), parsed) == 1 || inet_pton(AF_INET6, host.c_str(), parsed) == 1;
  if (!IsLoopback(host) || (host != "localhost" && !address)) {  // "127.0.0.1.example" is a name
    return absl::PermissionDeniedError("Host: only under a loopback name or address (localhost, 127.0.0.1, [::1])");
  }
  if (!post.origin.empty() && post.origin != absl::StrCat("http://", post.host)) {
    return absl::PermissionDeniedError("Origin: only from this server's own page");
  }
  if (!absl::StartsWith(post.content_type, "application/json")) {
    return absl::PermissionDeniedError("Content-Type: only application/json");
  }
  return absl::OkStatus();
}

absl::StatusOr<RecommendRequest> ParseRequest(const std::string& body, const RequestLimits& limits) {
  v1::RecommendRequest message;
  const auto parsed = google::protobuf::util::JsonStringToMessage(body, &message);
  if (!parsed.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("not a RecommendRequest in JSON: ", std::string(parsed.message())));
  }
  BEAMLINE_ASSIGN_OR_RETURN(RecommendRequest request, FromProto(message, limits));
  request.trace = true;
  request.deadline = ProcessClock().Now() + kDeadline;
  return request;
}

absl::StatusOr<RecommendResult> Run(RecommendRequest request, Engine& engine) {
  struct Answer {
    absl::Notification ended;
    absl::StatusOr<RecommendResult> result = absl::UnknownError("");
  };
  const auto answer = std::make_shared<Answer>();  // the engine may come back to it late
  Engine::Canceller cancel = engine.Submit(std::move(request), [answer](absl::StatusOr<RecommendResult> result) {
    answer->result = std::move(result);
    answer->ended.Notify();
  });
  if (answer->ended.WaitForNotificationWithTimeout(kPatience)) return answer->result;
  cancel();
  return absl::DeadlineExceededError("the engine did not answer");
}

json CodesOf(const Sid& sid) { return json(std::vector<Code>(sid.codes().begin(), sid.codes().end())); }

// Ids are texts: 64 bits are more than a number holds in JavaScript.
json ItemJson(ItemId item, const Catalogue* catalogue) {
  json out = {{"item", absl::StrCat(item)}};
  const std::optional<CatalogueItem> known = catalogue == nullptr ? std::nullopt : catalogue->GetItem(item);
  if (!known.has_value()) return out;
  out["sid"] = CodesOf(known->sid);
  out["title"] = known->attributes.title;
  out["author"] = absl::StrCat(known->attributes.author);
  out["duration_ms"] = known->attributes.duration_ms;
  json& tags = out["tags"] = json::array();
  for (const auto& [key, value] : known->attributes.tags) tags.push_back(absl::StrCat(key, " ", value));
  return out;
}

json HistoryJson(const std::vector<Event>& history, const Catalogue* catalogue) {
  json out = json::array();
  for (const Event& event : history) {
    json entry = ItemJson(event.item, catalogue);
    entry["time_ms"] = event.timestamp_ms;
    entry["play_time_ms"] = event.play_time_ms;
    json& labels = entry["labels"] = json::array();
    for (int label = 0; label < kNumLabels; ++label) {
      if ((event.labels >> label & 1u) != 0) labels.push_back(kLabelNames[label]);
    }
    out.push_back(std::move(entry));
  }
  return out;
}

json LevelsJson(const RecommendResult& result) {
  json out = json::array();
  for (size_t level = 0; level < result.trace->levels.size(); ++level) {
    json beams = json::array();
    for (const TracedBeam& beam : result.trace->levels[level]) {
      beams.push_back(
          {{"code", beam.code}, {"parent", beam.parent}, {"log_prob", beam.log_prob}, {"score", beam.score}});
    }
    json entry = {{"end", level >= result.beam_widths.size()}, {"beams", std::move(beams)}};
    if (level < result.beam_widths.size()) entry["width"] = result.beam_widths[level];
    if (level < result.timings.steps.size()) {
      entry["step_us"] = absl::ToDoubleMicroseconds(result.timings.steps[level]);
    }
    out.push_back(std::move(entry));
  }
  return out;
}

json AnswerJson(const std::string& request_id, const RecommendResult& result, const Engine& engine) {
  const std::shared_ptr<const Catalogue> now = engine.catalogue();
  // Details of items are the catalogue's that answered, or none: a swap may lie between the two.
  const Catalogue* catalogue = now->version() == result.catalogue_version ? now.get() : nullptr;
  const auto us = [](absl::Duration duration) { return absl::ToDoubleMicroseconds(duration); };
  const StageTimings& timings = result.timings;
  json items = json::array();
  for (const RecommendedItem& item : result.items) {
    json entry = ItemJson(item.item, catalogue);
    entry["sid"] = CodesOf(item.sid);
    entry["log_probs"] = item.log_probs;
    entry["score"] = item.score;
    if (item.value.has_value()) entry["value"] = *item.value;
    items.push_back(std::move(entry));
  }
  return {{"request_id", request_id},
          {"model_version", result.model_version},
          {"catalogue_version", result.catalogue_version},
          {"context_cached", result.context_cached},
          {"seen_events", result.seen_events},
          {"unknown_items", result.unknown_items},
          {"dropped_events", result.dropped_events},
          {"batch_requests", timings.decode_requests},
          {"times_us",
           {{"prepare", us(timings.prepare)},
            {"queue", us(timings.queue)},
            {"encode", us(timings.encode)},
            {"decode", us(timings.decode)},
            {"resolve", us(timings.resolve)},
            {"total", us(timings.total)}}},
          {"history", HistoryJson(result.trace->history, catalogue)},
          {"levels", LevelsJson(result)},
          {"items", std::move(items)}};
}

}  // namespace

HttpPage RunLiveRequest(const HttpPost& post, const RequestLimits& limits, Engine& engine) {
  if (absl::Status status = CheckSender(post); !status.ok()) return ErrorPage(403, status.message());
  absl::StatusOr<RecommendRequest> request = ParseRequest(post.body, limits);
  if (!request.ok()) return ErrorPage(400, request.status().message());
  const std::string request_id = request->request_id;
  const absl::StatusOr<RecommendResult> result = Run(*std::move(request), engine);
  if (!result.ok()) return ErrorPage(absl::IsInvalidArgument(result.status()) ? 400 : 503, result.status().message());
  if (result->trace == nullptr) return ErrorPage(503, "the engine tells no trace");
  return JsonPage(200, AnswerJson(request_id, *result, engine));
}

}  // namespace beamline::server
