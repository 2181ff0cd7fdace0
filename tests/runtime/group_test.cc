// SPDX-License-Identifier: Apache-2.0
//
// Bundles of both families served by several ranks, here threads, give the lists of one; contexts, reloads and errors
// reach every rank. What processes do when one dies is tests/deploy.
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <random>
#include <stdexcept>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <sched.h>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "backend/backend.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/may_pass.h"
#include "base/program.h"
#include "catalogue/rule_cache.h"
#include "parallel/group_fixture.h"
#include "runtime/bundle_folder.h"
#include "runtime/group_leader.h"
#include "runtime/group_message.h"
#include "runtime/import_hf.h"
#include "runtime/request_job.h"
#include "runtime/runner.h"
#include "runtime/tiny_bundle.h"
#include "spdlog/sinks/base_sink.h"
#include "testing/idle_policy.h"
#include "testing/paths.h"

namespace beamline::runtime {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using testing::TinyBundleOptions;

fs::path Folder(const std::string& name) { return fs::path(::testing::TempDir()) / absl::StrCat("group_test_", name); }

std::string TinyBundle(const std::string& name, const TinyBundleOptions& options) {
  const auto manifest = testing::WriteTinyBundle(Folder(name), options);
  EXPECT_TRUE(manifest.ok()) << manifest.status();
  return Folder(name).string();
}

// A checkpoint of tests/golden/t5.
std::string T5Bundle(const std::string& name) {
  ImportHfOptions import;
  import.folder = fs::path(BEAMLINE_SOURCE_DIR) / "tests/golden/t5" / name / "hf";
  import.sid_index = (import.folder.parent_path() / "index.json").string();
  import.index.id_offset = 1;
  import.score_end = name.find("end") != std::string::npos;
  import.out = Folder(name);
  import.overwrite = true;
  const auto result = ImportHf(import);
  EXPECT_TRUE(result.ok()) << result.status();
  return import.out.string();
}

// Rank 0 is this thread, through `leader`; the others follow in threads of their own until Leave.
class RunningGroup {
 public:
  RunningGroup(int size, const RunnerOptions& options, const std::vector<std::string>& bundles_of_others = {})
      : size_(size), statuses_(size) {
    const int port = parallel::testing::FreePort();
    for (int rank = 1; rank < size; ++rank) {
      followers_.emplace_back([this, rank, port, options, bundles_of_others] {
        RunnerOptions own = options;
        if (!bundles_of_others.empty()) own.bundle = bundles_of_others[rank - 1];
        statuses_[rank] = FollowGroup(own, parallel::testing::OptionsOf(rank, size_, port));
      });
    }
    auto started = StartGroup(options, parallel::testing::OptionsOf(0, size, port));
    EXPECT_TRUE(started.ok()) << started.status();
    if (started.ok()) leader = *std::move(started);
  }
  ~RunningGroup() { Leave(); }

  // In order, unless somebody still holds the leader.
  const std::vector<absl::Status>& Leave() {
    leader.reset();
    for (std::thread& follower : followers_) {
      if (follower.joinable()) follower.join();
    }
    return statuses_;
  }
  absl::StatusOr<std::unique_ptr<Runner>> TryLoad(RunnerOptions options) const {
    options.group = leader;
    return LoadRunner(options);
  }
  std::unique_ptr<Runner> Load(const RunnerOptions& options) const {
    auto runner = TryLoad(options);
    EXPECT_TRUE(runner.ok()) << runner.status();
    return runner.ok() ? *std::move(runner) : nullptr;
  }

  std::shared_ptr<GroupLeader> leader;

