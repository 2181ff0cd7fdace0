// SPDX-License-Identifier: Apache-2.0
//
// Numbers of KuaiRand-Pure that others published or computed, from the shared files: skipped where those are absent.
#include <gtest/gtest.h>

#include "data/baselines.h"
#include "data/dataset.h"
#include "data/import.h"
#include "data/leave_one_out.h"
#include "data/ranking_metrics.h"
#include "data/statistics.h"
#include "test_files.h"

namespace beamline::data {
namespace {

class RealDataTest : public FolderTest {
 protected:
  absl::StatusOr<Dataset> ImportSequenceFile(const std::string& name, const DatasetOptions& options = {}) {
    ImportOptions import;
    import.overwrite = true;
    import.out = Path("out");
    import.gzip = false;
    const absl::StatusOr<ImportReport> report = ImportSequences(SharedData(name), kLongView, import);
    if (!report.ok()) return report.status();
    return Dataset::Load({Path("out/events.tsv"), {}, {}}, options);
  }
};

void ExpectFloor(const CountingBaseline& baseline, const ItemSequences& sequences, SeenItems seen,
                 const RankingMetrics& expected) {
  const RankingMetrics got = MeanMetrics(RankTargets(baseline, EvaluationCases(sequences, HeldOut::kTest), seen));
  SCOPED_TRACE(baseline.name());
  SCOPED_TRACE(FormatMetrics(got));
  EXPECT_NEAR(got.recall_5, expected.recall_5, 5e-4);
  EXPECT_NEAR(got.ndcg_5, expected.ndcg_5, 5e-4);
  EXPECT_NEAR(got.recall_10, expected.recall_10, 5e-4);
  EXPECT_NEAR(got.ndcg_10, expected.ndcg_10, 5e-4);
}

TEST_F(RealDataTest, KuaiRandFloors) {
  const std::string name = "kuairand-pure/derived/long_view_5core.tsv.gz";
  BEAMLINE_NEEDS_SHARED(SharedData(name));
  const absl::StatusOr<Dataset> dataset = ImportSequenceFile(name);
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_EQ(dataset->num_users(), 20949);
  EXPECT_EQ(dataset->num_items(), 4982);
  EXPECT_EQ(dataset->num_events(), 442498);
  const ItemSequences sequences = dataset->Sequences();
  const ItemSequences training = TrainingPart(sequences);
  const auto popularity = MakePopularity();
  const auto markov = MakeMarkov();
  const auto knn = MakeItemKnn();
  for (CountingBaseline* baseline : {popularity.get(), markov.get(), knn.get()}) {
    ASSERT_TRUE(baseline->Fit(training).ok());
  }
  // The table's popularity and Markov rows are with seen items kept.
  ExpectFloor(*popularity, sequences, SeenItems::kKeep, {.0298, .0191, .0463, .0243});
  ExpectFloor(*markov, sequences, SeenItems::kKeep, {.0290, .0186, .0490, .0250});
  ExpectFloor(*knn, sequences, SeenItems::kKeep, {.0410, .0270, .0714, .0367});
  ExpectFloor(*knn, sequences, SeenItems::kRemove, {.0489, .0321, .0835, .0432});
  ASSERT_TRUE(knn->Fit(TrainingPart(sequences, 1)).ok());
  ExpectFloor(*knn, sequences, SeenItems::kRemove, {.0507, .0332, .0856, .0443});
}

// The derived set is the first long view of each video per user, 5-core: made again from the file before it.
TEST_F(RealDataTest, FiveCoreOfLongViewSequences) {
  const std::string name = "kuairand-pure/derived/long_view_sequences.tsv.gz";
  BEAMLINE_NEEDS_SHARED(SharedData(name));
  DatasetOptions options;
  options.drop_repeats = true;
  options.k_core = 5;
  const absl::StatusOr<Dataset> core = ImportSequenceFile(name, options);
  ASSERT_TRUE(core.ok()) << core.status();
  const absl::StatusOr<Dataset> derived = ImportSequenceFile("kuairand-pure/derived/long_view_5core.tsv.gz");
  ASSERT_TRUE(derived.ok()) << derived.status();
  ASSERT_EQ(core->num_users(), derived->num_users());
  EXPECT_EQ(core->item_ids(), derived->item_ids());
  const ItemSequences expected = derived->Sequences();
  EXPECT_EQ(core->Sequences().items, expected.items);
  EXPECT_EQ(core->Sequences().offsets, expected.offsets);
}

TEST_F(RealDataTest, OfficialKuaiRandArchive) {
  const auto folder = SharedData("kuairand-pure/official-layout");
  BEAMLINE_NEEDS_SHARED(folder);
  ImportOptions import;
  import.overwrite = true;
  import.out = Path("out");
  const absl::StatusOr<ImportReport> report = ImportKuaiRand(folder, {.statistic_relevance = true}, import);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->events, 228329);
  EXPECT_EQ(report->items, 7583);
  EXPECT_EQ(report->users, 27285);
  const absl::StatusOr<Dataset> dataset = Dataset::Load(FindDatasetFiles(Path("out")).value());
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  const LogStatistics statistics = ComputeStatistics(*dataset);
  EXPECT_EQ(statistics.users, 25156);
  EXPECT_NEAR(statistics.label_rate[0], 0.4419, 1e-3);  // click
  EXPECT_NEAR(statistics.label_rate[6], 0.3108, 1e-3);  // long view
  const uint32_t zero = dataset->FindItem(0).value();
  EXPECT_EQ(dataset->item_attributes(zero).author, 7349781u);
  EXPECT_EQ(dataset->item_attributes(zero).duration_ms, 87433);
  EXPECT_GT(dataset->item_attributes(zero).relevance, 0);
}

TEST_F(RealDataTest, EverySequenceLayout) {
  BEAMLINE_NEEDS_SHARED(SharedData("kuairand-pure"));
  const absl::StatusOr<Dataset> mini = ImportSequenceFile("kuairand-pure/derived/mini_3000users.tsv.gz");
  ASSERT_TRUE(mini.ok()) << mini.status();
  EXPECT_EQ(mini->num_users(), 2996);
  EXPECT_EQ(mini->num_items(), 1785);
  EXPECT_EQ(mini->num_events(), 79651);
  const absl::StatusOr<Dataset> tails = ImportSequenceFile("kuairand-pure/user_sequences.tsv.gz");
  ASSERT_TRUE(tails.ok()) << tails.status();
  EXPECT_GT(tails->num_users(), 26000);
  EXPECT_GT(ComputeStatistics(*tails).label_rate[6], 0.2);
}

TEST_F(RealDataTest, AmazonBeauty) {
  const auto folder = SharedData("amazon-beauty");
  BEAMLINE_NEEDS_SHARED(folder);
  ImportOptions import;
  import.overwrite = true;
  import.out = Path("out");
  const absl::StatusOr<ImportReport> report = ImportAmazon(folder, import);
  ASSERT_TRUE(report.ok()) << report.status();
  const absl::StatusOr<Dataset> dataset = Dataset::Load(FindDatasetFiles(Path("out")).value());
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_EQ(dataset->num_users(), 22363);
  EXPECT_EQ(dataset->num_items(), 12101);
  EXPECT_EQ(dataset->num_events(), 198502);
  EXPECT_EQ(dataset->item_attributes(0).title, "OPI Nail Lacquer, Simmer and Shimmer, 0.5-Fluid Ounce");
  // The reference's floors for Beauty do not state their counts; Markov's R@10 .0661 is met to .001 by KuaiRand's.
  const ItemSequences sequences = dataset->Sequences();
  const auto markov = MakeMarkov();
  ASSERT_TRUE(markov->Fit(TrainingPart(sequences)).ok());
  const std::vector<double> ranks = RankTargets(*markov, EvaluationCases(sequences, HeldOut::kTest), SeenItems::kKeep);
  EXPECT_NEAR(MeanMetrics(ranks).recall_10, .0661, 1e-3);
}

}  // namespace
}  // namespace beamline::data
