// SPDX-License-Identifier: Apache-2.0
#include "server/config.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/file.h"
#include "base/utf8.h"
#include "beamline/status.h"
#include "server/config_problems.h"

namespace beamline::server {
namespace {

// A megabyte of mistakes is no report.
constexpr size_t kMaxShownProblems = 50;
constexpr size_t kMaxProblemBytes = 1000;

// What is no text file at all gets one line, not a list of the parser's misunderstandings.
absl::Status CheckEncoding(const std::string& text, const std::string& name) {
  const auto refuse = [&](absl::string_view why) { return absl::InvalidArgumentError(absl::StrCat(name, ": ", why)); };
  if (text.find_first_not_of(" \t\r\n") == std::string::npos) {
    return refuse("the file is empty; configs/ has examples to start from");
  }
  if (absl::StartsWith(text, "\xff\xfe") || absl::StartsWith(text, "\xfe\xff")) {
    return refuse("the file is UTF-16; save it as UTF-8");
  }
  if (absl::StartsWith(text, "\xef\xbb\xbf")) return refuse("the file starts with a byte order mark; save it without");
  if (text.find('\0') != std::string::npos || !IsUtf8(text)) return refuse("not a text file in UTF-8");
  if (const size_t at = text.find('\r'); at != std::string::npos) {
    const auto line = 1 + std::count(text.begin(), text.begin() + at, '\n');
    return absl::InvalidArgumentError(
        absl::StrCat(name, ":", line, ": the line ends with CR; save the file with LF line ends"));
  }
  return absl::OkStatus();
}

}  // namespace

void ConfigProblems::Add(int line, const std::string& text) {
  problems_.push_back({line, PrintableUtf8(text, kMaxProblemBytes)});
}

absl::Status ConfigProblems::ToStatus() const {
  if (problems_.empty()) return absl::OkStatus();
  std::vector<Problem> sorted = problems_;
  // Problems without a line come last.
  std::stable_sort(sorted.begin(), sorted.end(), [](const Problem& a, const Problem& b) {
    return (a.line == 0 ? INT32_MAX : a.line) < (b.line == 0 ? INT32_MAX : b.line);
  });
  if (sorted.size() > kMaxShownProblems) {
    const size_t more = sorted.size() - kMaxShownProblems;
    sorted.resize(kMaxShownProblems);
    sorted.push_back({0, absl::StrCat("and ", more, " more problems")});
  }
  return absl::InvalidArgumentError(absl::StrJoin(sorted, "\n", [this](std::string* out, const Problem& problem) {
    absl::StrAppend(out, name_, problem.line > 0 ? absl::StrCat(":", problem.line) : "", ": ", problem.text);
  }));
}

absl::StatusOr<config::v1::ServerConfig> ParseServerConfig(const std::string& text, const std::string& name,
                                                           const ConfigOverrides& overrides) {
  BEAMLINE_RETURN_IF_ERROR(CheckEncoding(text, name));
  ConfigProblems problems(name);
  config::v1::ServerConfig config;
  const auto locations = ParseConfigText(text, &config, &problems);
  if (overrides.bundle) config.mutable_engine()->set_bundle(*overrides.bundle);
  if (overrides.port) config.mutable_listen()->set_port(*overrides.port);
  if (overrides.rank) config.mutable_parallel()->set_rank(*overrides.rank);
  CheckConfig(config, *locations, overrides, &problems);
  BEAMLINE_RETURN_IF_ERROR(problems.ToStatus());
  return config;
}

absl::StatusOr<config::v1::ServerConfig> LoadServerConfig(const std::string& path, const ConfigOverrides& overrides) {
  BEAMLINE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxConfigBytes));
  return ParseServerConfig(text, path, overrides);
}

config::v1::Log LogOf(const std::string& path) {
  config::v1::ServerConfig config;
  ConfigProblems ignored(path);
  const absl::StatusOr<std::string> text = ReadFile(path, kMaxConfigBytes);
  if (text.ok() && CheckEncoding(*text, path).ok()) ParseConfigText(*text, &config, &ignored);
  return config.log();
}

bool IsLoopback(const std::string& address) {
  return address == "localhost" || address == "::1" || absl::StartsWith(address, "127.");
}

EngineOptions EngineOptionsOf(const config::v1::ServerConfig& config) {
  const config::v1::Engine& engine = config.engine();
  EngineOptions options;
  options.bundle = engine.bundle();
  options.catalogue = engine.catalogue();
  options.model_folder = engine.model_folder();
  options.model_poll_period = absl::Milliseconds(engine.model_poll_ms());
  options.keep_previous_model = engine.keep_previous_model();
  options.device = engine.device();
  options.dtype = engine.dtype();
  options.allow_ungated_dtype = engine.allow_ungated_dtype();
  options.backend = engine.backend();
  options.tuning_folder = engine.tuning_folder();
  options.threads = engine.threads();
  options.workers = engine.workers();
  options.score_rule = engine.score_rule() == config::v1::SCORE_RULE_LEGAL ? ScoreRule::kLegal : ScoreRule::kFull;
  options.default_beam_width = engine.default_beam_width();
  options.max_beam_width = engine.max_beam_width();
  options.max_top_k = engine.max_top_k();
  options.max_history = engine.max_history();
  options.max_eligibility_items = engine.max_eligibility_items();
  options.max_rules = engine.max_rules();
  options.max_batch_rows = engine.max_batch_rows();
  options.max_batch_requests = engine.max_batch_requests();
  options.queue_capacity = engine.queue_capacity();
  options.admission = engine.admission();
  options.max_queue_delay = absl::Microseconds(engine.max_queue_delay_us());
  options.default_deadline = absl::Milliseconds(config.limits().default_deadline_ms());
  for (const config::v1::NarrowingStep& step : engine.narrowing()) {
    options.narrowing.push_back({absl::Milliseconds(step.wait_ms()), step.beam_width()});
  }
  options.cost_measurement = absl::Milliseconds(engine.cost_measurement_ms());
  options.context_cache_bytes = engine.context_cache_bytes();
  const config::v1::Parallel& parallel = config.parallel();
  options.parallel.size = parallel.size();
  options.parallel.rank = parallel.rank();
  options.parallel.address = parallel.address();
  options.parallel.port = parallel.port();
  options.parallel.start_timeout = absl::Milliseconds(parallel.start_timeout_ms());
  options.parallel.lost_after = absl::Milliseconds(parallel.lost_after_ms());
  options.parallel.stalled_after = absl::Milliseconds(parallel.stalled_after_ms());
  return options;
}

}  // namespace beamline::server
