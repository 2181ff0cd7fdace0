// SPDX-License-Identifier: Apache-2.0
#include "server/config.h"

#include <clocale>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/config_problems.h"
#include "testing/paths.h"

namespace beamline::server {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

ConfigOverrides NoFiles() {
  ConfigOverrides overrides;
  overrides.check_artefacts = false;
  return overrides;
}

// One string per problem; empty when there is none. A bundle is given, so that its lack is not among them.
std::vector<std::string> Problems(const std::string& text) {
  ConfigOverrides overrides = NoFiles();
  overrides.bundle = "b";
  const auto config = ParseServerConfig(text, "c.textproto", overrides);
  if (config.ok()) return {};
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  return absl::StrSplit(config.status().message(), '\n');
}

TEST(Config, LiveRequestsStayOnThisMachine) {
  EXPECT_THAT(Problems("admin { live_requests: true }"), ::testing::IsEmpty());
  EXPECT_THAT(Problems("admin {\n  live_requests: true\n  http_address: '0.0.0.0'\n}"),
              ElementsAre(AllOf(StartsWith("c.textproto:2: admin.live_requests: "), HasSubstr("0.0.0.0"))));
  EXPECT_THAT(Problems("admin { live_requests: true address: '10.0.0.1' allow_remote: true }"),
              ElementsAre(HasSubstr("admin.live_requests: ")));
  EXPECT_THAT(Problems("admin { live_requests: true address: '10.0.0.1' allow_remote: true http_address: '::1' }"),
              ::testing::IsEmpty());
}

TEST(Config, ADefaultThatASmallerLimitMakesIdleIsNoMistake) {
  EXPECT_THAT(Problems("limits { max_receive_bytes: 32768 }"), ::testing::IsEmpty());
}

TEST(Config, LogAndRecorderHaveRanges) {
  EXPECT_THAT(Problems("log { format: 'json' level: 'warning' }"), ::testing::IsEmpty());
  EXPECT_THAT(Problems("log {\n  format: 'xml'\n  level: 'loud'\n}"),
              ElementsAre("c.textproto:2: log.format: \"xml\" is not one of text, json",
                          "c.textproto:3: log.level: \"loud\" is not one of debug, info, warning, error"));
  EXPECT_THAT(Problems("admin {\n  recorded_requests: 100001\n  slow_request_ms: 0\n}"),
              ElementsAre("c.textproto:2: admin.recorded_requests: 100001 is outside 0..100000",
                          "c.textproto:3: admin.slow_request_ms: 0 is outside 1..3600000"));
}

TEST(Config, DefaultsAreTheEnginesOwn) {
  const auto config = ParseServerConfig("engine { bundle: 'b' }", "c", NoFiles());
  ASSERT_TRUE(config.ok()) << config.status();
  const EngineOptions options = EngineOptionsOf(*config), defaults;
  EXPECT_EQ(options.bundle, "b");
  EXPECT_EQ(options.catalogue, defaults.catalogue);
  EXPECT_EQ(options.device, defaults.device);
  EXPECT_EQ(options.dtype, defaults.dtype);
  EXPECT_EQ(options.backend, defaults.backend);
  EXPECT_EQ(options.threads, defaults.threads);
  EXPECT_EQ(options.workers, defaults.workers);
  EXPECT_EQ(options.score_rule, defaults.score_rule);
  EXPECT_EQ(options.default_beam_width, defaults.default_beam_width);
  EXPECT_EQ(options.max_beam_width, defaults.max_beam_width);
  EXPECT_EQ(options.max_top_k, defaults.max_top_k);
  EXPECT_EQ(options.max_history, defaults.max_history);
  EXPECT_EQ(options.max_eligibility_items, defaults.max_eligibility_items);
  EXPECT_EQ(options.max_rules, defaults.max_rules);
  EXPECT_EQ(options.max_batch_rows, defaults.max_batch_rows);
  EXPECT_EQ(options.max_batch_requests, defaults.max_batch_requests);
  EXPECT_EQ(options.queue_capacity, defaults.queue_capacity);
  EXPECT_EQ(options.admission, defaults.admission);
  EXPECT_EQ(options.max_queue_delay, defaults.max_queue_delay);
  EXPECT_EQ(options.default_deadline, defaults.default_deadline);
  EXPECT_EQ(options.context_cache_bytes, defaults.context_cache_bytes);
  EXPECT_EQ(options.model_folder, defaults.model_folder);
  EXPECT_EQ(options.tuning_folder, defaults.tuning_folder);
  EXPECT_EQ(options.allow_ungated_dtype, defaults.allow_ungated_dtype);
  EXPECT_FALSE(defaults.allow_ungated_dtype);
  EXPECT_EQ(options.model_poll_period, defaults.model_poll_period);
  EXPECT_EQ(options.keep_previous_model, defaults.keep_previous_model);
  EXPECT_TRUE(options.narrowing.empty()) << "off";
  EXPECT_TRUE(defaults.narrowing.empty());
  EXPECT_EQ(options.cost_measurement, defaults.cost_measurement);
  EXPECT_EQ(options.parallel.size, defaults.parallel.size);
  EXPECT_EQ(options.parallel.rank, defaults.parallel.rank);
  EXPECT_EQ(options.parallel.address, defaults.parallel.address);
  EXPECT_EQ(options.parallel.port, defaults.parallel.port);
  EXPECT_EQ(options.parallel.start_timeout, defaults.parallel.start_timeout);
  EXPECT_EQ(options.parallel.lost_after, defaults.parallel.lost_after);
  EXPECT_EQ(options.parallel.stalled_after, defaults.parallel.stalled_after);
}

TEST(Config, EveryEngineFieldArrives) {
  const auto config = ParseServerConfig(R"(
engine {
  bundle: "b" catalogue: "c" device: "auto" dtype: "bf16" backend: "aten" threads: 3 workers: 2 score_rule: SCORE_RULE_LEGAL
  default_beam_width: 11 max_beam_width: 12 max_top_k: 13 max_history: 14 max_eligibility_items: 15 max_rules: 16
  max_batch_rows: 170 max_batch_requests: 18 queue_capacity: 1900 admission: false max_queue_delay_us: 20 context_cache_bytes: 0
  model_folder: "m" tuning_folder: "t" allow_ungated_dtype: true model_poll_ms: 22 keep_previous_model: false cost_measurement_ms: 23
  narrowing { wait_ms: 24 beam_width: 9 } narrowing { wait_ms: 25 beam_width: 8 }
}
limits { default_deadline_ms: 21 }
parallel { size: 4 rank: 3 address: "rank0.example" port: 23 start_timeout_ms: 24 lost_after_ms: 2500 stalled_after_ms: 2600 })",
                                        "c", NoFiles());
  ASSERT_TRUE(config.ok()) << config.status();
  const EngineOptions options = EngineOptionsOf(*config);
  EXPECT_EQ(options.catalogue, "c");
  EXPECT_EQ(options.device, "auto");
  EXPECT_EQ(options.dtype, "bf16");
  EXPECT_TRUE(options.allow_ungated_dtype);
  EXPECT_EQ(options.backend, "aten");
  EXPECT_EQ(options.threads, 3);
  EXPECT_EQ(options.workers, 2);
  EXPECT_EQ(options.score_rule, ScoreRule::kLegal);
  EXPECT_EQ(options.default_beam_width, 11);
  EXPECT_EQ(options.max_beam_width, 12);
  EXPECT_EQ(options.max_top_k, 13);
  EXPECT_EQ(options.max_history, 14);
  EXPECT_EQ(options.max_eligibility_items, 15);
  EXPECT_EQ(options.max_rules, 16);
  EXPECT_EQ(options.max_batch_rows, 170);
  EXPECT_EQ(options.max_batch_requests, 18);
  EXPECT_EQ(options.queue_capacity, 1900);
  EXPECT_FALSE(options.admission);
  EXPECT_EQ(options.max_queue_delay, absl::Microseconds(20));
  EXPECT_EQ(options.context_cache_bytes, 0);
  EXPECT_EQ(options.model_folder, "m");
  EXPECT_EQ(options.tuning_folder, "t");
  EXPECT_EQ(options.model_poll_period, absl::Milliseconds(22));
  EXPECT_FALSE(options.keep_previous_model);
  EXPECT_EQ(options.cost_measurement, absl::Milliseconds(23));
  ASSERT_EQ(options.narrowing.size(), 2u);
  EXPECT_EQ(options.narrowing[1].wait, absl::Milliseconds(25));
  EXPECT_EQ(options.narrowing[1].beam_width, 8);
  EXPECT_EQ(options.default_deadline, absl::Milliseconds(21));
  EXPECT_EQ(options.parallel.size, 4);
  EXPECT_EQ(options.parallel.rank, 3);
  EXPECT_EQ(options.parallel.address, "rank0.example");
  EXPECT_EQ(options.parallel.port, 23);
  EXPECT_EQ(options.parallel.start_timeout, absl::Milliseconds(24));
  EXPECT_EQ(options.parallel.lost_after, absl::Milliseconds(2500));
  EXPECT_EQ(options.parallel.stalled_after, absl::Milliseconds(2600));
}

