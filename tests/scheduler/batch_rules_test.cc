// SPDX-License-Identifier: Apache-2.0
//
// What batch_policy.h says of every decision, held against random queues of all that a job can be. What a job costs and
// who is dead are worked out here a second time, from the cost table itself.
#include <algorithm>
#include <iterator>
#include <random>
#include <tuple>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/batch_policy.h"
#include "scheduler/test_time.h"

namespace beamline::scheduler {
namespace {

using Action = BatchDecision::Action;
using Jobs = std::vector<const QueuedJob*>;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAreArray;

// How often a rule had something to say: a test of rules that never apply would pass, too.
struct Seen {
  int waits = 0, waits_for_company_alone = 0, encodes = 0, decodes = 0, both_closed = 0;
  int two_groups = 0, padded = 0, beyond_the_token_limit = 0, late_probes = 0;
  int passed_over = 0, passed_over_where_all_fit = 0, left_out = 0;
};

class BatchRulesTest : public ::testing::Test {
 protected:
  // A new view, of one size of jobs or of many.
  void Draw() {
    id_ = 0;
    wide_ = Chance(3);
    limits_ = {.max_rows = (wide_ ? 600 : 40) + Below(wide_       ? 2000
                                                      : Chance(2) ? 100
                                                                  : 500),
               .max_context_tokens = 200 + Below(600),
               .max_requests = 1 + Below(12)};
    groups_ = Chance(3) ? 2 : 1;
    priorities_ = Chance(2) ? 3 : 1;
    hurry_ = Chance(2);
    encode_ = DrawQueue(WorkKind::kEncode);
    decode_ = DrawQueue(WorkKind::kDecode);
    idle_ = Chance(2);
    closing_ = Chance(8);
    cost_ = CostTable();
    costs_known_ = Chance(2);
    company_pays_ = false;
    if (!costs_known_) return;
    // By one batch alone, or by several that have a fixed part: then company pays.
    company_pays_ = Chance(2);
    absl::Duration encode = absl::Microseconds(Below(3000)), decode = absl::Microseconds(Below(5000));
    if (company_pays_) decode += 5 * kMs;
    for (int64_t n = 1; n <= (company_pays_ ? 64 : 1); n *= 2) {
      cost_.Observe(WorkKind::kEncode, {n, 10 * n, 100 * n}, encode, kNow);
      cost_.Observe(WorkKind::kDecode, {n, 10 * n, 100 * n}, decode, kNow);
      encode += absl::Microseconds(Below(1000));
      decode += absl::Microseconds(Below(2000));
    }
  }

  QueueView View() const { return {.encode = encode_, .decode = decode_, .idle = idle_, .closing = closing_}; }
  BatchDecision Decide(const QueueView& view, absl::Time now = kNow) const {
    return DecideBatch(view, now, cost_, limits_);
  }

  // Until the answers of such a batch.
  absl::Duration Needed(WorkKind kind, const Jobs& jobs) const {
    BatchSize all, encoded;
    for (const QueuedJob* job : jobs) {
      all.Add(job->rows, job->context_tokens);
      if (kind == WorkKind::kEncode && !job->expects_context) encoded.Add(job->rows, job->context_tokens);
    }
    absl::Duration needed = cost_.Estimate(WorkKind::kDecode, all, kNow);
    if (encoded.requests > 0) needed += cost_.Estimate(WorkKind::kEncode, encoded, kNow);
    return needed;
  }
  bool InTime(WorkKind kind, const Jobs& jobs, const QueuedJob& job) const {
    return kNow + Needed(kind, jobs) <= job.deadline;
  }
  bool Fits(WorkKind kind, const Jobs& jobs) const {
    const BatchSize size = SizeOf(jobs);
    return size.requests <= limits_.max_requests && size.computed_rows() <= limits_.max_rows &&
           (kind == WorkKind::kDecode || size.padded_tokens() <= limits_.max_context_tokens);
  }
  static BatchSize SizeOf(const Jobs& jobs) {
    BatchSize size;
    for (const QueuedJob* job : jobs) size.Add(job->rows, job->context_tokens);
    return size;
  }
  // More rows are computed than twice those asked for.
  static bool Pads(const Jobs& jobs) {
    const BatchSize size = SizeOf(jobs);
    return size.computed_rows() > 2 * size.rows;
  }
  bool Starves(const QueuedJob& job) const { return kNow - job.submitted >= limits_.starvation_limit; }
  bool Before(const QueuedJob& a, const QueuedJob& b) const {
    if (Starves(a) || Starves(b)) return Starves(a) && (!Starves(b) || a.id < b.id);
    return std::tuple(-static_cast<int>(a.priority), a.deadline, a.id) <
           std::tuple(-static_cast<int>(b.priority), b.deadline, b.id);
  }
  const std::vector<QueuedJob>& QueueOf(WorkKind kind) const { return kind == WorkKind::kEncode ? encode_ : decode_; }

