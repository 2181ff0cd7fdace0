// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <filesystem>
#include <iterator>
#include <string>
#include <vector>

#include <arpa/inet.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "beamline/dtype.h"
#include "beamline/engine_limits.h"
#include "beamline/parallel.h"
#include "google/protobuf/descriptor.h"
#include "server/config_problems.h"
#include "server/tls_files.h"

namespace beamline::server {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::TextFormat;

struct FieldBounds {
  std::string field;
  int64_t low;
  int64_t high;
};

// Of one field each, as the schema's comments say. Those of section engine are beamline/engine_limits.h.
const FieldBounds kOwnBounds[] = {
    {"limits.max_receive_bytes", 1024, 1 << 30},
    {"limits.max_send_bytes", 1024, 1 << 30},
    {"limits.max_unknown_field_bytes", 0, 1 << 30},
    {"limits.max_metadata_bytes", 1024, 1 << 20},
    {"limits.max_concurrent_streams", 1, 1000000},
    {"limits.max_batch_users", 1, 65536},
    {"limits.max_lookup_items", 1, 1000000},
    {"limits.default_deadline_ms", kDeadlineRangeMs.low, kDeadlineRangeMs.high},
    {"limits.max_deadline_ms", kDeadlineRangeMs.low, kDeadlineRangeMs.high},
    {"limits.retry_after_ms", 0, 60000},
    {"limits.max_connection_idle_ms", 0, 86400000},
    {"limits.max_connection_age_ms", 0, 604800000},
    {"limits.handshake_timeout_ms", 100, 600000},
    {"limits.keepalive_time_ms", 1000, 86400000},
    {"limits.keepalive_timeout_ms", 1, 600000},
    {"limits.min_client_ping_ms", 1, 86400000},
    {"limits.min_open_files", 16, 1000000},
    {"limits.max_connections", 1, 1000000},
    {"limits.max_network_bytes", 16 << 20, int64_t{1} << 40},
    {"tls.poll_ms", 10, 86400000},
    {"parallel.size", 1, kMaxRanks},
    {"parallel.start_timeout_ms", 1, 3600000},
    {"parallel.stalled_after_ms", 1000, 3600000},
    {"parallel.lost_after_ms", absl::ToInt64Milliseconds(kMinLostAfter), absl::ToInt64Milliseconds(kMaxLostAfter)},
    {"lifecycle.drain_delay_ms", 0, 600000},
    {"lifecycle.grace_ms", 0, 600000},
    {"lifecycle.broken_exit_ms", 0, 86400000},
    {"admin.recorded_requests", 0, 100000},
    {"admin.slow_request_ms", 1, 3600000},
};

// `field <= other`, the other being a field too.
struct AtMost {
  std::string field;
  std::string other;
  bool if_set = false;  // the field's default may be more: it then means no limit of its own
};
const AtMost kOwnRelations[] = {
    {"limits.max_unknown_field_bytes", "limits.max_receive_bytes", /*if_set=*/true},
    {"limits.max_receive_bytes", "limits.max_network_bytes"},
    {"limits.max_batch_users", "engine.queue_capacity"},
    {"limits.default_deadline_ms", "limits.max_deadline_ms"},
};

class Checker {
 public:
  Checker(const config::v1::ServerConfig& config, const TextFormat::ParseInfoTree& locations,
          const ConfigOverrides& overrides, ConfigProblems* problems)
      : config_(config), locations_(locations), overrides_(overrides), problems_(*problems) {
    for (const OptionRange& range : kEngineOptionRanges) {
      bounds_.push_back({absl::StrCat("engine.", range.option), range.low, range.high});
    }
    bounds_.insert(bounds_.end(), std::begin(kOwnBounds), std::end(kOwnBounds));
    for (const OptionOrder& order : kEngineOptionOrder) {
      relations_.push_back({absl::StrCat("engine.", order.option), absl::StrCat("engine.", order.other)});
    }
    relations_.insert(relations_.end(), std::begin(kOwnRelations), std::end(kOwnRelations));
  }

  void Run() {
    for (const FieldBounds& bounds : bounds_) CheckBounds(bounds.field, bounds.low, bounds.high);
    for (const AtMost& relation : relations_) CheckRelation(relation);
    CheckAddress("listen.address", config_.listen().address());
    CheckListenPort();
    CheckAdmin();
    CheckTls();
    CheckParallel();
    CheckEngine();
    CheckWord("log.format", config_.log().format(), {"text", "json"});
    CheckWord("log.level", config_.log().level(), {"debug", "info", "warning", "error"});
    const int64_t deadline_us = Number("limits.default_deadline_ms") * 1000;
    if (const int64_t delay = Number("engine.max_queue_delay_us"); delay > 0 && delay >= deadline_us) {
      Add("engine.max_queue_delay_us",
          absl::StrCat(delay, " is not below limits.default_deadline_ms (", deadline_us / 1000, " ms)"));
    }
  }