TEST(Config, RanksOfAGroupAreChecked) {
  const auto problem = [](const std::string& text) { return Problems("parallel { " + text + " }"); };
  EXPECT_THAT(problem("size: 2 rank: 1"), ElementsAre());
  EXPECT_THAT(problem("size: 65"), ElementsAre(HasSubstr("parallel.size: 65 is outside 1..64")));
  EXPECT_THAT(problem("size: 2 rank: 2"),
              ElementsAre(HasSubstr("parallel.rank: 2 is outside 0..1, the ranks of parallel.size 2")));
  EXPECT_THAT(problem("rank: 1"), ElementsAre(HasSubstr("parallel.rank: 1 is outside 0..0")));
  EXPECT_THAT(problem("size: 2 address: ''"), ElementsAre(HasSubstr("parallel.address: is empty")));
  EXPECT_THAT(problem("size: 2 port: 0"), ElementsAre(HasSubstr("parallel.port: 0 is outside 1..65535")));
  EXPECT_THAT(problem("size: 2 port: 50051"), ElementsAre(HasSubstr("parallel.port: 50051 is listen.port too")));
  EXPECT_THAT(Problems("parallel { size: 2 port: 50053 } admin {}"), ElementsAre(HasSubstr("a port of admin too")));
  EXPECT_THAT(problem("size: 2 lost_after_ms: 9000"),
              ElementsAre(HasSubstr("parallel.lost_after_ms: 9000 is outside 200..8000")));
  EXPECT_THAT(problem("size: 2 start_timeout_ms: 0"), ElementsAre(HasSubstr("parallel.start_timeout_ms: 0")));
  EXPECT_THAT(problem("size: 2 stalled_after_ms: 999"),
              ElementsAre(HasSubstr("parallel.stalled_after_ms: 999 is outside 1000..3600000")));
  for (const std::string dtype : {"int8", "fp8", "fp8_mixed"}) {
    const std::string text = "engine { bundle: 'b' device: 'auto' dtype: '" + dtype + "' }";
    EXPECT_THAT(Problems(text + " parallel { size: 1 }"), ElementsAre());
    EXPECT_THAT(Problems(text + " parallel { size: 2 }"),
                ElementsAre(HasSubstr("engine.dtype: " + dtype + " needs parallel.size 1, and it is 2")));
  }
  EXPECT_THAT(Problems("engine { dtype: 'bf16' } parallel { size: 2 }"), ElementsAre());
  ConfigOverrides overrides = NoFiles();
  overrides.rank = 3;
  EXPECT_THAT(
      std::string(
          ParseServerConfig("engine { bundle: 'b' } parallel { size: 2 rank: 1 }", "c", overrides).status().message()),
      HasSubstr("--rank: 3 is outside 0..1"));
}