  // The living of a queue, most urgent first.
  Jobs Alive(WorkKind kind) const {
    Jobs alive;
    for (const QueuedJob& job : QueueOf(kind)) {
      if (!job.cancelled && job.deadline > kNow && (job.probe || InTime(kind, {&job}, job))) alive.push_back(&job);
    }
    std::sort(alive.begin(), alive.end(), [&](const QueuedJob* a, const QueuedJob* b) { return Before(*a, *b); });
    return alive;
  }

  void CheckOrderOfStorage(const BatchDecision& decision);
  void CheckChoice(const BatchDecision& decision);
  void CheckWait(const BatchDecision& decision);
  void CheckBatch(WorkKind kind, const BatchDecision& decision);
  void CheckMembers(WorkKind kind, const Jobs& batch);
  void CheckPassedOver(WorkKind kind, const Jobs& alive, const Jobs& batch);
  void CheckLeftOut(WorkKind kind, const Jobs& alive, const Jobs& batch);
  void CheckLateJoiners(WorkKind kind, const Jobs& alive, const Jobs& batch);

  bool wide_ = false, costs_known_ = false, company_pays_ = false;
  Seen seen_;

 private:
  int64_t Below(int64_t n) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(n)); }
  bool Chance(int64_t one_in) { return Below(one_in) == 0; }