 private:
  struct Place {
    const Message* message;
    const FieldDescriptor* field;
    int line;  // 0: the file does not set it
  };

  // REQUIRES: `path` is "section.field" of the schema.
  Place Find(absl::string_view path) const {
    const std::vector<std::string> parts = absl::StrSplit(path, '.');
    const FieldDescriptor* section = config_.GetDescriptor()->FindFieldByName(parts[0]);
    const Message& message = config_.GetReflection()->GetMessage(config_, section);
    const FieldDescriptor* field = message.GetDescriptor()->FindFieldByName(parts[1]);
    const TextFormat::ParseInfoTree* tree = locations_.GetTreeForNested(section, -1);
    return {&message, field, tree == nullptr ? 0 : tree->GetLocation(field, -1).line + 1};
  }

  int64_t Number(absl::string_view path) const {
    const Place place = Find(path);
    const auto* reflection = place.message->GetReflection();
    return place.field->cpp_type() == FieldDescriptor::CPPTYPE_INT32
               ? reflection->GetInt32(*place.message, place.field)
               : reflection->GetInt64(*place.message, place.field);
  }

  void Add(absl::string_view path, absl::string_view text) {
    problems_.Add(Find(path).line, absl::StrCat(path, ": ", text));
  }

  void CheckBounds(absl::string_view path, int64_t low, int64_t high) {
    const int64_t value = Number(path);
    if (value < low || value > high) Add(path, absl::StrCat(value, " is outside ", low, "..", high));
  }

  bool InBounds(absl::string_view path) const {
    const int64_t value = Number(path);
    return std::any_of(bounds_.begin(), bounds_.end(), [&](const FieldBounds& bounds) {
      return path == bounds.field && value >= bounds.low && value <= bounds.high;
    });
  }

  // Reported at whichever of the two the file sets, unless one is wrong by itself.
  void CheckRelation(const AtMost& relation) {
    if (relation.if_set && Find(relation.field).line == 0) return;
    const int64_t value = Number(relation.field), limit = Number(relation.other);
    if (value <= limit || !InBounds(relation.field) || !InBounds(relation.other)) return;
    const absl::string_view at = Find(relation.field).line > 0 ? relation.field : relation.other;
    problems_.Add(Find(at).line, absl::StrCat(relation.field, ": ", value, " is more than ", relation.other, " (",
                                              limit, Find(relation.other).line > 0 ? ")" : ", the default)"));
  }

  bool CheckAddress(absl::string_view path, const std::string& address) {
    unsigned char parsed[sizeof(in6_addr)];
    if (address != "localhost" && inet_pton(AF_INET, address.c_str(), parsed) != 1 &&
        inet_pton(AF_INET6, address.c_str(), parsed) != 1) {
      Add(path, absl::StrCat("\"", address,
                             "\" is not an address; give IPv4 or IPv6 in figures (127.0.0.1, 0.0.0.0, ::1) "
                             "or localhost"));
      return false;
    }
    return true;
  }

  bool IsPort(int port) const { return port >= (overrides_.any_port ? 0 : 1) && port <= 65535; }

  void CheckListenPort() {
    const int port = config_.listen().port();
    if (IsPort(port)) return;
    const std::string text = absl::StrCat(port, " is outside 1..65535");
    if (overrides_.port) {
      problems_.Add(0, absl::StrCat("--port: ", text));
    } else {
      Add("listen.port", text);
    }
  }

  void CheckAdmin() {
    if (!config_.has_admin()) return;
    const config::v1::Admin& admin = config_.admin();
    if (CheckAddress("admin.address", admin.address()) && !IsLoopback(admin.address()) && !admin.allow_remote()) {
      Add("admin.address",
          absl::StrCat(
              "\"", admin.address(),
              "\" is not a loopback address, and whoever reaches admin.port can change the model; use 127.0.0.1 "
              "(admin.http_address opens the pages alone), or close the port by the network and set "
              "admin.allow_remote: true"));
    }
    if (!admin.http_address().empty()) CheckAddress("admin.http_address", admin.http_address());
    const std::string& pages = admin.http_address().empty() ? admin.address() : admin.http_address();
    if (admin.live_requests() && !IsLoopback(pages)) {
      Add("admin.live_requests", absl::StrCat("true with the pages on \"", pages,
                                              "\": they would show users' data beyond this machine; use 127.0.0.1 for "
                                              "them, or leave it off"));
    }
    if (!IsPort(admin.port())) Add("admin.port", absl::StrCat(admin.port(), " is outside 1..65535"));
    if (!IsPort(admin.http_port())) Add("admin.http_port", absl::StrCat(admin.http_port(), " is outside 1..65535"));
    const auto differ = [&](absl::string_view path, int port, absl::string_view other, int other_port) {
      if (port == other_port && port != 0) Add(path, absl::StrCat(port, " is ", other, " too"));
    };
    differ("admin.port", admin.port(), "listen.port", config_.listen().port());
    differ("admin.http_port", admin.http_port(), "listen.port", config_.listen().port());
    differ("admin.http_port", admin.http_port(), "admin.port", admin.port());
  }