TEST(Config, AdminPortsBeyondLoopbackNeedTheFlag) {
  for (const char* text : {"admin { address: '0.0.0.0' allow_remote: true }", "admin { address: '127.1.2.3' }",
                           "admin { address: '::1' }", "admin { address: 'localhost' }", "admin {}"}) {
    EXPECT_THAT(Problems(text), ElementsAre()) << text;
  }
}

TEST(Config, AllProblemsAreReportedAtOnceWithTheirLines) {
  EXPECT_THAT(Problems("listen {\n"
                       "  adress: \"127.0.0.1\"\n"
                       "  port: 99999\n"
                       "}\n"
                       "engine {\n"
                       "  max_beam_width: \"8gb\"\n"
                       "  threads: -1\n"
                       "  device: \"tpu\"\n"
                       "  queue_capacity: 1e3\n"
                       "}\n"
                       "limit { max_batch_users: 0 }\n"
                       "lifecycle { grace_ms: 600001 }\n"),
              ElementsAre(AllOf(StartsWith("c.textproto:2: "), HasSubstr("did you mean address?")),
                          AllOf(StartsWith("c.textproto:3: listen.port: 99999"), HasSubstr("1..65535")),
                          StartsWith("c.textproto:6: "),  //
                          AllOf(StartsWith("c.textproto:7: engine.threads: -1"), HasSubstr("0..1024")),
                          AllOf(StartsWith("c.textproto:8: engine.device: \"tpu\""), HasSubstr("cpu, cuda, auto")),
                          StartsWith("c.textproto:9: "),
                          AllOf(StartsWith("c.textproto:11: "), HasSubstr("did you mean limits?")),
                          StartsWith("c.textproto:12: lifecycle.grace_ms: 600001")));
}

