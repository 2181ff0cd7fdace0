// SPDX-License-Identifier: Apache-2.0
#include "server/flight_recorder.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <tuple>
#include <utility>

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "beamline/stage_timings.h"
#include "server/status_detail.h"

namespace beamline::server {
namespace {

constexpr size_t kPiece = 64;  // records that are copied at once: a few microseconds
constexpr int kFatalSignals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};

// Names are constants, so that a record can point to them.
const char* NameOf(absl::StatusCode code) {
  static const auto* const names = [] {
    auto* all = new std::array<std::string, 17>();
    for (size_t i = 0; i < all->size(); ++i) {
      (*all)[i] = absl::StatusCodeToString(static_cast<absl::StatusCode>(i));
    }
    return all;
  }();
  const auto index = static_cast<size_t>(code);
  return index < names->size() ? (*names)[index].c_str() : "UNKNOWN";
}

// Cut where it must be, cleaned so that it needs no escapes in JSON.
template <size_t kSize>
void Copy(absl::string_view text, char (&to)[kSize]) {
  const std::string clean = CleanRequestId(text.substr(0, kSize - 1));
  std::memcpy(to, clean.data(), clean.size());
  to[clean.size()] = 0;
}

// JSON into a fixed buffer with nothing but loops over characters: also inside a signal handler.
class JsonText {
 public:
  JsonText(char* out, size_t size) : out_(out), size_(size) {}

  void Raw(const char* text) {
    for (; *text != 0; ++text) Put(*text);
  }
  void Key(const char* key) {
    if (out_[used_ - 1] != '{') Put(',');
    Quoted(key);
    Put(':');
  }
  void Text(const char* key, const char* value) {
    Key(key);
    Quoted(value);
  }
  void Flag(const char* key, bool value) {
    Key(key);
    Raw(value ? "true" : "false");
  }
  void Number(const char* key, int64_t value) {
    Key(key);
    Digits(value);
  }
  void Digits(int64_t value) {
    if (value < 0) Put('-');
    uint64_t left = value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
    char digits[20];
    int count = 0;
    do digits[count++] = static_cast<char>('0' + left % 10);
    while ((left /= 10) > 0);
    while (count > 0) Put(digits[--count]);
  }
  void Put(char c) {
    if (used_ < size_) {
      out_[used_++] = c;
    } else {
      full_ = true;
    }
  }
  size_t used() const { return full_ ? 0 : used_; }

 private:
  // Text of ours, or cleaned: a character that would need an escape is a record that is being written.
  void Quoted(const char* text) {
    Put('"');
    for (; *text != 0; ++text) Put(*text < ' ' || *text == '"' || *text == '\\' ? '_' : *text);
    Put('"');
  }