 private:
  const int size_;
  std::vector<absl::Status> statuses_;
  std::vector<std::thread> followers_;
};

using Jobs = std::vector<std::unique_ptr<RequestJob>>;

// Requests with histories, widths, rules and deny lists of all kinds; the same seed, the same requests.
Jobs RandomJobs(const Runner& runner, uint64_t seed, int count) {
  std::mt19937_64 random(seed);
  Jobs jobs;
  const auto snapshot = runner.catalogue();
  for (int i = 0; i < count; ++i) {
    auto job = std::make_unique<RequestJob>();
    std::vector<Event> history(random() % 15);
    for (size_t e = 0; e < history.size(); ++e) {
      history[e].item = snapshot->item_id(static_cast<uint32_t>(random() % snapshot->num_items()));
      history[e].timestamp_ms = 1'650'000'000'000 + static_cast<int64_t>(e) * 1000;
      history[e].labels = kClick;
    }
    job->snapshot = snapshot;
    job->input = runner.BuildInput({.history = history}, *snapshot);
    job->context_key = {absl::StrCat("user", random() % 4), Digest(job->input), runner.info().version};
    for (int level = 0; level < runner.info().levels(); ++level) {
      job->beam_widths.push_back(1 + static_cast<int>(random() % 16));
    }
    job->score_rule = random() % 2 == 0 ? ScoreRule::kFull : ScoreRule::kLegal;
    Eligibility eligibility;
    for (uint64_t denied = random() % 30; denied > 0; --denied) {
      eligibility.deny.push_back(snapshot->item_id(static_cast<uint32_t>(random() % snapshot->num_items())));
    }
    catalogue::RuleCache rules(snapshot, 4);
    job->eligibility = *catalogue::CompileEligibility(rules, eligibility);
    job->SetCosts();
    jobs.push_back(std::move(job));
  }
  return jobs;
}

Jobs RunJobs(Runner& runner, Jobs jobs) {
  std::vector<scheduler::Job*> all, to_encode;
  for (const auto& job : jobs) {
    all.push_back(job.get());
    if (!runner.TryAttachContext(*job)) to_encode.push_back(job.get());
  }
  if (!to_encode.empty()) {
    for (const absl::Status& status : runner.Encode(to_encode)) EXPECT_TRUE(status.ok()) << status;
  }
  const auto pass = [](const scheduler::Job&) { return absl::OkStatus(); };
  for (const absl::Status& status : runner.Decode(all, pass)) EXPECT_TRUE(status.ok()) << status;
  return jobs;
}

// The same SIDs in the same order, but for near ties, with scores as promise 4 of the design wants them of one
// machine: ranks change the order of a sum's terms, as the company in a batch may. (The bound of the logits themselves
// is derived in tests/model/tensor_parallel_test.cc; it is not reached by far.)
void ExpectSameLists(const Jobs& group, const Jobs& alone) {
  for (size_t i = 0; i < alone.size(); ++i) {
    const auto &a = alone[i]->hypotheses, &g = group[i]->hypotheses;
    ASSERT_EQ(g.size(), a.size()) << "request " << i;
    for (size_t k = 0; k < a.size(); ++k) {
      EXPECT_NEAR(g[k].score, a[k].score, 1e-5) << "request " << i << ", place " << k;
      const bool tie = (k > 0 && a[k - 1].score - a[k].score < 2e-5) ||
                       (k + 1 < a.size() && a[k].score - a[k + 1].score < 2e-5) || k + 1 == a.size();
      EXPECT_TRUE(g[k].sid == a[k].sid || tie) << "request " << i << ", place " << k;
      if (g[k].sid == a[k].sid) {
        EXPECT_NEAR(g[k].value, a[k].value, 1e-5) << "request " << i << ", place " << k;
      }
    }
  }
}

struct FamilyCase {
  std::string name;
  int ranks;
  std::function<std::string()> bundle;
  std::string backend = "cpu";
};

class GroupFamilies : public ::testing::TestWithParam<FamilyCase> {};

TEST_P(GroupFamilies, GiveTheListsOfOneProcess) {
  RunnerOptions options{.bundle = GetParam().bundle(), .backend = GetParam().backend, .threads = 1};
  const auto alone = LoadRunner(options);
  ASSERT_TRUE(alone.ok()) << alone.status();
  RunningGroup group(GetParam().ranks, options);
  ASSERT_NE(group.leader, nullptr);
  {
    const auto runner = group.Load(options);
    ASSERT_NE(runner, nullptr);
    EXPECT_EQ(runner->info().parameters, (*alone)->info().parameters) << "of the whole model";
    EXPECT_TRUE(runner->WarmUp({}, ScoreRule::kFull).ok());
    for (uint64_t seed = 1; seed <= 6; ++seed) {
      const int count = 1 + static_cast<int>(seed % 4);
      const Jobs together = RunJobs(*runner, RandomJobs(*runner, seed, count));
      ExpectSameLists(together, RunJobs(**alone, RandomJobs(**alone, seed, count)));
      // Contexts are found again on every rank, and the answer is the same to the last bit.
      const Jobs again = RunJobs(*runner, RandomJobs(*runner, seed, count));
      for (int i = 0; i < count; ++i) {
        EXPECT_TRUE(again[i]->context_cached);
        ASSERT_EQ(again[i]->hypotheses.size(), together[i]->hypotheses.size());
        for (size_t k = 0; k < again[i]->hypotheses.size(); ++k) {
          EXPECT_EQ(again[i]->hypotheses[k].score, together[i]->hypotheses[k].score);
          EXPECT_EQ(again[i]->hypotheses[k].sid, together[i]->hypotheses[k].sid);
        }
      }
    }
  }
  for (const absl::Status& status : group.Leave()) EXPECT_TRUE(status.ok()) << status;
}

std::vector<FamilyCase> FamilyCases() {
  std::vector<FamilyCase> cases;
  for (const int ranks : {2, 4}) {
    for (const std::string backend : {"cpu", "aten"}) {
      const std::string suffix = absl::StrCat("_", ranks, "_", backend);
      const auto tiny = [&](const std::string& name, const TinyBundleOptions& tiny_options) {
        cases.push_back({name + suffix, ranks, [=] { return TinyBundle(name + suffix, tiny_options); }, backend});
      };
      tiny("dense", {.heads = 4});
      tiny("moe", {.moe = true, .heads = 4});
      tiny("trunk", {.causal = true, .trunk_layers = 1, .heads = 4});
      tiny("ranked", {.heads = 4, .ranked = true});
    }
  }
  for (const std::string backend : {"cpu", "aten"}) {
    for (const std::string name : {"relu_tied", "few_items_end"}) {
      cases.push_back({absl::StrCat("t5_", name, "_2_", backend), 2, [=] { return T5Bundle(name); }, backend});
    }
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(All, GroupFamilies, ::testing::ValuesIn(FamilyCases()),
                         [](const auto& info) { return info.param.name; });

TEST(Group, ASecondModelLoadsWhileTheFirstServesAndContextsComeAndGo) {
  const std::string first = TinyBundle("first", {}), second = TinyBundle("second", {.seed = 2, .moe = true});
  // Room for about two contexts: the others are let go of on every rank.
  RunnerOptions options{.bundle = first, .threads = 1, .context_cache_bytes = 24 << 10};
  RunningGroup group(2, options);
  auto old_model = group.Load(options);
  ASSERT_NE(old_model, nullptr);
  const Jobs before = RunJobs(*old_model, RandomJobs(*old_model, 1, 3));
  RunnerOptions other = options;
  other.bundle = second;
  std::thread loading([&] {
    const auto new_model = group.Load(other);
    ASSERT_NE(new_model, nullptr);
    EXPECT_TRUE(new_model->WarmUp({}, ScoreRule::kFull).ok());
    const auto alone = LoadRunner(other);
    for (uint64_t seed = 1; seed < 5; ++seed) {
      ExpectSameLists(RunJobs(*new_model, RandomJobs(*new_model, seed, 3)),
                      RunJobs(**alone, RandomJobs(**alone, seed, 3)));
    }
  });
  const auto alone = LoadRunner(options);
  for (uint64_t seed = 1; seed < 20; ++seed) {
    ExpectSameLists(RunJobs(*old_model, RandomJobs(*old_model, seed, 3)),
                    RunJobs(**alone, RandomJobs(**alone, seed, 3)));
  }
  loading.join();
  EXPECT_GT(old_model->context_cache_stats().evictions, 0);
  old_model.reset();
}

// Ranks that follow log in the thread that loads.
class LoadingPolicies final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  std::vector<int> policies;

 protected:
  void sink_it_(const spdlog::details::log_msg& line) override {
    const std::string_view text(line.payload.data(), line.payload.size());
    if (text.starts_with("parallel: loaded")) policies.push_back(sched_getscheduler(0));
  }
  void flush_() override {}
};

// Rank 0's repository does the same: what serves goes first, and the first model is waited for.
TEST(Group, TheOtherRanksLoadASecondModelInTheTimeThatServingLeaves) {
  if (!beamline::testing::MayBeIdle()) GTEST_SKIP() << "SCHED_IDLE is refused here";
  absl::SleepFor(absl::Milliseconds(1100));  // the log leaves out what other tests have written too often
  const auto sink = std::make_shared<LoadingPolicies>();
  Log().sinks().push_back(sink);
  const absl::Cleanup no_more = [] { Log().sinks().pop_back(); };
  const RunnerOptions options{.bundle = TinyBundle("low_first", {}), .threads = 1};
  RunnerOptions other = options;
  other.bundle = TinyBundle("low_second", {.seed = 2});
  RunningGroup group(2, options);
  const auto first = group.Load(options), second = group.Load(other);
  ASSERT_NE(first, nullptr);
  ASSERT_NE(second, nullptr);
  EXPECT_THAT(sink->policies, ::testing::ElementsAre(sched_getscheduler(0), SCHED_IDLE));
}

// A request that dies between steps, and one that is bad, end alone; the group goes on.
TEST(Group, RequestsThatEndEarlyLeaveTheRanksTogether) {
  RunnerOptions options{.bundle = TinyBundle("early", {.trunk_layers = 1}), .threads = 1};
  RunningGroup group(2, options);
  const auto runner = group.Load(options);
  ASSERT_NE(runner, nullptr);
  Jobs jobs = RandomJobs(*runner, 3, 3);
  std::vector<scheduler::Job*> batch;
  for (const auto& job : jobs) batch.push_back(job.get());
  for (const absl::Status& status : runner->Encode(batch)) ASSERT_TRUE(status.ok()) << status;
  for (const absl::Status& status : runner->Decode(batch, [](auto&) { return absl::CancelledError("gone"); })) {
    EXPECT_TRUE(absl::IsCancelled(status)) << status;
  }
  for (const auto& job : jobs) job->beam_widths = {1};  // nothing is left to begin with
  for (const absl::Status& status : runner->Decode(batch, [](auto&) { return absl::OkStatus(); })) {
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  }
  RunJobs(*runner, RandomJobs(*runner, 4, 3));
  EXPECT_TRUE(group.leader->status().ok());
}

TEST(Group, RanksOfAnotherBuildAreRefusedByBothNames) {
  const RunnerOptions options{.bundle = TinyBundle("builds", {.heads = 2}), .threads = 1};
  const auto ctx = backend::MakeContext(options.device, options.dtype, options.backend);
  ASSERT_TRUE(ctx.ok()) << ctx.status();
  parallel::Settings others = GroupSettings(options, *ctx);
  ASSERT_EQ(others[0], std::pair(std::string("program"), ProgramBuild())) << "compared before what it may have changed";
  others[0].second = "9.8.7 (abc)";
  others[1].second = "another protocol";
  const std::string named = absl::StrCat("program: rank 1 has 9.8.7 (abc), rank 0 has ", ProgramBuild());
  const int port = parallel::testing::FreePort();
  parallel::testing::OnRanks(2, [&](int rank) {
    ParallelOptions own = parallel::testing::OptionsOf(rank, 2, port);
    if (rank == 0) own.start_timeout = absl::Seconds(5);  // it waits for one that fits
    const absl::Status status =
        rank == 0 ? StartGroup(options, own).status() : parallel::ProcessGroup::Join(own, others).status();
    EXPECT_THAT(std::string(status.message()), HasSubstr(named)) << "rank " << rank;
  });
}

TEST(Group, ModelsThatCannotBeSharedOrDifferAreNamedAndNothingEnds) {
  const std::string good = TinyBundle("good", {.heads = 2}), other = TinyBundle("other", {.seed = 9});
  RunnerOptions options{.bundle = good, .threads = 1};
  RunningGroup group(2, options, {other});
  EXPECT_THAT(std::string(group.TryLoad(options).status().message()),
              AllOf(HasSubstr("rank 1: engine.bundle: "), HasSubstr("has digest "), HasSubstr("rank 0's has ")));
  RunnerOptions three = options;
  three.bundle = TinyBundle("odd", {.heads = 1});
  EXPECT_THAT(std::string(group.TryLoad(three).status().message()), HasSubstr("heads: 1 cannot be shared equally by"));
  three.bundle = good;  // which came in place of the one that all were told of
  three.digest = *IdentifyBundle(other);
  EXPECT_EQ(group.TryLoad(three).status().code(), absl::StatusCode::kAborted);
  three.digest.clear();
  three.bundle = other;  // by its path, which both have
  const auto runner = group.Load(three);
  ASSERT_NE(runner, nullptr);
  RunJobs(*runner, RandomJobs(*runner, 1, 2));
}

// Rank 0 may give a model up while the others still load it: they have no use for it then.
TEST(Group, AModelThatRankZeroGaveUpStaysNowhereInMemory) {
  RunnerOptions options{.bundle = TinyBundle("given_up", {.feature_width = 4096}), .threads = 1};
  // Of all ranks, which are threads of this process; the allocators of sanitizers tell nothing.
  const auto in_use = [] { return static_cast<int64_t>(mallinfo2().uordblks + mallinfo2().hblkhd); };
  RunningGroup group(2, options);
  const int64_t before = in_use();
  const auto first = group.Load(options);
  ASSERT_NE(first, nullptr);
  const int64_t one = in_use() - before;  // on both ranks
  RunnerOptions without = options;
  without.catalogue = "/nowhere/items.cat";  // rank 0's business alone
  for (int i = 0; i < 30; ++i) EXPECT_FALSE(group.TryLoad(without).ok());
  const auto second = group.Load(options);  // behind all of the others' loads
  ASSERT_NE(second, nullptr);
  EXPECT_LT(in_use() - before, 5 * one + (16 << 20));
}

// Each rank would quantise its share of a row with a scale of its own. Neither waits for the others to be told.
TEST(Group, TypesWhoseRowsHaveAScaleAreRefused) {
  for (const std::string dtype : {"int8", "fp8", "fp8_mixed"}) {
    const RunnerOptions options{.bundle = "none", .device = "auto", .dtype = dtype};
    const std::string expected = absl::StrCat("engine.dtype: ", dtype, " needs parallel.size 1, and it is 2");
    EXPECT_THAT(std::string(StartGroup(options, parallel::testing::OptionsOf(0, 2, 1)).status().message()),
                HasSubstr(expected));
    EXPECT_THAT(std::string(FollowGroup(options, parallel::testing::OptionsOf(1, 2, 1)).message()),
                HasSubstr(expected));
  }
}

// A rank keeps its share of the weights alone, and still checks the whole file: here what another rank would keep.
TEST(Group, ADamagedFileIsRefusedByTheRankThatReadsIt) {
  const std::string good = TinyBundle("whole", {});
  const fs::path damaged = Folder("damaged");
  fs::remove_all(damaged);
  fs::copy(good, damaged, fs::copy_options::recursive);
  std::fstream weights(damaged / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  weights.seekg(-1, std::ios::end);
  const char byte = static_cast<char>(weights.get() ^ 1);
  weights.seekp(-1, std::ios::end);
  weights.put(byte);
  weights.close();
  RunnerOptions options{.bundle = good, .threads = 1};
  RunningGroup group(2, options, {damaged.string()});
  const absl::Status refused = group.TryLoad(options).status();
  EXPECT_THAT(std::string(refused.message()),
              AllOf(HasSubstr("rank 1: "), HasSubstr("model.safetensors: SHA-256 is "), HasSubstr("damaged")));
  EXPECT_TRUE(IsMarkedMayPass(refused)) << "its copy may be going on yet";
}

// Whoever stops this process does not wait for minutes of another rank's loading.
TEST(Group, AStopDoesNotWaitForAnotherRanksLoad) {
  const RunnerOptions options{.bundle = TinyBundle("awaited", {}), .threads = 1};
  const int port = parallel::testing::FreePort();
  absl::Notification stopped;
  std::thread slow([&] {  // lives, and has not loaded yet
    const auto ctx = backend::MakeContext(options.device, options.dtype, options.backend);
    ASSERT_TRUE(ctx.ok()) << ctx.status();
    const auto group =
        parallel::ProcessGroup::Join(parallel::testing::OptionsOf(1, 2, port), GroupSettings(options, *ctx));
    ASSERT_TRUE(group.ok()) << group.status();
    EXPECT_TRUE(stopped.WaitForNotificationWithTimeout(absl::Seconds(5)));
  });
  {
    const auto leader = StartGroup(options, parallel::testing::OptionsOf(0, 2, port));
    ASSERT_TRUE(leader.ok()) << leader.status();
    const auto model = (*leader)->Load(options.bundle, *IdentifyBundle(options.bundle));
    ASSERT_TRUE(model.ok()) << model.status();
    SetInterrupted(true);
    const absl::Status status = (*model)->AwaitLoaded();
    SetInterrupted(false);
    EXPECT_TRUE(absl::IsCancelled(status)) << status;
    stopped.Notify();
  }
  slow.join();
}

// An error in the middle of a batch leaves the others waiting in it: the group ends, and says so at once.
TEST(Group, ABatchThatBreaksOffEndsTheGroup) {
  RunnerOptions options{.bundle = TinyBundle("broken", {}), .threads = 1};
  RunningGroup group(2, options);
  const auto runner = group.Load(options);
  ASSERT_NE(runner, nullptr);
  auto model = group.leader->Load(options.bundle, *IdentifyBundle(options.bundle));
  ASSERT_TRUE(model.ok() && (*model)->AwaitLoaded().ok());
  try {
    GroupTurn turn(*model);
    turn.Run("decode", [&] { turn.BeginDecode({77}); });  // a context that the other rank does not have
  } catch (const std::exception& error) {
    GTEST_LOG_(INFO) << "the group has ended already: " << error.what();
  }
  Jobs jobs = RandomJobs(*runner, 1, 1);
  std::vector<scheduler::Job*> batch{jobs[0].get()};
  absl::Status status;
  for (int i = 0; i < 200 && status.ok(); ++i) status = runner->Encode(batch)[0];
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("rank 1: following rank 0 failed: context 77 is not here"));
}

// Whoever reads of the end, here or on another rank, reads why.
TEST(Group, ABatchThatBreaksOffOnRankZeroTellsItsCause) {
  const std::function<void()> throws[] = {[] { throw std::runtime_error("the gate broke\nframe #0"); },
                                          [] { throw std::bad_alloc(); }};
  const std::string causes[] = {"rank 0: decode failed: the gate broke", "rank 0: decode: out of memory"};
  for (int i = 0; i < 2; ++i) {
    RunnerOptions options{.bundle = TinyBundle("cause", {}), .threads = 1};
    RunningGroup group(2, options);
    auto runner = group.Load(options);
    ASSERT_NE(runner, nullptr);
    Jobs jobs = RandomJobs(*runner, 1, 1);
    std::vector<scheduler::Job*> batch{jobs[0].get()};
    ASSERT_TRUE(runner->Encode(batch)[0].ok());
    const absl::Status status = runner->Decode(batch, [&](auto&) {  // between two steps
      throws[i]();
      return absl::OkStatus();
    })[0];
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_THAT(std::string(status.message()), EndsWith(causes[i]));
    EXPECT_EQ(runner->fault(), status);
    jobs.clear();
    runner.reset();
    EXPECT_THAT(std::string(group.Leave()[1].message()), EndsWith(causes[i]));
  }
}

// Two contexts that do not fit together are found before anybody is told of a decode.
TEST(Group, ABatchThatBreaksOffBeforeAnybodyWasToldEndsAlone) {
  RunnerOptions options{.bundle = TinyBundle("untold", {}), .backend = "aten", .threads = 1};
  RunnerOptions other = options;
  other.bundle = TinyBundle("untold_other", {.level_sizes = {9, 6, 10}});
  const auto alone = LoadRunner(other);
  ASSERT_TRUE(alone.ok()) << alone.status();
  Jobs foreign = RunJobs(**alone, RandomJobs(**alone, 1, 1));
  RunningGroup group(2, options);
  const auto runner = group.Load(options);
  ASSERT_NE(runner, nullptr);
  Jobs jobs = RunJobs(*runner, RandomJobs(*runner, 1, 2));
  const std::shared_ptr<const RequestContext> own = std::exchange(jobs[1]->context, foreign[0]->context);
  std::vector<scheduler::Job*> batch{jobs[0].get(), jobs[1].get()};
  for (const absl::Status& status : runner->Decode(batch, [](auto&) { return absl::OkStatus(); })) {
    EXPECT_TRUE(absl::IsInternal(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("decode failed: "));
  }
  EXPECT_TRUE(runner->fault().ok()) << runner->fault();
  jobs[1]->context = own;
  for (const absl::Status& status : runner->Decode(batch, [](auto&) { return absl::OkStatus(); })) {
    EXPECT_TRUE(status.ok()) << status;
  }
}

TEST(GroupMessage, RoundTripsAndRefusesWhatIsCutOrLies) {
  GroupMessage message{.command = GroupCommand::kEncode, .model = 3, .released = {1, 2}, .bundle = "b", .digest = "d"};
  message.input.batch = 2;
  message.input.static_features = {1, 2};
  message.input.pathways[1] = {.length = 1, .features = {5, 6}};
  message.input.positions = {0, 1};
  message.input.order = {-1, 0};
  message.codes = {7};
  const std::string bytes = SerializeGroupMessage(message);
  const auto parsed = ParseGroupMessage(bytes);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(SerializeGroupMessage(*parsed), bytes);
  EXPECT_EQ(parsed->input.pathways[1].features, message.input.pathways[1].features);
  for (size_t size = 0; size < bytes.size(); ++size) EXPECT_FALSE(ParseGroupMessage(bytes.substr(0, size)).ok());
  EXPECT_FALSE(ParseGroupMessage(bytes + "x").ok());
  for (size_t at = 0; at + 8 <= bytes.size(); ++at) {  // every length and number, as large as can be
    std::string lie = bytes;
    lie.replace(at, 8, 8, '\xff');
    (void)ParseGroupMessage(lie);
  }
  const auto answer = ParseLoadAnswer(SerializeLoadAnswer({4, absl::NotFoundError("no bundle")}));
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer->model, 4);
  EXPECT_EQ(answer->status, absl::NotFoundError("no bundle"));
}

}  // namespace
}  // namespace beamline::runtime