TEST(Config, EveryStepOfTheLadderIsHeldToTheOneBefore) {
  EXPECT_THAT(Problems("engine {\n"
                       "  narrowing { wait_ms: 20 beam_width: 64 }\n"
                       "  narrowing { wait_ms: 40 beam_width: 32 }\n"
                       "}\n"),
              ElementsAre());
  EXPECT_THAT(
      Problems("engine {\n"
               "  narrowing { wait_ms: -1 beam_width: 1025 }\n"
               "  narrowing { wait_ms: 40 beam_width: 32 }\n"
               "  narrowing { wait_ms: 40 beam_width: 32 }\n"
               "  narrowing { beam_width: 8 }\n"
               "}\n"),
      ElementsAre(
          StartsWith("c.textproto:2: engine.narrowing[0].wait_ms: -1 is outside 0..3600000"),
          StartsWith("c.textproto:2: engine.narrowing[0].beam_width: 1025 is outside 1..1024"),
          StartsWith("c.textproto:4: engine.narrowing[2].wait_ms: 40 is not above that of the step before it (40)"),
          StartsWith("c.textproto:4: engine.narrowing[2].beam_width: 32 is not below"),
          StartsWith("c.textproto:5: engine.narrowing[3].wait_ms: 0 is not above")));
  std::string many = "engine {\n";
  for (int i = 0; i < 9; ++i) absl::StrAppend(&many, "narrowing { wait_ms: ", i, " beam_width: ", 20 - i, " }\n");
  EXPECT_THAT(Problems(many + "}\n"), ElementsAre(HasSubstr("engine.narrowing: has 9 steps, at most 8")));
}

TEST(Config, AMistakeBesideABraceDoesNotHideTheOthers) {
  EXPECT_THAT(Problems("listen { address: \"127.0.0.1\" port: \"x\" }\n"
                       "engine { dtype: \"fp{32\" threads: 3.5 workers: 65 score_rule: FULL }\n"
                       "limits { max_batch_users: 0 }\n"),
              ElementsAre(AllOf(StartsWith("c.textproto:1: "), HasSubstr("integer")),
                          AllOf(StartsWith("c.textproto:2: "), HasSubstr("integer")),
                          AllOf(StartsWith("c.textproto:2: "), HasSubstr("FULL")),
                          AllOf(StartsWith("c.textproto:2: engine.workers: 65")),
                          AllOf(StartsWith("c.textproto:2: engine.dtype")),
                          StartsWith("c.textproto:3: limits.max_batch_users: 0")));
  EXPECT_THAT(Problems("engine { threads: 3.5, score_rule: FULL;\n workers: 65 }\n"),
              ElementsAre(AllOf(StartsWith("c.textproto:1: "), HasSubstr("integer")),
                          AllOf(StartsWith("c.textproto:1: "), HasSubstr("FULL")),
                          StartsWith("c.textproto:2: engine.workers: 65")));
}