  void CheckTls() {
    CheckPath("tls.certificate", config_.tls().certificate());
    CheckPath("tls.key", config_.tls().key());
    CheckPath("tls.client_ca", config_.tls().client_ca());
    if (!config_.has_tls() || !overrides_.check_artefacts) return;
    for (const auto& [field, text] : ReadTlsFiles(config_.tls(), absl::Now()).problems) {
      Add(absl::StrCat("tls.", field), text);
    }
  }

  // The system reads a path up to its NUL, and a log shows a line break as two lines.
  void CheckPath(absl::string_view path, const std::string& value) {
    const auto control =
        std::find_if(value.begin(), value.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; });
    if (control == value.end()) return;
    Add(path, absl::StrCat("\"", value, "\" holds control character ", int{*control}, " at byte ",
                           control - value.begin(), "; give a path without any"));
  }

  void CheckParallel() {
    const config::v1::Parallel& parallel = config_.parallel();
    if (InBounds("parallel.size") && (parallel.rank() < 0 || parallel.rank() >= parallel.size())) {
      const std::string text = absl::StrCat(parallel.rank(), " is outside 0..", parallel.size() - 1,
                                            ", the ranks of parallel.size ", parallel.size());
      if (overrides_.rank) {
        problems_.Add(0, absl::StrCat("--rank: ", text));
      } else {
        Add("parallel.rank", text);
      }
    }
    if (parallel.size() == 1) return;
    if (const std::string& dtype = config_.engine().dtype(); !IsGroupDtype(dtype)) {
      Add("engine.dtype", absl::StrCat(dtype, " needs parallel.size 1, and it is ", parallel.size(),
                                       ": each rank would scale its share of a row by itself; a group takes fp32, bf16 "
                                       "or fp16"));
    }
    if (parallel.address().empty()) Add("parallel.address", "is empty; give the address of rank 0's machine");
    const int port = parallel.port();
    if (port < 1 || port > 65535) Add("parallel.port", absl::StrCat(port, " is outside 1..65535"));
    if (port == config_.listen().port()) Add("parallel.port", absl::StrCat(port, " is listen.port too"));
    for (const int other : {config_.admin().port(), config_.admin().http_port()}) {
      if (config_.has_admin() && port == other) Add("parallel.port", absl::StrCat(port, " is a port of admin too"));
    }
  }

  void CheckWord(absl::string_view path, const std::string& value, const std::vector<std::string>& words) {
    if (std::find(words.begin(), words.end(), value) != words.end()) return;
    Add(path, absl::StrCat("\"", value, "\" is not one of ", absl::StrJoin(words, ", ")));
  }

  // The line of a step of engine.narrowing; 0: unknown.
  int LineOfStep(int index) const {
    const FieldDescriptor* engine = config_.GetDescriptor()->FindFieldByName("engine");
    const TextFormat::ParseInfoTree* tree = locations_.GetTreeForNested(engine, -1);
    if (tree == nullptr) return 0;
    const FieldDescriptor* steps = config::v1::Engine::descriptor()->FindFieldByName("narrowing");
    return tree->GetLocation(steps, index).line + 1;
  }

