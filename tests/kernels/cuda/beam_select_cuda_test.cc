// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/beam_select_cuda.h"

#include "cuda/beam_select_core.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/drawn_shapes.h"
#include "kernels/select_batch.h"

namespace beamline::kernels {
namespace {

// Arguments that pass every check; nothing is read on the host.
BeamSelectBatch Good() {
  static char memory[64] __attribute__((aligned(16)));
  const auto any = [](auto*& pointer) {
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(memory);
  };
  BeamSelectBatch batch;
  batch.ld = batch.vocab = 8;
  batch.requests = 2;
  batch.rows = 4;
  any(batch.logits);
  any(batch.row_begin);
  any(batch.width);
  any(batch.rule);
  any(batch.constraint);
  any(batch.error);
  any(batch.workspace);
  for (DeviceBeams* beams : {&batch.in, &batch.out}) {
    any(beams->node);
    any(beams->score);
    any(beams->parent);
    any(beams->code);
    any(beams->log_prob);
    any(beams->count);
  }
  any(batch.lineage_in);
  any(batch.lineage_out);
  return batch;
}

TEST(BeamSelectCudaArguments, AreChecked) {
  const auto refused = [](auto change) {
    BeamSelectBatch batch = Good();
    batch.level = 1;
    change(batch);
    return BeamSelectCuda(batch, nullptr) == LaunchError::kInvalidArgument;
  };
  EXPECT_TRUE(refused([](BeamSelectBatch& b) { b.logits = nullptr; }));
  EXPECT_TRUE(refused([](BeamSelectBatch& b) { b.vocab = 0; }));
  EXPECT_TRUE(refused([](BeamSelectBatch& b) { b.vocab = b.ld = (1 << 24) + 1; }));
  EXPECT_TRUE(refused([](BeamSelectBatch& b) { b.ld = b.vocab - 1; }));
  EXPECT_TRUE(refused([](BeamSelectBatch& b) { b.first_code = -1; }));
  EXPECT_TRUE(refused([](BeamSelectBatch& b) { b.first_code = b.vocab; }));
  EXPECT_TRUE(refused([](BeamSelectBatch& b) { b.level = -1; }));
  EXPECT_TRUE(refused([](BeamSelectBatch& b) { b.level = kMaxTrieLevels; }));
  EXPECT_TRUE(refused([](BeamSelectBatch& b) { b.requests = 0; }));
  EXPECT_TRUE(refused([](BeamSelectBatch& b) { b.rows = 1; }));
  EXPECT_TRUE(refused([](BeamSelectBatch& b) { b.row_begin = nullptr; }));
  EXPECT_TRUE(refused([](BeamSelectBatch& b) { b.width = nullptr; }));
  EXPECT_TRUE(refused([](BeamSelectBatch& b) { b.rule = nullptr; }));
  EXPECT_TRUE(refused([](BeamSelectBatch& b) { b.constraint = nullptr; }));
  EXPECT_TRUE(refused([](BeamSelectBatch& b) { b.error = nullptr; }));
  EXPECT_TRUE(refused([](BeamSelectBatch& b) { b.workspace = nullptr; }));
  EXPECT_TRUE(refused([](BeamSelectBatch& b) { b.workspace = static_cast<char*>(b.workspace) + 8; }));
  EXPECT_TRUE(refused([](BeamSelectBatch& b) { b.out.count = nullptr; }));
  EXPECT_TRUE(refused([](BeamSelectBatch& b) { b.in.node = nullptr; }));
  EXPECT_TRUE(refused([](BeamSelectBatch& b) { b.lineage_in = nullptr; }));
  EXPECT_TRUE(refused([](BeamSelectBatch& a) { Misalign(a.logits); }));
  EXPECT_TRUE(refused([](BeamSelectBatch& a) { Misalign(a.parts); }));
  EXPECT_TRUE(refused([](BeamSelectBatch& a) { Misalign(a.row_begin); }));
  EXPECT_TRUE(refused([](BeamSelectBatch& a) { Misalign(a.width); }));
  EXPECT_TRUE(refused([](BeamSelectBatch& a) { Misalign(a.rule); }));
  EXPECT_TRUE(refused([](BeamSelectBatch& a) { Misalign(a.constraint); }));
  EXPECT_TRUE(refused([](BeamSelectBatch& a) { Misalign(a.error); }));
  EXPECT_TRUE(refused([](BeamSelectBatch& a) { Misalign(a.lineage_in); }));
  EXPECT_TRUE(refused([](BeamSelectBatch& a) { Misalign(a.lineage_out); }));
  EXPECT_TRUE(refused([](BeamSelectBatch& a) { Misalign(a.in.node); }));
  EXPECT_TRUE(refused([](BeamSelectBatch& a) { Misalign(a.in.score); }));
  EXPECT_TRUE(refused([](BeamSelectBatch& a) { Misalign(a.in.count); }));
  EXPECT_TRUE(refused([](BeamSelectBatch& a) { Misalign(a.out.node); }));
  EXPECT_TRUE(refused([](BeamSelectBatch& a) { Misalign(a.out.score); }));
  EXPECT_TRUE(refused([](BeamSelectBatch& a) { Misalign(a.out.parent); }));
  EXPECT_TRUE(refused([](BeamSelectBatch& a) { Misalign(a.out.code); }));
  EXPECT_TRUE(refused([](BeamSelectBatch& a) { Misalign(a.out.log_prob); }));
  EXPECT_TRUE(refused([](BeamSelectBatch& a) { Misalign(a.out.count); }));
  EXPECT_EQ(BeamSelectPrepare(nullptr, 1, 1, nullptr), LaunchError::kInvalidArgument);
  EXPECT_EQ(BeamSelectWorkspaceBytes(0, 8), 0u);
  EXPECT_EQ(BeamSelectWorkspaceBytes(8, 4), 0u);
  EXPECT_GT(BeamSelectWorkspaceBytes(1, 512), 512u * 2 * 16);
  if (!WhyNoGpu().empty()) EXPECT_EQ(BeamSelectCuda(Good(), nullptr), LaunchError::kCuda);
}

// Device copies of a batch's constraints.
class DeviceConstraints {
 public:
  explicit DeviceConstraints(const std::vector<ConstraintView>& host) {
    std::vector<ConstraintView> views;
    for (const ConstraintView& view : host) views.push_back(Copy(view));
    views_ = DeviceBuffer<ConstraintView>(views);
  }
  const ConstraintView* data() const { return views_.data(); }