// Their errors come from the parser one token late, which may be on another line.
TEST(Config, EnumsAndSwitchesAreBlamedOnTheirOwnLine) {
  EXPECT_THAT(Problems("engine {\n"
                       "  score_rule: SCORE_RULE_X\n"
                       "  default_beam_width: 0\n"
                       "  threads: -5\n"
                       "}\n"
                       "limits { max_connections: 0 }\n"),
              ElementsAre(AllOf(StartsWith("c.textproto:2: "), HasSubstr("\"SCORE_RULE_X\" for field \"score_rule\""),
                                HasSubstr("in: score_rule: SCORE_RULE_X")),
                          StartsWith("c.textproto:3: engine.default_beam_width: 0 "),
                          StartsWith("c.textproto:4: engine.threads: -5 "),
                          StartsWith("c.textproto:6: limits.max_connections: 0 ")));
  EXPECT_THAT(Problems("reflection: maybe\n"
                       "engine {\n"
                       "  default_beam_width: 0\n"
                       "}\n"
                       "limits { max_connections: 0 }\n"),
              ElementsAre(AllOf(StartsWith("c.textproto:1: "), HasSubstr("in: reflection: maybe")),
                          StartsWith("c.textproto:3: engine.default_beam_width: 0 "),
                          StartsWith("c.textproto:5: limits.max_connections: 0 ")));
}

TEST(Config, AValueReadPastIsFoundHoweverItIsWritten) {
  const char* rest = "limits { max_connections: 0 }\n";
  for (const char* text : {
           "\treflection: maybe\t# maybe: } not\n\n\n\t\t",
           "\treflection\t:\tmaybe ",
           "\treflection:maybe,",
           "\treflection: # yes or no\n  maybe # it is\n",
           "health: true reflection: maybe health_is_no_field: 1 ",
           "\t\t\thealth: true\treflection: maybe\t",
           "engine { catalogue: \"# reflection: { \" } reflection: maybe\n",
           "health: maybe # at the end of it\n",
           "engine { score_rule: score_rule }\n",
           "engine { keep_previous_model: keep_previous_model\n}\n",
           "engine {\tscore_rule: FULL\n\n} ",
       }) {
    const std::vector<std::string> problems = Problems(absl::StrCat(text, rest));
    const bool two = absl::StrContains(text, "health_is_no_field");
    ASSERT_EQ(problems.size(), two ? 3u : 2u) << text << ": " << ::testing::PrintToString(problems);
    EXPECT_THAT(problems[0], StartsWith("c.textproto:1: ")) << text;
    EXPECT_THAT(problems.back(), HasSubstr(": limits.max_connections: 0 ")) << text;
  }
  EXPECT_THAT(Problems("health: true\nreflection: maybe"),  // nothing behind it
              ElementsAre(AllOf(StartsWith("c.textproto:2: "), HasSubstr("in: reflection: maybe"))));
}

struct BadConfig {
  const char* text;
  const char* line;     // how the problem's line begins
  const char* mention;  // and what it names
};

