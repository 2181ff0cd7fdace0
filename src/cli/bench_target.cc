// SPDX-License-Identifier: Apache-2.0
#include "cli/bench_target.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <utility>

#include <unistd.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/interrupt.h"
#include "beamline/status.h"
#include "grpcpp/client_context.h"
#include "loadgen/workload.h"
#include "server/grpc_status.h"
#include "server/status_detail.h"

namespace beamline::cli {
namespace {

using loadgen::Answer;

constexpr int64_t kCallsPerConnection = 100, kMaxConnections = 64;
constexpr absl::Duration kLook = absl::Milliseconds(50);

template <typename Request, typename Response>
struct PendingCall {
  grpc::ClientContext context;
  Request request;
  Response response;
  loadgen::Target::Done done;
};

// Ends a call. Its context goes first: it holds the channel, and who hears of the last answer may be done with that.
// gRPC 1.51 must not see the last owner of a channel leave on a thread of its own: that thread would wait for itself,
// and then read a queue that is gone.
template <typename Call>
void Finish(std::unique_ptr<Call> call, std::vector<Answer> answers) {
  loadgen::Target::Done done = std::move(call->done);
  call.reset();
  done(std::move(answers));
}

v1::RecommendRequest ToProto(const RecommendRequest& request) {
  v1::RecommendRequest message;
  message.set_request_id(request.request_id);
  message.set_user_id(request.user_id);
  FillUser(request.history, request.user_attributes, &message);
  message.set_top_k(request.top_k);
  message.set_items_per_sid(request.items_per_sid);
  message.set_max_per_author(request.max_per_author);
  message.mutable_beam_widths()->Assign(request.beam_widths.begin(), request.beam_widths.end());
  message.set_exclude_history(request.exclude_history);
  message.set_priority(request.priority == Priority::kCritical    ? v1::PRIORITY_CRITICAL
                       : request.priority == Priority::kSheddable ? v1::PRIORITY_SHEDDABLE
                                                                  : v1::PRIORITY_DEFAULT);
  return message;
}

// Sent as a new user's.
bool IsOfNobody(const v1::RecommendRequest& request) { return request.user_id().empty() && request.history().empty(); }

Answer AnswerOf(const v1::RecommendResponse& response, bool want_items) {
  const v1::StageTimings& timings = response.timings();
  Answer answer;
  answer.timings = {absl::Microseconds(timings.queue_us()), absl::Microseconds(timings.encode_us()),
                    absl::Microseconds(timings.decode_us()), absl::Microseconds(timings.resolve_us()),
                    absl::Microseconds(timings.total_us())};
  answer.timings.encode_requests = timings.encode_requests();
  answer.timings.decode_requests = timings.decode_requests();
  answer.context_cached = timings.context_cached();
  answer.narrowing = static_cast<int>(response.narrowing());
  for (const uint32_t width : response.beam_widths()) answer.beams = std::max(answer.beams, static_cast<int>(width));
  if (want_items) {
    for (const v1::RecommendedItem& item : response.items()) answer.items.push_back(item.item_id());
  }
  return answer;
}

Answer Failed(const absl::Status& status) {
  Answer failed;
  failed.status = status;
  failed.retry_after = absl::Milliseconds(server::DetailOf(status).retry_after_ms());
  return failed;
}

std::vector<Answer> ForAll(size_t requests, const absl::Status& status) {
  const Answer failed = Failed(status);
  return std::vector<Answer>(requests, failed);
}

}  // namespace

absl::StatusOr<absl::Duration> CpuTimeOf(int pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/stat"));
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  // Behind the name, which may hold anything: field 3 and on; 14 and 15 are user and system time in ticks.
  const size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return absl::NotFoundError(absl::StrCat("there is no process ", pid));
  const std::vector<std::string> fields = absl::StrSplit(text.substr(name_end + 1), ' ', absl::SkipEmpty());
  int64_t user = 0, system = 0;
  if (fields.size() < 13 || !absl::SimpleAtoi(fields[11], &user) || !absl::SimpleAtoi(fields[12], &system)) {
    return absl::InternalError(absl::StrCat("/proc/", pid, "/stat is not as expected"));
  }
  return absl::Seconds(static_cast<double>(user + system) / static_cast<double>(sysconf(_SC_CLK_TCK)));
}

absl::StatusOr<std::unique_ptr<ServerTarget>> ServerTarget::Create(const std::string& server, const TlsFlags& tls,
                                                                   const Options& options) {
  BEAMLINE_RETURN_IF_ERROR(OpenChannel("--server", server, tls).status());
  if (options.pid != 0) {
    if (const absl::StatusOr<absl::Duration> cpu = CpuTimeOf(options.pid); !cpu.ok()) {
      return absl::Status(cpu.status().code(), absl::StrCat("--server-pid: ", cpu.status().message()));
    }
  }
  return std::unique_ptr<ServerTarget>(new ServerTarget(server, tls, options));
}

absl::Status ServerTarget::Prepare(std::vector<RecommendRequest> pool, int64_t open_calls) {
  pool_.clear();
  for (const RecommendRequest& request : pool) pool_.push_back(ToProto(request));
  connections_.clear();
  const int64_t wanted =
      std::clamp<int64_t>((open_calls + kCallsPerConnection - 1) / kCallsPerConnection, 1, kMaxConnections);
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  for (int64_t i = 0; i < wanted; ++i) {
    BEAMLINE_ASSIGN_OR_RETURN(channels.emplace_back(), OpenChannel("--server", server_, tls_));
    channels.back()->GetState(/*try_to_connect=*/true);
  }
  // A server may admit fewer connections: once no more come, the others are not waited for.
  std::vector<std::shared_ptr<grpc::Channel>> ready;
  size_t most = 0;
  absl::Time until = absl::Now() + options_.patience;
  while (ready.size() < channels.size() && absl::Now() < until) {
    BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
    ready.clear();
    bool looked = false;
    for (const std::shared_ptr<grpc::Channel>& channel : channels) {
      bool is_ready = channel->GetState(/*try_to_connect=*/true) == GRPC_CHANNEL_READY;
      // Whoever waits for one works for all: without it gRPC would look at its sockets every five seconds.
      if (!is_ready && !std::exchange(looked, true)) {
        is_ready = channel->WaitForConnected(absl::ToChronoTime(absl::Now() + kLook));
      }
      if (is_ready) ready.push_back(channel);
    }
    if (ready.size() > most) {
      most = ready.size();
      until = absl::Now() + options_.patience_for_more;
    }
  }
  if (ready.empty()) {
    return absl::UnavailableError(absl::StrCat("--server: no connection to ", server_, " within ",
                                               absl::FormatDuration(options_.patience),
                                               ": does it listen there, with TLS as here, and has it room for one more "
                                               "(limits.max_connections)?"));
  }
  if (ready.size() < channels.size()) {
    std::fprintf(stderr,
                 "--server: of %zu connections to %s only %zu came about; calls may wait here for its streams\n",
                 channels.size(), server_.c_str(), ready.size());
  }
  for (const std::shared_ptr<grpc::Channel>& channel : ready) {
    connections_.push_back(std::make_unique<Connection>(channel));
  }
  return absl::OkStatus();
}

std::optional<absl::Duration> ServerTarget::CpuTime() const {
  const absl::StatusOr<absl::Duration> cpu =
      options_.pid == 0 ? absl::StatusOr<absl::Duration>(absl::NotFoundError("")) : CpuTimeOf(options_.pid);
  return cpu.ok() ? std::optional(*cpu) : std::nullopt;
}

void ServerTarget::Send(absl::Span<const int> indices, absl::Time deadline, bool want_items, Done done) {
  if (options_.health) return SendHealth(indices.size(), deadline, std::move(done));
  if (indices.size() == 1) return SendOne(indices[0], deadline, want_items, std::move(done));
  using Call = PendingCall<v1::BatchRecommendRequest, v1::BatchRecommendResponse>;
  auto call = std::make_unique<Call>();
  for (const int index : indices) {
    v1::RecommendRequest& request = *call->request.add_requests();
    request = pool_[index];
    if (IsOfNobody(request)) request.set_user_id(loadgen::NewUser());
  }
  call->context.set_deadline(absl::ToChronoTime(deadline));
  call->done = std::move(done);
  Call* const raw = call.release();  // the callback's, which runs exactly once
  Next().stub->async()->BatchRecommend(
      &raw->context, &raw->request, &raw->response, [raw, want_items](grpc::Status status) {
        std::unique_ptr<Call> call(raw);
        const auto requests = static_cast<size_t>(call->request.requests_size());
        if (!status.ok()) return Finish(std::move(call), ForAll(requests, server::FromGrpcStatus(status)));
        std::vector<Answer> answers;
        for (const v1::BatchRecommendResponse::Result& result : call->response.results()) {
          Answer answer = AnswerOf(result.response(), want_items);
          answer.status = absl::Status(static_cast<absl::StatusCode>(result.code()), result.message());
          answer.retry_after = absl::Milliseconds(result.error().retry_after_ms());
          answers.push_back(std::move(answer));
        }
        if (answers.size() != requests) answers = ForAll(requests, absl::InternalError("answers are missing"));
        Finish(std::move(call), std::move(answers));
      });
}

void ServerTarget::SendHealth(size_t requests, absl::Time deadline, Done done) {
  using Call = PendingCall<grpc::ByteBuffer, grpc::ByteBuffer>;
  auto call = std::make_unique<Call>();
  const grpc::Slice nothing;  // asks about the server as a whole
  call->request = grpc::ByteBuffer(&nothing, 1);
  call->context.set_deadline(absl::ToChronoTime(deadline));
  call->done = std::move(done);
  Call* const raw = call.release();  // as above
  Next().any_method.UnaryCall(&raw->context, "/grpc.health.v1.Health/Check", {}, &raw->request, &raw->response,
                              [raw, requests](grpc::Status status) {
                                Finish(std::unique_ptr<Call>(raw), ForAll(requests, server::FromGrpcStatus(status)));
                              });
}

void ServerTarget::SendOne(int index, absl::Time deadline, bool want_items, Done done) {
  using Call = PendingCall<v1::RecommendRequest, v1::RecommendResponse>;
  auto call = std::make_unique<Call>();
  call->context.set_deadline(absl::ToChronoTime(deadline));
  call->done = std::move(done);
  const v1::RecommendRequest* request = &pool_[index];  // which outlives the call
  if (IsOfNobody(*request)) {
    call->request = *request;
    call->request.set_user_id(loadgen::NewUser());
    request = &call->request;
  }
  Call* const raw = call.release();  // as above
  Next().stub->async()->Recommend(&raw->context, request, &raw->response, [raw, want_items](grpc::Status status) {
    const Answer answer = status.ok() ? AnswerOf(raw->response, want_items) : Failed(server::FromGrpcStatus(status));
    Finish(std::unique_ptr<Call>(raw), {answer});
  });
}

}  // namespace beamline::cli