  char* const out_;
  const size_t size_;
  size_t used_ = 0;
  bool full_ = false;
};

void WriteMembers(const FlightRecord& record, JsonText* json) {
  json->Number("ended_ms", record.ended_ms);
  json->Text("request_id", record.request_id);
  json->Text("trace_id", record.trace_id);
  json->Text("span_id", record.span_id);
  json->Text("code", record.code);
  if (record.reason[0] != 0) json->Text("reason", record.reason);
  json->Number("history_events", record.history_events);
  json->Number("top_k", record.top_k);
  if (record.beam_width > 0) json->Number("beam_width", record.beam_width);
  if (record.narrowing > 0) json->Number("narrowing", record.narrowing);
  json->Number("total_us", record.total_us);
  if (record.answered) {
    json->Number("items", record.items);
    json->Text("model_version", record.model_version);
    json->Flag("context_cached", record.context_cached);
    json->Number("batch_requests", record.batch_requests);
    json->Number("batch_rows", record.batch_rows);
  }
  if (!record.timed) return;
  json->Number("prepare_us", record.prepare_us);
  json->Number("queue_us", record.queue_us);
  json->Number("encode_us", record.encode_us);
  json->Number("decode_us", record.decode_us);
  if (!record.answered) return;
  json->Number("resolve_us", record.resolve_us);
  json->Key("step_us");
  json->Put('[');
  for (int i = 0; i < std::min(record.steps, FlightRecord::kMaxSteps); ++i) {
    if (i > 0) json->Put(',');
    json->Digits(record.step_us[i]);
  }
  json->Put(']');
}

void SetTimes(const StageTimings& timings, FlightRecord* record) {
  record->timed = true;
  record->prepare_us = absl::ToInt64Microseconds(timings.prepare);
  record->queue_us = absl::ToInt64Microseconds(timings.queue);
  record->encode_us = absl::ToInt64Microseconds(timings.encode);
  record->decode_us = absl::ToInt64Microseconds(timings.decode);
  record->resolve_us = absl::ToInt64Microseconds(timings.resolve);
  record->steps = static_cast<int>(std::min<size_t>(timings.steps.size(), FlightRecord::kMaxSteps));
  for (int i = 0; i < record->steps; ++i) record->step_us[i] = absl::ToInt64Microseconds(timings.steps[i]);
}

std::atomic<const FlightRecorder*> crash_recorder{nullptr};
std::atomic<int> crash_fd{-1};

// For `out` of kMaxRecordJson bytes; the length. Async-signal-safe, as the next.
size_t MakeLine(const char* ring, const char* level, const FlightRecord& record, char* out) {
  JsonText json(out, kMaxRecordJson);
  json.Put('{');
  json.Text("time", record.time);
  json.Text("level", level);
  json.Text("event", "flight record");
  json.Text("ring", ring);
  WriteMembers(record, &json);
  json.Raw("}\n");
  return json.used();
}

// False where it could not begin within `wait_ms`. A pipe that is writable has room for a whole line.
bool WriteLine(int fd, const char* line, size_t size, int64_t wait_ms) {
  pollfd writable{fd, POLLOUT, 0};
  return poll(&writable, 1, static_cast<int>(wait_ms)) == 1 && write(fd, line, size) >= 0;
}

void OnFatalSignal(int number) {
  // Once: a fault while dumping, or in a second thread, has its usual effect (SA_RESETHAND).
  if (const FlightRecorder* recorder = crash_recorder.exchange(nullptr)) recorder->Dump(crash_fd.load());
  raise(number);
}

}  // namespace

Blame BlameOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return Blame::kNone;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kCancelled:
      return Blame::kCaller;
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kUnavailable:
      return Blame::kLoad;
    default:
      return Blame::kServer;
  }
}

FlightRecord BeginRecord(const RecommendRequest& request, const TraceParent& trace) {
  FlightRecord record;
  Copy(request.request_id, record.request_id);
  Copy(trace.trace_id, record.trace_id);
  Copy(trace.span_id, record.span_id);
  record.history_events = static_cast<int>(request.history.size());
  record.top_k = request.top_k;
  for (int width : request.beam_widths) record.beam_width = std::max(record.beam_width, width);
  return record;
}