TEST(Config, EachProblemIsFoundAlone) {
  const BadConfig cases[] = {
      {"listen { port: 0 }", "c.textproto:1: listen.port: 0", "1..65535"},
      {"listen { port: -1 }", "c.textproto:1: listen.port: -1", "1..65535"},
      {"listen { port: 65536 }", "c.textproto:1: listen.port: 65536", "1..65535"},
      {"listen { address: 'example.com' }", "c.textproto:1: listen.address", "localhost"},
      {"listen { address: 'unix:/tmp/x' }", "c.textproto:1: listen.address", "not an address"},
      {"listen { address: '' }", "c.textproto:1: listen.address", "not an address"},
      {"listen { address: '127.0.0.1:80' }", "c.textproto:1: listen.address", "not an address"},
      {"listen { port: 1 port: 2 }", "c.textproto:1: ", "port"},
      {"listen { port: 0x50 }", "c.textproto:1: port: 0x50", "decimal"},
      {"listen { port: 0123 }", "c.textproto:1: port: 0123", "decimal"},
      {"listen { port: 80.5 }", "c.textproto:1: ", "integer"},
      {"listen { port: 99999999999 }", "c.textproto:1: ", "range"},
      {"listen { port: }", "c.textproto:1: ", "in: listen { port: }"},
      {"listen { port: 80 } }", "c.textproto:1: ", ""},
      {"listen {", "c.textproto:1: ", "is a '}' missing?"},
      {"listen { port: 5 }\nengine {  # } {\n  threads: 1\n", "c.textproto:4: ", "The '{' of line 2 is not closed."},
      {"engine { score_rule: FULL }", "c.textproto:1: ", "FULL"},
      {"engine { backend: 'mkl' }", "c.textproto:1: engine.backend", "auto, aten, cpu"},
      {"engine { dtype: 'FP32' }", "c.textproto:1: engine.dtype", "fp32, bf16, fp16, fp8, fp8_mixed, int8"},
      {"engine { dtype: 'fp16' }", "c.textproto:1: engine.dtype: fp16 needs device cuda", "engine.device is cpu"},
      {"engine { device: 'auto' dtype: 'fp8' backend: 'aten' }", "c.textproto:1: engine.dtype: fp8 needs backend cuda",
       "engine.backend is aten"},
      {"engine { dtype: 'fp8_mixed' }", "c.textproto:1: engine.dtype: fp8_mixed needs device cuda",
       "engine.device is cpu"},
      {"engine { device: 'cuda' dtype: 'int8' }", "c.textproto:1: engine.dtype: int8 needs device cpu", "is cuda"},
      {"engine { dtype: 'int8' backend: 'aten' }", "c.textproto:1: engine.dtype: int8 needs backend cpu", "is aten"},
      {"engine { device: 'cuda' backend: 'cpu' }", "c.textproto:1: engine.backend: cpu needs device cpu", "is cuda"},
      {"engine { backend: 'cuda' }", "c.textproto:1: engine.backend: cuda needs device cuda", "engine.device is cpu"},
      {"engine { threads: 1000000 }", "c.textproto:1: engine.threads: 1000000", "0..1024"},
      {"engine { workers: 65 }", "c.textproto:1: engine.workers: 65", "0..64"},
      {"engine { max_batch_requests: 0 }", "c.textproto:1: engine.max_batch_requests: 0", "1..4096"},
      {"engine { queue_capacity: 0 }", "c.textproto:1: engine.queue_capacity: 0", "1..1000000"},
      {"engine { max_beam_width: 8 }", "c.textproto:1: engine.default_beam_width: 32", "engine.max_beam_width (8)"},
      {"engine { default_beam_width: 2000 }", "c.textproto:1: engine.default_beam_width: 2000", "1024, the default"},
      {"engine { max_batch_rows: 512 }", "c.textproto:1: engine.max_beam_width: 1024", "engine.max_batch_rows (512)"},
      {"engine { queue_capacity: 100 }", "c.textproto:1: limits.max_batch_users: 256", "engine.queue_capacity (100)"},
      {"engine { max_queue_delay_us: 2000000 }", "c.textproto:1: engine.max_queue_delay_us: 2000000", "2000 ms"},
      {"engine { context_cache_bytes: -1 }", "c.textproto:1: engine.context_cache_bytes: -1", "0.."},
      {"limits { default_deadline_ms: 70000 }", "c.textproto:1: limits.default_deadline_ms: 70000", "max_deadline_ms"},
      {"limits { max_receive_bytes: 32768 max_unknown_field_bytes: 32769 }",
       "c.textproto:1: limits.max_unknown_field_bytes: 32769", "limits.max_receive_bytes (32768)"},
      {"limits { max_receive_bytes: 1023 }", "c.textproto:1: limits.max_receive_bytes: 1023", "1024.."},
      {"limits { handshake_timeout_ms: 0 }", "c.textproto:1: limits.handshake_timeout_ms: 0", "100..600000"},
      {"limits { max_connection_idle_ms: -1 }", "c.textproto:1: limits.max_connection_idle_ms: -1", "0..86400000"},
      {"limits { min_open_files: 2 }", "c.textproto:1: limits.min_open_files: 2", "16..1000000"},
      {"limits { max_connections: 0 }", "c.textproto:1: limits.max_connections: 0", "1..1000000"},
      {"limits { max_network_bytes: 5 }", "c.textproto:1: limits.max_network_bytes: 5", "16777216..1099511627776"},
      {"lifecycle { broken_exit_ms: -1 }", "c.textproto:1: lifecycle.broken_exit_ms: -1", "0..86400000"},
      {"engine { model_poll_ms: 1 }", "c.textproto:1: engine.model_poll_ms: 1", "10.."},
      {"admin { port: 0 }", "c.textproto:1: admin.port: 0", "1..65535"},
      {"admin { http_port: 70000 }", "c.textproto:1: admin.http_port: 70000", "1..65535"},
      {"admin { address: 'here' }", "c.textproto:1: admin.address", "localhost"},
      {"admin { http_address: 'here' }", "c.textproto:1: admin.http_address", "localhost"},
      {"tls { poll_ms: 1 }", "c.textproto:1: tls.poll_ms: 1", "10.."},
      {"admin { address: '0.0.0.0' }", "c.textproto:1: admin.address: \"0.0.0.0\"", "admin.allow_remote: true"},
      {"admin { address: '::' }", "c.textproto:1: admin.address: \"::\"", "admin.allow_remote: true"},
      {"admin { address: '127.example' allow_remote: true }", "c.textproto:1: admin.address", "not an address"},
      {"admin { http_port: 50052 }", "c.textproto:1: admin.http_port: 50052", "admin.port"},
      {"admin { port: 50051 }", "c.textproto:1: admin.port: 50051", "listen.port"},
      {"lifecycle { grace_ms: -1 }", "c.textproto:1: lifecycle.grace_ms: -1", "0..600000"},
      {"reflection: 2", "c.textproto:1: ", "in: reflection: 2"},
      {"reflection: 'true'", "c.textproto:1: ", ""},
      {"engine { catalogue: 'a\\000b' }", "c.textproto:1: engine.catalogue", "control character 0 at byte 1"},
      {"engine { model_folder: 'a\\nb' }", "c.textproto:1: engine.model_folder", "control character 10 at byte 1"},
      {"tls { certificate: '\\033[2J' key: 'k' }", "c.textproto:1: tls.certificate", "control character 27 at byte 0"},
      {"zzzzzzzzzz: 1", "c.textproto:1: zzzzzzzzzz", "known are listen, engine, limits"},
      {"# a comment\n\nrefection: true", "c.textproto:3: refection", "did you mean reflection?"},
  };
  for (const BadConfig& bad : cases) {
    const std::vector<std::string> problems = Problems(bad.text);
    ASSERT_EQ(problems.size(), 1u) << bad.text << ": " << ::testing::PrintToString(problems);
    EXPECT_THAT(problems[0], AllOf(StartsWith(bad.line), HasSubstr(bad.mention))) << bad.text;
  }
}

