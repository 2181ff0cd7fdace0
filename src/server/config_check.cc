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
#include "beamline/engine_limits.h"
#include "google/protobuf/descriptor.h"
#include "server/config_problems.h"
#include "server/tls_files.h"

namespace beamline::server {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::TextFormat;

struct Bounds {
  std::string field;
  int64_t low;
  int64_t high;
};

// Of one field each, as the schema's comments say. Those of section engine are beamline/engine_limits.h.
const Bounds kOwnBounds[] = {
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
    {"limits.handshake_timeout_ms", 1, 600000},
    {"limits.keepalive_time_ms", 1000, 86400000},
    {"limits.keepalive_timeout_ms", 1, 600000},
    {"limits.min_open_files", 16, 1000000},
    {"tls.poll_ms", 10, 86400000},
    {"lifecycle.drain_delay_ms", 0, 600000},
    {"lifecycle.grace_ms", 0, 600000},
};

// `field <= other`, the other being a field too.
struct AtMost {
  std::string field;
  std::string other;
};
const AtMost kOwnRelations[] = {
    {"limits.max_unknown_field_bytes", "limits.max_receive_bytes"},
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
    for (const Bounds& bounds : bounds_) CheckBounds(bounds.field, bounds.low, bounds.high);
    for (const AtMost& relation : relations_) CheckRelation(relation);
    CheckAddress("listen.address", config_.listen().address());
    CheckListenPort();
    CheckAdmin();
    CheckTls();
    CheckEngine();
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
    return std::any_of(bounds_.begin(), bounds_.end(), [&](const Bounds& bounds) {
      return path == bounds.field && value >= bounds.low && value <= bounds.high;
    });
  }

  // Reported at whichever of the two the file sets, unless one is wrong by itself.
  void CheckRelation(const AtMost& relation) {
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
      Add(path, "not an address; give IPv4 or IPv6 in figures (127.0.0.1, 0.0.0.0, ::1) or localhost");
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
    if (!config_.has_tls() || !overrides_.check_artefacts) return;
    for (const auto& [field, text] : ReadTlsFiles(config_.tls(), absl::Now()).problems) {
      Add(absl::StrCat("tls.", field), text);
    }
  }

  void CheckWord(absl::string_view path, const std::string& value, const std::vector<std::string>& words) {
    if (std::find(words.begin(), words.end(), value) != words.end()) return;
    Add(path, absl::StrCat("\"", value, "\" is not one of ", absl::StrJoin(words, ", ")));
  }

  void CheckEngine() {
    const config::v1::Engine& engine = config_.engine();
    CheckWord("engine.device", engine.device(), {"cpu", "cuda", "auto"});
    CheckWord("engine.dtype", engine.dtype(), {"fp32", "bf16", "fp16", "int8"});
    CheckWord("engine.backend", engine.backend(), {"auto", "aten", "cpu", "cuda"});
    if (engine.bundle().empty() && engine.model_folder().empty()) {
      Add("engine.bundle", "missing: give the folder that `beamline pack` wrote, here or as --bundle");
      return;
    }
    if (!overrides_.check_artefacts) return;
    std::error_code ignored;
    if (!engine.model_folder().empty() && !std::filesystem::is_directory(engine.model_folder(), ignored)) {
      Add("engine.model_folder", absl::StrCat(engine.model_folder(), " is not a folder"));
    }
    if (!engine.bundle().empty() && !std::filesystem::is_directory(engine.bundle(), ignored)) {
      const std::string text = absl::StrCat(engine.bundle(), " is not a folder; write one with `beamline pack`");
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

  std::vector<Bounds> bounds_;
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