 private:
  template <class T>
  const T* Array(const T* host, size_t count) {
    if (host == nullptr) return nullptr;
    const auto* raw = reinterpret_cast<const unsigned char*>(host);
    arrays_.emplace_back(std::vector<unsigned char>(raw, raw + count * sizeof(T)));
    return reinterpret_cast<const T*>(arrays_.back().data());
  }

  TrieView Copy(const TrieView& host) {
    TrieView trie = host;
    for (int level = 0; level < host.levels; ++level) {
      const uint32_t nodes = host.level[level].num_nodes;
      trie.level[level].codes = Array(host.level[level].codes, nodes);
      trie.level[level].offsets = Array(host.level[level].offsets, nodes + 1);
    }
    return trie;
  }

  ConstraintView Copy(const ConstraintView& host) {
    ConstraintView view = host;
    view.trie = Copy(host.trie);
    view.snapshot_trie = Copy(host.snapshot_trie);
    for (int level = 0; level < host.trie.levels; ++level) {
      const uint32_t nodes = host.trie.level[level].num_nodes;
      view.snapshot_node[level] = Array(host.snapshot_node[level], nodes);
      view.eligibility[level].rule_bits = Array(host.eligibility[level].rule_bits, (nodes + 63) / 64);
      view.eligibility[level].dead_nodes = Array(host.eligibility[level].dead_nodes, host.eligibility[level].num_dead);
    }
    return view;
  }

  std::vector<DeviceBuffer<unsigned char>> arrays_;
  DeviceBuffer<ConstraintView> views_;
};

// Runs steps of a SelectBatch on the device and brings the outputs back.
class DeviceLauncher {
 public:
  explicit DeviceLauncher(SelectBatch* batch)
      : batch_(*batch),
        constraints_(batch->constraints),
        row_begin_(batch->row_begin),
        rules_(batch->rules),
        error_(batch->error),
        workspace_(BeamSelectWorkspaceBytes(batch->requests(), batch->rows)) {
    EXPECT_EQ(BeamSelectPrepare(workspace_.data(), batch_.requests(), batch_.rows, nullptr), LaunchError::kOk);
  }