  // Waits ascend and widths descend, so that every step is reached and does something.
  void CheckNarrowing() {
    const auto& steps = config_.engine().narrowing();
    if (steps.size() > static_cast<int>(kMaxNarrowingSteps)) {
      problems_.Add(LineOfStep(steps.size() - 1),
                    absl::StrCat("engine.narrowing: has ", steps.size(), " steps, at most ", kMaxNarrowingSteps));
      return;
    }
    for (int i = 0; i < steps.size(); ++i) {
      const auto add = [&](absl::string_view field, int64_t value, const std::string& what) {
        problems_.Add(LineOfStep(i), absl::StrCat("engine.narrowing[", i, "].", field, ": ", value, " ", what));
      };
      const int64_t wait = steps[i].wait_ms(), width = steps[i].beam_width();
      const int64_t widest = Number("engine.max_beam_width");
      if (wait < kNarrowingWaitMs.low || wait > kNarrowingWaitMs.high) {
        add("wait_ms", wait, absl::StrCat("is outside ", kNarrowingWaitMs.low, "..", kNarrowingWaitMs.high));
      } else if (i > 0 && wait <= steps[i - 1].wait_ms()) {
        add("wait_ms", wait, absl::StrCat("is not above that of the step before it (", steps[i - 1].wait_ms(), ")"));
      }
      if (width < 1 || width > widest) {
        add("beam_width", width, absl::StrCat("is outside 1..", widest, " (engine.max_beam_width)"));
      } else if (i > 0 && width >= steps[i - 1].beam_width()) {
        add("beam_width", width,
            absl::StrCat("is not below that of the step before it (", steps[i - 1].beam_width(), ")"));
      }
    }
  }

  // What no machine has (backend/context.h); whether this one has a device is seen when the model is loaded.
  void CheckPlacement(const config::v1::Engine& engine) {
    const std::string &device = engine.device(), &backend = engine.backend(), &dtype = engine.dtype();
    const auto add = [this](absl::string_view field, const std::string& value, absl::string_view needs,
                            absl::string_view other, const std::string& given) {
      Add(absl::StrCat("engine.", field), absl::StrCat(value, " needs ", needs, ", and engine.", other, " is ", given));
    };
    const auto need = [&](absl::string_view field, const std::string& value, const std::string& place) {
      const std::string other = place == "cpu" ? "cuda" : "cpu";
      if (device == other) return add(field, value, absl::StrCat("device ", place), "device", device);
      if (field != "backend" && (backend == other || backend == "aten")) {
        add(field, value, absl::StrCat("backend ", place), "backend", backend);
      }
    };
    if (backend == "cpu" || backend == "cuda") need("backend", backend, backend);
    if (dtype == "int8") need("dtype", dtype, "cpu");
    if (dtype == "fp16" || IsFp8(dtype)) need("dtype", dtype, "cuda");
  }

  void CheckEngine() {
    const config::v1::Engine& engine = config_.engine();
    CheckNarrowing();
    CheckWord("engine.device", engine.device(), {"cpu", "cuda", "auto"});
    CheckWord("engine.dtype", engine.dtype(), {"fp32", "bf16", "fp16", "fp8", "fp8_mixed", "int8"});
    CheckWord("engine.backend", engine.backend(), {"auto", "aten", "cpu", "cuda"});
    CheckPlacement(engine);
    CheckPath("engine.bundle", engine.bundle());
    CheckPath("engine.catalogue", engine.catalogue());
    CheckPath("engine.model_folder", engine.model_folder());
    CheckPath("engine.tuning_folder", engine.tuning_folder());
    if (engine.bundle().empty() && engine.model_folder().empty()) {
      Add("engine.bundle", "missing: give the folder that `beamline pack` wrote, here or as --bundle");
      return;
    }
    if (!overrides_.check_artefacts) return;
    std::error_code ignored, error;
    if (!engine.model_folder().empty() && !std::filesystem::is_directory(engine.model_folder(), ignored)) {
      Add("engine.model_folder", absl::StrCat(engine.model_folder(), " is not a folder"));
    }
    if (!engine.bundle().empty() && !std::filesystem::is_directory(engine.bundle(), error)) {
      const bool unreadable = error && error != std::errc::no_such_file_or_directory;
      const std::string text =
          absl::StrCat(engine.bundle(), unreadable ? absl::StrCat(" cannot be opened: ", error.message())
                                                   : " is not a folder; write one with `beamline pack`");
      if (overrides_.bundle) {
        problems_.Add(0, absl::StrCat("--bundle: ", text));
      } else {
        Add("engine.bundle", text);
      }
    }
    if (!engine.catalogue().empty() && !std::filesystem::is_regular_file(engine.catalogue(), ignored)) {
      Add("engine.catalogue", absl::StrCat(engine.catalogue(), " is not a file"));
    }
  }

  std::vector<FieldBounds> bounds_;
  std::vector<AtMost> relations_;
  const config::v1::ServerConfig& config_;
  const TextFormat::ParseInfoTree& locations_;
  const ConfigOverrides& overrides_;
  ConfigProblems& problems_;
};

}  // namespace

void CheckConfig(const config::v1::ServerConfig& config, const TextFormat::ParseInfoTree& locations,
                 const ConfigOverrides& overrides, ConfigProblems* problems) {
  Checker(config, locations, overrides, problems).Run();
}

}  // namespace beamline::server