void EndRecord(const absl::StatusOr<RecommendResult>& result, absl::Duration took, absl::Time now,
               FlightRecord* record) {
  const absl::Time ended = OnTheWall(now);
  record->ended_ms = absl::ToUnixMillis(ended);
  Copy(absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", ended, absl::UTCTimeZone()), record->time);
  record->code = NameOf(result.status().code());
  record->total_us = absl::ToInt64Microseconds(took);
  if (!result.ok()) {
    Copy(DetailOf(result.status()).reason(), record->reason);
    record->blame = BlameOf(result.status());
    if (const auto timings = GetStageTimings(result.status())) SetTimes(*timings, record);
    return;
  }
  record->answered = true;
  record->items = static_cast<int>(result->items.size());
  record->beam_width = 0;  // a ladder (engine.narrowing) may have taken fewer than were asked for
  for (int width : result->beam_widths) record->beam_width = std::max(record->beam_width, width);
  record->narrowing = result->narrowing;
  Copy(result->model_version, record->model_version);
  record->context_cached = result->context_cached;
  record->batch_requests = result->timings.decode_requests;
  record->batch_rows = result->timings.decode_rows;
  SetTimes(result->timings, record);
}

size_t WriteJson(const FlightRecord& record, char* out, size_t size) {
  JsonText json(out, size);
  json.Put('{');
  WriteMembers(record, &json);
  json.Put('}');
  return json.used();
}

FlightRecorder::FlightRecorder(const Options& options) : options_(options) {
  const size_t recent = static_cast<size_t>(std::max(0, options.capacity));
  const size_t apart = recent == 0 ? 0 : std::max<size_t>(16, recent / 4);
  rings_ = {Ring{"recent", std::vector<FlightRecord>(recent)}, Ring{"slow", std::vector<FlightRecord>(apart)},
            Ring{"refused", std::vector<FlightRecord>(apart)}, Ring{"failed", std::vector<FlightRecord>(apart)}};
}

void FlightRecorder::Add(const FlightRecord& record) {
  if (options_.capacity <= 0) return;
  std::lock_guard lock(mu_);
  auto& [recent, slow, refused, failed] = rings_;
  recent.Add(record);
  if (record.blame == Blame::kLoad) refused.Add(record);
  if (record.blame == Blame::kServer) failed.Add(record);
  if (absl::Microseconds(record.total_us) >= options_.slow) slow.Add(record);
}

// A copy, and in pieces: whoever adds is ending a request, and waits for no text to be made, no reader, and not for all
// of a ring.
std::vector<FlightRecord> FlightRecorder::Newest(size_t r, size_t most) const {
  const Ring& ring = rings_[r];
  const auto [end, count] = [&] {
    std::lock_guard lock(mu_);
    return std::pair(ring.added, std::min(most, ring.size()));
  }();
  std::vector<FlightRecord> newest;
  newest.reserve(count);
  while (newest.size() < count) {
    std::lock_guard lock(mu_);
    for (size_t stop = std::min(count, newest.size() + kPiece); newest.size() < stop;) {
      const uint64_t number = end - 1 - newest.size();               // of all that were ever added
      if (ring.added - number > ring.records.size()) return newest;  // overwritten, and so are all before it
      newest.push_back(ring.records[number % ring.records.size()]);
    }
  }
  return newest;
}

std::string FlightRecorder::ToJson(size_t most) const {
  std::string json = "{";
  for (size_t r = 0; r < rings_.size(); ++r) {
    const std::vector<FlightRecord> records = Newest(r, most);
    absl::StrAppend(&json, json.size() > 1 ? "],\n\"" : "\"", rings_[r].name, "\":[");
    for (size_t i = 0; i < records.size(); ++i) {
      char line[kMaxRecordJson];
      absl::StrAppend(&json, i > 0 ? ",\n" : "\n", absl::string_view(line, WriteJson(records[i], line, sizeof(line))));
    }
  }
  return json + "]}\n";
}

size_t FlightRecorder::WriteTo(int fd, absl::Duration patience) const {
  std::array<std::vector<FlightRecord>, std::tuple_size_v<decltype(rings_)>> copies;
  size_t left = 0;
  for (size_t r = 0; r < copies.size(); ++r) {
    copies[r] = Newest(r, std::numeric_limits<size_t>::max());
    left += copies[r].size();
  }
  const absl::Time until = ProcessClock().Now() + patience;
  for (size_t r = 0; r < copies.size(); ++r) {
    for (size_t i = copies[r].size(); i > 0; --i, --left) {
      char line[kMaxRecordJson];
      const size_t size = MakeLine(rings_[r].name, "info", copies[r][i - 1], line);
      const absl::Duration wait = std::max(until - ProcessClock().Now(), absl::ZeroDuration());
      if (!WriteLine(fd, line, size, absl::ToInt64Milliseconds(wait))) return left;
    }
  }
  return left;
}

void FlightRecorder::Dump(int fd) const {
  for (const Ring& ring : rings_) {
    for (size_t i = ring.size(); i > 0; --i) {
      char line[kMaxRecordJson];
      const size_t size = MakeLine(ring.name, "critical", ring.newest(i - 1), line);
      // What cannot be written, or not at once, is lost: whoever reads a pipe may be stuck.
      if (!WriteLine(fd, line, size, 0)) return;
    }
  }
}

CrashDump::CrashDump(const FlightRecorder* recorder, int fd) {
  crash_fd.store(fd);
  crash_recorder.store(recorder);
  struct sigaction action = {};
  action.sa_handler = OnFatalSignal;
  action.sa_flags = SA_RESETHAND | SA_NODEFER;
  sigemptyset(&action.sa_mask);
  for (int number : kFatalSignals) sigaction(number, &action, nullptr);
}

CrashDump::~CrashDump() {
  crash_recorder.store(nullptr);
  for (int number : kFatalSignals) signal(number, SIG_DFL);
}

}  // namespace beamline::server
