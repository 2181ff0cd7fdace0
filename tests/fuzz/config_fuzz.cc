// SPDX-License-Identifier: Apache-2.0
//
// The text of a server's configuration. Every line of a refusal opens with the file; what passes also passes the
// engine's check of its options, and means the same when it is printed and read again.
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "engine/request_check.h"
#include "fuzz/fuzz_target.h"
#include "google/protobuf/text_format.h"
#include "server/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace beamline;  // NOLINT(google-build-using-namespace)
  constexpr char kName[] = "c.textproto";
  server::ConfigOverrides overrides;
  overrides.bundle = "b";
  overrides.check_artefacts = false;
  const auto config = server::ParseServerConfig(std::string(fuzz::AsText(data, size)), kName, overrides);
  if (!config.ok()) {
    fuzz::Require(config.status().code() == absl::StatusCode::kInvalidArgument, config.status().ToString());
    const std::vector<std::string> lines = absl::StrSplit(config.status().message(), '\n');
    fuzz::Require(lines.size() <= 1000, "as many problems as anybody can read");
    for (const std::string& line : lines) {
      fuzz::Require(absl::StartsWith(line, kName) && line.size() < 4096, "a problem names the file: " + line);
    }
    return 0;
  }
  fuzz::RequireOk(engine::CheckOptions(server::EngineOptionsOf(*config)), "what is configured, the engine takes");
  std::string printed;
  fuzz::Require(google::protobuf::TextFormat::PrintToString(*config, &printed), "a configuration can be printed");
  const auto again = server::ParseServerConfig(printed, kName, overrides);
  fuzz::RequireOk(again.status(), "and read again");
  fuzz::Require(again->SerializeAsString() == config->SerializeAsString(), "and is the same");
  return 0;
}