  absl::Time DrawDeadline() {
    if (hurry_) return kNow + absl::Microseconds(6000 + Below(14'000));
    return Chance(3) ? absl::InfiniteFuture() : kNow + kMs * (Below(40) - 3);
  }
  std::vector<QueuedJob> DrawQueue(WorkKind kind) {
    std::vector<QueuedJob> queue(Below(16));
    for (QueuedJob& job : queue) {
      job = {.id = ++id_,
             .priority = static_cast<Priority>(Below(priorities_)),
             .deadline = DrawDeadline(),
             .submitted = kNow - absl::Microseconds(Below(Chance(8) ? 20'000'000 : 2500)),
             .rows = !wide_      ? 20 + Below(21)
                     : Chance(3) ? 200 + Below(400)
                                 : 1 + Below(40),
             .context_tokens = Below(300),
             .cancelled = Chance(10),
             .group = static_cast<uint64_t>(Below(groups_)),
             .probe = Chance(6)};
      if (kind == WorkKind::kDecode) continue;
      job.awaits_company = Chance(6);
      job.expects_context = Chance(4);
    }
    std::shuffle(queue.begin(), queue.end(), random_);
    return queue;
  }

  std::mt19937_64 random_{11};
  uint64_t id_ = 0;
  int groups_ = 1, priorities_ = 1;
  bool hurry_ = false;  // all come near their deadlines
  bool idle_ = false, closing_ = false;
  std::vector<QueuedJob> encode_, decode_;
  CostTable cost_;
  BatchLimits limits_;
};

void BatchRulesTest::CheckOrderOfStorage(const BatchDecision& decision) {
  std::vector<QueuedJob> encode = encode_, decode = decode_;
  std::reverse(encode.begin(), encode.end());
  std::shuffle(decode.begin(), decode.end(), random_);
  QueueView view = View();
  view.encode = encode;
  view.decode = decode;
  const BatchDecision other = Decide(view);
  ASSERT_EQ(other.action, decision.action);
  ASSERT_EQ(other.batch, decision.batch);
  ASSERT_EQ(other.wait_until, decision.wait_until);
}

// Each queue forms its batch by itself; of two closed ones the more urgent head's runs.
void BatchRulesTest::CheckChoice(const BatchDecision& decision) {
  QueueView view = View();
  view.decode = {};
  const BatchDecision encode = Decide(view);
  view = View();
  view.encode = {};
  const BatchDecision decode = Decide(view);
  const bool encodes = encode.action == Action::kEncode, decodes = decode.action == Action::kDecode;
  if (!encodes && !decodes) {
    ASSERT_EQ(decision.action, Action::kWait);
    ASSERT_EQ(decision.wait_until, std::min(encode.wait_until, decode.wait_until));
    return;
  }
  const auto head = [](const std::vector<QueuedJob>& queue, const BatchDecision& batch) {
    return *std::find_if(queue.begin(), queue.end(), [&](const QueuedJob& job) { return job.id == batch.batch[0]; });
  };
  const bool both = encodes && decodes;
  seen_.both_closed += both;
  const bool encode_goes = both ? Before(head(encode_, encode), head(decode_, decode)) : encodes;
  ASSERT_EQ(decision.action, encode_goes ? Action::kEncode : Action::kDecode);
  ASSERT_EQ(decision.batch, encode_goes ? encode.batch : decode.batch);
}

void BatchRulesTest::CheckWait(const BatchDecision& decision) {
  ASSERT_THAT(decision.batch, IsEmpty());
  ASSERT_GT(decision.wait_until, kNow);
  const Jobs encode = Alive(WorkKind::kEncode), decode = Alive(WorkKind::kDecode);
  if (encode.empty() && decode.empty()) {
    ASSERT_EQ(decision.wait_until, absl::InfiniteFuture());
    return;
  }
  ++seen_.waits;
  ASSERT_FALSE(closing_) << "nobody will come";
  if (idle_) {
    ++seen_.waits_for_company_alone;
    ASSERT_THAT(decode, IsEmpty()) << "on an unused device";
    ASSERT_TRUE(std::any_of(encode_.begin(), encode_.end(), [](const QueuedJob& job) { return job.awaits_company; }));
  }
  for (const WorkKind kind : {WorkKind::kEncode, WorkKind::kDecode}) {
    const Jobs& queue = kind == WorkKind::kEncode ? encode : decode;
    if (queue.empty()) continue;
    const BatchSize size = SizeOf(queue);  // nobody waits who would not go together
    ASSERT_LT(size.requests, limits_.max_requests);
    ASSERT_LT(size.computed_rows(), limits_.max_rows);
    ASSERT_TRUE(kind == WorkKind::kDecode || size.padded_tokens() < limits_.max_context_tokens);
    for (const QueuedJob* job : queue) {
      ASSERT_EQ(job->group, queue[0]->group) << "an old version should be rid of soon";
      const absl::Duration waits = decision.wait_until - job->submitted;
      ASSERT_LE(waits, limits_.max_queue_delay);
      ASSERT_LE(waits, (job->deadline - job->submitted - Needed(kind, queue)) / 2);
    }
  }
  const auto dies = [&](const Jobs& queue, bool encoded) {
    return std::any_of(queue.begin(), queue.end(), [&](const QueuedJob* job) {
      return IsDead(*job, encoded, {cost_, decision.wait_until});
    });
  };
  if (dies(encode, false) || dies(decode, true)) return;
  ASSERT_NE(Decide(View(), decision.wait_until).action, Action::kWait) << "it would have been woken for nothing";
}

void BatchRulesTest::CheckBatch(WorkKind kind, const BatchDecision& decision) {
  const Jobs alive = Alive(kind);
  Jobs batch;
  for (const uint64_t id : decision.batch) {
    const auto found = std::find_if(alive.begin(), alive.end(), [&](const QueuedJob* job) { return job->id == id; });
    ASSERT_NE(found, alive.end()) << id << " is dead, or of nobody";
    ASSERT_TRUE(batch.empty() || Before(*batch.back(), **found)) << id;
    batch.push_back(*found);
  }
  ASSERT_FALSE(batch.empty());
  ++(kind == WorkKind::kEncode ? seen_.encodes : seen_.decodes);
  CheckMembers(kind, batch);
  if (HasFatalFailure()) return;
  CheckPassedOver(kind, alive, batch);
  if (HasFatalFailure()) return;
  CheckLeftOut(kind, alive, batch);
  if (!HasFatalFailure()) CheckLateJoiners(kind, alive, batch);
}

void BatchRulesTest::CheckMembers(WorkKind kind, const Jobs& batch) {
  const BatchSize size = SizeOf(batch);
  seen_.beyond_the_token_limit += !Fits(kind, batch);
  ASSERT_TRUE(size.requests == 1 || Fits(kind, batch));
  ASSERT_LE(size.rows, limits_.max_rows);
  seen_.padded += Pads(batch);
  for (const QueuedJob* job : batch) {
    ASSERT_EQ(job->group, batch[0]->group);
    if (InTime(kind, batch, *job)) continue;
    ASSERT_EQ(job, batch[0]) << "it was taken though it would be late";
    ASSERT_TRUE(job->probe && !InTime(kind, {job}, *job)) << "its company makes it late";
    seen_.late_probes += size.requests > 1;
  }
}

// The most urgent goes, unless more of its class than a batch holds wait, or others of it cannot wait for its batch;
// and in either case these have more time.
void BatchRulesTest::CheckPassedOver(WorkKind kind, const Jobs& alive, const Jobs& batch) {
  if (alive[0] == batch[0]) return;
  ++seen_.passed_over;
  absl::Time latest = absl::InfinitePast();
  for (const QueuedJob* job : alive) {
    if (job == batch[0]) break;
    latest = std::max(latest, job->deadline);
  }
  ASSERT_LT(latest, batch[0]->deadline);
  Jobs class_of_head;
  std::copy_if(alive.begin(), alive.end(), std::back_inserter(class_of_head), [&](const QueuedJob* job) {
    return job->group == alive[0]->group && job->priority >= alive[0]->priority;
  });
  if (Fits(kind, class_of_head)) {
    ++seen_.passed_over_where_all_fit;
    const auto hurry = std::count_if(batch.begin(), batch.end(), [&](const QueuedJob* job) {
      return job->deadline < absl::InfiniteFuture() &&
             std::find(class_of_head.begin(), class_of_head.end(), job) != class_of_head.end();
    });
    ASSERT_GE(hurry, 2) << "who saves one at most costs one";
  }
  ASSERT_TRUE(std::any_of(class_of_head.begin(), class_of_head.end(), [&](const QueuedJob* job) {
    return job->deadline > latest;
  })) << "none of them gains by it";
  ASSERT_TRUE(batch[0]->group != alive[0]->group || batch[0]->priority >= alive[0]->priority || Starves(*batch[0]));
}

// Nobody stays behind who could have come along. Of jobs of many widths that cannot be told from the result, nor where
// a larger batch may be estimated to take less time, as beside several that were measured.
void BatchRulesTest::CheckLeftOut(WorkKind kind, const Jobs& alive, const Jobs& batch) {
  if (wide_ || company_pays_ || batch[0] != alive[0]) return;
  Jobs class_of_head;
  std::copy_if(alive.begin(), alive.end(), std::back_inserter(class_of_head), [&](const QueuedJob* job) {
    return job->group == alive[0]->group && job->priority >= alive[0]->priority;
  });
  if (!Fits(kind, class_of_head)) return;  // some were passed over
  for (const QueuedJob* job : alive) {
    seen_.two_groups += job->group != batch[0]->group;
    if (job->group != batch[0]->group || std::find(batch.begin(), batch.end(), job) != batch.end()) continue;
    ++seen_.left_out;
    Jobs grown = batch;
    grown.push_back(job);
    const bool all_in_time = std::all_of(grown.begin(), grown.end(), [&](const QueuedJob* other) {
      return InTime(kind, grown, *other) || !InTime(kind, batch, *other);
    });
    ASSERT_FALSE(Fits(kind, grown) && all_in_time && InTime(kind, grown, *job)) << job->id << " had a place";
  }
}

// Whom others' width would pad comes after all whom it would not. Costs would have a say in it, where they are known.
void BatchRulesTest::CheckLateJoiners(WorkKind kind, const Jobs& alive, const Jobs& batch) {
  if (costs_known_) return;
  Jobs expected = {alive[0]};
  for (const bool may_pad : {false, true}) {
    for (const QueuedJob* job : alive) {
      if (job->group != alive[0]->group || std::find(expected.begin(), expected.end(), job) != expected.end()) continue;
      Jobs grown = expected;
      grown.push_back(job);
      if (Fits(kind, grown) && (may_pad || !Pads(grown))) expected = grown;
    }
  }
  ASSERT_THAT(batch, UnorderedElementsAreArray(expected));
}

TEST_F(BatchRulesTest, HoldOnRandomQueues) {
  for (int round = 0; round < 50'000; ++round) {
    SCOPED_TRACE(round);
    Draw();
    const BatchDecision decision = Decide(View());
    CheckOrderOfStorage(decision);
    if (!HasFatalFailure()) CheckChoice(decision);
    if (HasFatalFailure()) return;
    if (decision.action == Action::kWait) {
      CheckWait(decision);
    } else {
      CheckBatch(decision.action == Action::kEncode ? WorkKind::kEncode : WorkKind::kDecode, decision);
    }
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(seen_.waits, 100);
  EXPECT_GT(seen_.waits_for_company_alone, 20);
  EXPECT_GT(seen_.encodes, 1000);
  EXPECT_GT(seen_.decodes, 1000);
  EXPECT_GT(seen_.both_closed, 1000);
  EXPECT_GT(seen_.two_groups, 100);
  EXPECT_GT(seen_.padded, 100);
  EXPECT_GT(seen_.beyond_the_token_limit, 20);
  EXPECT_GT(seen_.late_probes, 20);
  EXPECT_GT(seen_.passed_over, 20);
  EXPECT_GT(seen_.passed_over_where_all_fit, 10);
  EXPECT_GT(seen_.left_out, 1000);
}

}  // namespace
}  // namespace beamline::scheduler