// What somebody reads in a terminal: not a megabyte, whatever the file holds.
TEST(Config, ReportsAreShort) {
  std::string unknown, numbers;
  for (int i = 0; i < 2000; ++i) {
    absl::StrAppend(&unknown, "nonsense", i, ": 1\n");
    absl::StrAppend(&numbers, "07 ");
  }
  for (const std::string& text : {unknown, "listen { port: " + numbers + "}"}) {
    const std::vector<std::string> problems = Problems(text);
    ASSERT_EQ(problems.size(), 51u);
    EXPECT_THAT(problems.back(), AllOf(StartsWith("c.textproto: and "), HasSubstr("more problems")));
  }
  const std::string name(500'000, 'n');
  for (const std::string& text :
       {name + ": 1", "listen { address: '" + name + "' }", "engine { dtype: '" + name + "' }"}) {
    const std::vector<std::string> problems = Problems(text);
    ASSERT_EQ(problems.size(), 1u);
    EXPECT_LT(problems[0].size(), 1100u);
  }
}

TEST(Config, NumbersInTextAndCommentsAreNotNumbers) {
  EXPECT_THAT(Problems("# 0x10 and 007\nengine { catalogue: \"/data/007/0x10\" }  # 08\nlisten { port: 5005 }"),
              ElementsAre());
}

TEST(Config, OverridesWinAndAreCheckedUnderTheirOwnName) {
  ConfigOverrides overrides = NoFiles();
  overrides.bundle = "other";
  overrides.port = 1234;
  const auto config = ParseServerConfig("engine { bundle: 'b' } listen { port: 1 }", "c", overrides);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->engine().bundle(), "other");
  EXPECT_EQ(config->listen().port(), 1234);
  overrides.port = 0;
  EXPECT_THAT(std::string(ParseServerConfig("health: true", "c", overrides).status().message()),
              StartsWith("c: --port: 0 is outside 1..65535"));
  overrides.any_port = true;
  EXPECT_TRUE(ParseServerConfig("health: true", "c", overrides).ok());
}