  void Step() {
    DeviceBuffer<float> logits(batch_.logits);
    DeviceBuffer<int32_t> width(batch_.width), lineage_in(batch_.lineage_in), lineage_out(batch_.lineage_out);
    Slots in(batch_.in), out(batch_.out);
    BeamSelectBatch view = batch_.view();
    const DeviceBuffer<RowPart> parts(batch_.parts);
    if (batch_.with_parts) view.parts = parts.data();
    view.logits = logits.data();
    view.row_begin = row_begin_.data();
    view.width = width.data();
    view.rule = rules_.data();
    view.constraint = constraints_.data();
    view.in = in.view();
    view.out = out.view();
    view.lineage_in = lineage_in.data();
    view.lineage_out = lineage_out.data();
    view.error = error_.data();
    view.workspace = workspace_.data();
    ASSERT_EQ(BeamSelectCuda(view, nullptr), LaunchError::kOk) << cudaGetErrorString(cudaGetLastError());
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess) << cudaGetErrorString(cudaGetLastError());
    batch_.out = out.Download();
    batch_.lineage_out = lineage_out.Download();
    batch_.error = error_.Download();
  }

 private:
  struct Slots {
    explicit Slots(const SlotVectors& host)
        : node(host.node),
          score(host.score),
          parent(host.parent),
          code(host.code),
          log_prob(host.log_prob),
          count(host.count) {}
    DeviceBeams view() const {
      return {node.data(), score.data(), parent.data(), code.data(), log_prob.data(), count.data()};
    }
    SlotVectors Download() const {
      SlotVectors host;
      host.node = node.Download();
      host.score = score.Download();
      host.parent = parent.Download();
      host.code = code.Download();
      host.log_prob = log_prob.Download();
      host.count = count.Download();
      return host;
    }
    DeviceBuffer<uint32_t> node;
    DeviceBuffer<float> score;
    DeviceBuffer<int32_t> parent;
    DeviceBuffer<uint16_t> code;
    DeviceBuffer<float> log_prob;
    DeviceBuffer<int32_t> count;
  };

