// SPDX-License-Identifier: Apache-2.0
//
// Reads the configuration of `beamline serve`: protobuf text, checked in full against its schema and against ranges and
// relations between fields. All that is wrong is reported at once, one line each: "FILE:LINE: field: what is wrong, the
// limit, the value". The whole file is read before any of it is used. Pure but for reading the file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "beamline/config/v1/server_config.pb.h"
#include "beamline/engine.h"

namespace beamline::server {

inline constexpr uint64_t kMaxConfigBytes = 1 << 20;

struct ConfigOverrides {  // the command line's, stronger than the file
  std::optional<std::string> bundle;
  std::optional<int> port;
  std::optional<int> rank;      // parallel.rank
  bool any_port = false;        // allow port 0: the system chooses. For tests
  bool check_artefacts = true;  // the files and folders of `engine` and `tls` must exist and fit together
};

// INVALID_ARGUMENT: one line per problem; or why the file cannot be read, as base/file.h says it.
absl::StatusOr<config::v1::ServerConfig> LoadServerConfig(const std::string& path, const ConfigOverrides& overrides);

// What a configuration that may be wrong asks of the log, as far as it can be read.
config::v1::Log LogOf(const std::string& path);
// The same of text in memory; `name` stands where the path would.
absl::StatusOr<config::v1::ServerConfig> ParseServerConfig(const std::string& text, const std::string& name,
                                                           const ConfigOverrides& overrides);

// Of an address in figures, or "localhost".
bool IsLoopback(const std::string& address);

// REQUIRES: `config` came from the functions above.
EngineOptions EngineOptionsOf(const config::v1::ServerConfig& config);

}  // namespace beamline::server