TEST(Config, TheBundleMustBeGivenAndExist) {
  EXPECT_THAT(std::string(ParseServerConfig("health: true", "c", NoFiles()).status().message()),
              AllOf(StartsWith("c: engine.bundle: missing"), HasSubstr("--bundle")));
  EXPECT_THAT(std::string(ParseServerConfig("\nengine {\n bundle: '/nowhere' }", "c", {}).status().message()),
              StartsWith("c:3: engine.bundle: /nowhere is not a folder"));
  EXPECT_TRUE(ParseServerConfig("engine { model_folder: 'models' }", "c", NoFiles()).ok());
  EXPECT_THAT(std::string(ParseServerConfig("engine { model_folder: '/nowhere' }", "c", {}).status().message()),
              StartsWith("c:1: engine.model_folder: /nowhere is not a folder"));
}

TEST(Config, WhatIsNoTextGetsOneLine) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "empty"},
      {" \n\t\n", "empty"},
      {"\xef\xbb\xbfhealth: true", "byte order mark"},
      {std::string("\xff\xfeh\0e\0", 6), "UTF-16"},
      {std::string("\x7f\x45LF\0\0\1", 7), "not a text file"},
      {"health: true # \xc3\x28", "not a text file"},
      {"health: true # \xe0\x80\xaf", "not a text file"},  // overlong
      {"health: true # \xed\xa0\x80", "not a text file"},  // a surrogate
      {"health: true\nreflection: true\r\n", "c.textproto:2: the line ends with CR"},
  };
  for (const auto& [text, mention] : cases) {
    const std::vector<std::string> problems = Problems(text);
    ASSERT_EQ(problems.size(), 1u) << mention;
    EXPECT_THAT(problems[0], HasSubstr(mention));
  }
}

TEST(Config, FilesThatCannotBeReadAreNamed) {
  const std::filesystem::path folder = ::testing::TempDir();
  for (const auto& path : {folder / "missing.textproto", folder}) {
    const auto config = LoadServerConfig(path.string(), {});
    ASSERT_FALSE(config.ok());
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(path.string()));
  }
  const std::string large = (folder / "large.textproto").string();
  std::ofstream(large) << std::string(kMaxConfigBytes + 1, '#');
  EXPECT_FALSE(LoadServerConfig(large, {}).ok());
}

TEST(Config, TheExamplesAreValid) {
  ConfigOverrides overrides;
  overrides.bundle = ::testing::TempDir();
  for (const char* name : {"demo.textproto", "server.textproto"}) {
    const std::string path = BEAMLINE_SOURCE_DIR + "/configs/" + name;
    EXPECT_TRUE(LoadServerConfig(path, overrides).ok()) << LoadServerConfig(path, overrides).status();
  }
}

TEST(Nearest, FindsTyposAndNothingElse) {
  const std::vector<std::string> names = {"max_beam_width", "max_batch_rows", "port"};
  EXPECT_EQ(Nearest("max_beem_width", names), "max_beam_width");
  EXPECT_EQ(Nearest("prot", names), "");
  EXPECT_EQ(Nearest("por", names), "port");
  EXPECT_EQ(Nearest("entirely_different", names), "");
}

}  // namespace
}  // namespace beamline::server