  SelectBatch& batch_;
  DeviceConstraints constraints_;
  DeviceBuffer<int32_t> row_begin_;
  DeviceBuffer<ScoreRule> rules_;
  DeviceBuffer<int32_t> error_;
  DeviceBuffer<unsigned char> workspace_;
};

class BeamSelectGpu : public GpuTest {};

void CheckRandomBatches(uint32_t first, uint32_t seeds, int vocab, int leaves, int width) {
  for (uint32_t seed = first; seed < first + seeds; ++seed) {
    RandomBatch problem(seed, vocab, leaves, width);
    problem.batch.with_parts = vocab <= kPartColumns && seed % 2 == 1;  // one a row: the CPU's own sum
    DeviceLauncher launcher(&problem.batch);
    std::vector<SelectError> failed;
    for (int level = 0; level < problem.levels; ++level) {
      problem.BeginStep(level);
      launcher.Step();
      ASSERT_EQ(problem.batch.Wrong(&failed), "") << "seed " << seed;
    }
  }
}

TEST_F(BeamSelectGpu, EqualsTheCpuOnRandomBatches) { CheckRandomBatches(0, SmallShapesOnly() ? 6 : 200, 12, 60, 24); }
TEST_F(BeamSelectGpu, EqualsTheCpuOnWiderVocabularies) {
  CheckRandomBatches(1000, SmallShapesOnly() ? 2 : 60, 3000, 400, SmallShapesOnly() ? 20 : 200);
}

TEST_F(BeamSelectGpu, DrawnShapes) {
  ForDrawnShapes([](Draw& draw) {
    const int vocab = draw.Size(5000), leaves = draw.Size(600), width = draw.Size(SmallShapesOnly() ? 40 : 300);
    CheckRandomBatches(draw.Seed(), 1, vocab, leaves, width);
  });
}

// kind 0: normal logits; 1: few values, many ties; 2: all equal, the worst case of the radix passes.
void CheckWide(int parents, int vocab, int width, int kind) {
  std::mt19937 random(parents + width + kind);
  const WideTrie dense(parents, vocab, 1), sparse(parents, vocab, 8);
  SelectBatch batch;
  batch.vocab = vocab;
  batch.Add(dense.constraint, ScoreRule::kFull, {parents, width}, 0);
  batch.Add(sparse.constraint, ScoreRule::kLegal, {std::min(parents, 33), std::max(1, width / 3)}, 1);
  DeviceLauncher launcher(&batch);
  std::vector<SelectError> failed;
  for (int level = 0; level < 2; ++level) {
    batch.BeginStep(level);
    batch.logits = Normal(random, static_cast<size_t>(batch.logit_rows()) * vocab, 3.0f);
    for (float& x : batch.logits) x = kind == 0 ? x : kind == 1 ? std::floor(x) : 0.0f;
    launcher.Step();
    ASSERT_EQ(batch.Wrong(&failed), "") << parents << " x " << vocab << " width " << width << " kind " << kind;
  }
}

TEST_F(BeamSelectGpu, IsExactWhenCandidatesOutnumberTheBuffer) {
  for (int kind : {0, 1, 2}) {
    CheckWide(4, 3000, 512, kind);
    CheckWide(33, 1021, 64, kind);
    if (!SmallShapesOnly()) CheckWide(512, 8192, 512, kind);
  }
}

// The one kernel of the first level refines, too: two requests whose buffers lie side by side.
TEST_F(BeamSelectGpu, FirstLevelBeyondTheBuffer) {
  std::mt19937 random(4);
  const int codes = 5000;
  const WideTrie trie(codes, codes, codes - 1);
  ConstraintView roots = trie.constraint;
  roots.trie.levels = roots.snapshot_trie.levels = 1;
  for (const int width : {40, 700}) {
    for (int kind = 0; kind < 4; ++kind) {
      SelectBatch batch;
      batch.vocab = codes;
      batch.Add(roots, ScoreRule::kFull, {width}, 0);
      batch.Add(roots, ScoreRule::kLegal, {3 * width}, 1);
      DeviceLauncher launcher(&batch);
      std::vector<SelectError> failed;
      for (int again = 0; again < 2; ++again) {
        batch.BeginStep(0);
        batch.logits = Normal(random, static_cast<size_t>(batch.logit_rows()) * codes, 3.0f);
        for (float& x : batch.logits) {
          x = kind == 0 ? x : kind == 1 ? std::floor(x) : kind == 2 ? 1e-6f * std::floor(x) : x < 0 ? -INFINITY : 0.25f;
        }
        launcher.Step();
        ASSERT_EQ(batch.Wrong(&failed), "") << "kind " << kind << " width " << width;
      }
    }
  }
}

TEST_F(BeamSelectGpu, SortsBeyondSharedMemory) {
  const int width = select::kSortShared + 40;
  for (int kind : {0, 2}) CheckWide(4, 1021, width, kind);
  if (SmallShapesOnly()) return;
  for (int kind : {0, 2}) CheckWide(64, 1024, 2 * width, kind);
}

// More blocks of exponentials than are summed at a time, and a last one that is not full.
TEST_F(BeamSelectGpu, SumsLongRows) {
  std::mt19937 random(6);
  const int codes = 50;
  const WideTrie trie(2, codes, 1);
  SelectBatch batch;
  batch.vocab = 131072 + 77;
  batch.first_code = batch.vocab - codes;
  batch.Add(trie.constraint, ScoreRule::kFull, {2, 20}, 0);
  DeviceLauncher launcher(&batch);
  std::vector<SelectError> failed;
  for (int level = 0; level < 2; ++level) {
    batch.BeginStep(level);
    batch.logits = Normal(random, size_t{2} * batch.vocab, 3.0f);  // of the active rows alone
    launcher.Step();
    ASSERT_EQ(batch.Wrong(&failed), "");
  }
}

// In small shapes the widest vocabulary alone: the emulator starts a block for each slot.
TEST_F(BeamSelectGpu, TakesTheWidestBeamAndVocabulary) {
  std::mt19937 random(3);
  const int parents = 2, vocab = 65536;
  const WideTrie trie(parents, vocab, SmallShapesOnly() ? 255 : 1);  // the first has a child of code 65535
  SelectBatch batch;
  batch.vocab = vocab;
  batch.Add(trie.constraint, ScoreRule::kFull, {parents, SmallShapesOnly() ? 1000 : kMaxBeamWidth}, 0);
  DeviceLauncher launcher(&batch);
  std::vector<SelectError> failed;
  for (int level = 0; level < 2; ++level) {
    batch.BeginStep(level);
    batch.logits = Normal(random, static_cast<size_t>(parents) * vocab, 3.0f);  // of the active rows alone
    launcher.Step();
    ASSERT_EQ(batch.Wrong(&failed), "");
  }
}

TEST_F(BeamSelectGpu, RefusesWiderBeamsThanTheCpu) {
  const WideTrie trie(1, 8, 1);
  SelectBatch batch;
  batch.vocab = 8;
  batch.Add(trie.constraint, ScoreRule::kFull, {kMaxBeamWidth + 1}, 0);
  batch.Add(trie.constraint, ScoreRule::kFull, {1}, 0);
  DeviceLauncher launcher(&batch);
  batch.BeginStep(0);
  batch.logits.assign(16, 0.5f);
  launcher.Step();
  std::vector<SelectError> failed;
  EXPECT_EQ(batch.Wrong(&failed), "");
  EXPECT_EQ(batch.error, (std::vector<int32_t>{static_cast<int32_t>(SelectError::kInvalidArgument), 0}));
}

// A level of more nodes than 16 bits count, below a root of very many children, with a rule's bits and a dead list.
TEST_F(BeamSelectGpu, FindsItsWayInALargeTrie) {
  std::mt19937 random(8);
  constexpr int kFan = 2936, kWidth = 48;
  std::vector<uint16_t> codes[3];
  std::vector<uint32_t> offsets[2] = {{0}, {0}};
  for (int root = 0; root < kFan; ++root) {
    codes[0].push_back(static_cast<uint16_t>(root));
    for (int child = 0; child < 20 + root % 8; ++child) {
      codes[1].push_back(static_cast<uint16_t>(child * 100 + root % 90));
      codes[2].push_back(static_cast<uint16_t>(random() % 50));
      if (child % 2 == 0) codes[2].push_back(static_cast<uint16_t>(50 + random() % 50));
      offsets[1].push_back(static_cast<uint32_t>(codes[2].size()));
    }
    offsets[0].push_back(static_cast<uint32_t>(codes[1].size()));
  }
  ASSERT_GT(codes[1].size(), size_t{1} << 16);
  ConstraintView constraint;
  constraint.trie.levels = 3;
  std::vector<uint64_t> bits[3];
  std::vector<uint32_t> dead[3];
  for (int level = 0; level < 3; ++level) {
    const uint32_t nodes = static_cast<uint32_t>(codes[level].size());
    constraint.trie.level[level] = {codes[level].data(), level < 2 ? offsets[level].data() : nullptr, nodes};
    bits[level].assign((nodes + 63) / 64, 0);
    for (uint32_t node = 0; node < nodes; ++node) {
      if (random() % 4 != 0) bits[level][node / 64] |= uint64_t{1} << (node % 64);
      if (random() % 3 == 0) dead[level].push_back(node);
    }
    constraint.eligibility[level] = {bits[level].data(), dead[level].data(), static_cast<uint32_t>(dead[level].size())};
  }
  constraint.snapshot_trie = constraint.trie;
  SelectBatch batch;
  batch.vocab = kFan;
  batch.Add(constraint, ScoreRule::kFull, {kWidth, kWidth, kWidth}, 0);
  batch.Add(constraint, ScoreRule::kLegal, {3, kWidth, 7}, 1);
  DeviceLauncher launcher(&batch);
  std::vector<SelectError> failed;
  uint32_t largest = 0;
  for (int level = 0; level < 3; ++level) {
    batch.BeginStep(level);
    batch.logits = Normal(random, static_cast<size_t>(batch.logit_rows()) * batch.vocab, 3.0f);
    launcher.Step();
    ASSERT_EQ(batch.Wrong(&failed), "");
    for (int b = 0; b < 2; ++b) {
      ASSERT_GT(batch.out.count[b], 0);
      for (const Beam& beam : batch.Beams(b)) {  // what the CPU's selection shares is seen here, too
        EXPECT_NE(bits[level][beam.node / 64] >> (beam.node % 64) & 1, 0u);
        EXPECT_FALSE(std::binary_search(dead[level].begin(), dead[level].end(), beam.node));
        largest = std::max(largest, beam.node);
      }
    }
  }
  EXPECT_GT(largest, uint32_t{1} << 16);
}

}  // namespace
}  // namespace beamline::kernels
