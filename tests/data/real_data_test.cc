// SPDX-License-Identifier: Apache-2.0
//
// Numbers of KuaiRand-Pure that others published or computed, from the shared files: skipped where those are absent.
#include <gtest/gtest.h>

#include "data/baselines.h"
#include "data/dataset.h"
#include "data/import.h"
#include "data/ranking_metrics.h"
#include "data/statistics.h"
#include "test_files.h"

namespace beamline::data {
namespace {

class RealDataTest : public FolderTest {
 protected:
  absl::StatusOr<Dataset> ImportSequenceFile(const std::string& name, const DatasetOptions& options = {}) {
    ImportOptions import;
    import.out = Path("out");
    import.gzip = false;
    const absl::StatusOr<ImportReport> report = ImportSequences(SharedData(name), kLongView, import);
    if (!report.ok()) return report.status();
    return Dataset::Load({Path("out/events.tsv"), {}, {}}, options);
  }
};

struct Floor {
  std::unique_ptr<CountingBaseline> baseline;
  SeenItems seen;
  int held_out;  // events left out of the counts
  RankingMetrics expected;
};

void ExpectFloor(const ItemSequences& sequences, const Floor& floor) {
  ASSERT_TRUE(floor.baseline->Fit(TrainingPart(sequences, floor.held_out)).ok());
  ThreadPool pool(1);
  const RankingMetrics got =
      MeanMetrics(RankTargets(*floor.baseline, EvaluationCases(sequences, HeldOut::kTest), floor.seen, &pool));
  SCOPED_TRACE(floor.baseline->name());
  SCOPED_TRACE(FormatMetrics(got));
  EXPECT_NEAR(got.recall_5, floor.expected.recall_5, 5e-4);
  EXPECT_NEAR(got.ndcg_5, floor.expected.ndcg_5, 5e-4);
  EXPECT_NEAR(got.recall_10, floor.expected.recall_10, 5e-4);
  EXPECT_NEAR(got.ndcg_10, floor.expected.ndcg_10, 5e-4);
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
  ExpectFloor(sequences, {MakePopularity(), SeenItems::kKeep, 2, {.0298, .0191, .0463, .0243}});
  ExpectFloor(sequences, {MakeMarkov(), SeenItems::kKeep, 2, {.0290, .0186, .0490, .0250}});
  ExpectFloor(sequences, {MakeItemKnn(), SeenItems::kKeep, 2, {.0410, .0270, .0714, .0367}});
  ExpectFloor(sequences, {MakeItemKnn(), SeenItems::kRemove, 2, {.0489, .0321, .0835, .0432}});
  ExpectFloor(sequences, {MakeItemKnn(), SeenItems::kKeep, 1, {.0420, .0276, .0724, .0374}});
  ExpectFloor(sequences, {MakeItemKnn(), SeenItems::kRemove, 1, {.0507, .0332, .0856, .0443}});
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

}  // namespace
}  // namespace beamline::data
