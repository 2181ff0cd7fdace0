// SPDX-License-Identifier: Apache-2.0
//
// One model, several ways to the same logits: beam steps and teacher forcing, alone and in company, one position and
// many, cached and fresh, fp32 and bf16.
#include <cmath>

#include "gmock/gmock.h"
#include "model/model_test_util.h"

namespace beamline::model {
namespace {

class EquivalenceTest : public testing::TestWithParam<ModelCase> {
 protected:
  void SetUp() override { ASSERT_TRUE(ValidateConfig(config_).ok()) << ValidateConfig(config_); }

  void CheckDecodeSteps(const Model& model, const EncodedContext& context, const EncodedContext& decoded);

  const ModelConfig config_ = GetParam().config;
  backend::Context ctx_ = TestContext("fp32", GetParam().backend);
  std::mt19937_64 rng_{7};
};

class CausalEncoderTest : public EquivalenceTest {};

std::vector<ModelCase> CausalCases() {
  std::vector<ModelCase> cases = ModelCases();
  std::erase_if(cases, [](const ModelCase& model_case) { return !model_case.config.encoder.causal; });
  return cases;
}

// Random beams with random parents and, at every level, a different number of rows: the logits of each row must be the
// teacher-forced ones of the path that its lineage spells.
TEST_P(EquivalenceTest, DecodeStepsEqualTeacherForcing) {
  const auto model = RandomModel(ctx_, config_, 1);
  const EncodedContext context = EncodeAll(
      ctx_, *model,
      BatchOf(config_,
              {RandomHistory(config_, 9, rng_), RandomHistory(config_, 2, rng_), RandomHistory(config_, 5, rng_)}));
  CheckDecodeSteps(*model, context, context);
}

TEST_P(EquivalenceTest, DecodeStepsAfterAFirstStepOfTheContextEqualTeacherForcing) {
  if (backend::SearchesOnDevice(ctx_)) GTEST_SKIP() << "there the first step belongs to the search";
  const auto model = RandomModel(ctx_, config_, 1);
  const EncodedContext context = EncodeAll(
      ctx_, *model,
      BatchOf(config_,
              {RandomHistory(config_, 9, rng_), RandomHistory(config_, 2, rng_), RandomHistory(config_, 5, rng_)}));
  const int64_t bytes = SplitContext(ctx_, context)[0].bytes();
  EncodedContext stepped = context;
  TakeFirstStep(ctx_, *model, stepped);
  const std::vector<ContextHandle> handles = SplitContext(ctx_, stepped);
  EXPECT_GE(handles[0].bytes(), bytes + 4 * config_.level_sizes[0]);
  CheckDecodeSteps(*model, context, PackContexts(ctx_, {&handles[0], &handles[1], &handles[2]}));
}

// The steps from `decoded` on against teacher forcing over `context`.
void EquivalenceTest::CheckDecodeSteps(const Model& model, const EncodedContext& context,
                                       const EncodedContext& decoded) {
  const int batch = 3, widths[] = {1, 4, 6};
  DecodeState state = model.BeginDecode(ctx_, decoded);
  std::vector<std::vector<int32_t>> paths(batch);  // [batch][rows * level]
  for (int level = 0; level < config_.levels(); ++level) {
    const int rows = widths[level];
    StepInput step{.level = level};
    std::vector<std::vector<int32_t>> next(batch);
    std::vector<int32_t> codes, parents;
    for (int b = 0; b < batch && level > 0; ++b) {
      for (int row = 0; row < rows; ++row) {
        const int parent = static_cast<int>(rng_() % widths[level - 1]);
        const int code = static_cast<int>(rng_() % config_.level_sizes[level - 1]);
        parents.push_back(parent);
        codes.push_back(code);
        const auto begin = paths[b].begin() + parent * (level - 1);
        next[b].insert(next[b].end(), begin, begin + level - 1);
        next[b].push_back(code);
      }
    }
    if (level > 0) {
      step.codes = backend::UploadInts(ctx_, codes, {batch, rows});
      step.parents = backend::UploadInts(ctx_, parents, {batch, rows});
      paths = next;
    }
    const std::vector<float> stepped = backend::DownloadFloats(
        ctx_, level == 0 ? FirstLogits(ctx_, model, state) : model.DecodeStep(ctx_, state, step));

    std::vector<int32_t> full;
    for (int b = 0; b < batch; ++b) {
      for (int row = 0; row < rows; ++row) {
        for (int l = 0; l < config_.levels(); ++l) full.push_back(l < level ? paths[b][row * level + l] : 0);
      }
    }
    const std::vector<int32_t> limits(batch * rows, backend::kSeesAllOrders);
    EXPECT_LT(MaxDifference(stepped, Teacher(ctx_, model, context, rows, full, limits)[level]), kTolerance)
        << "level " << level;
  }
  for (const backend::LineageCache& layer : state.layers) {
    EXPECT_EQ(layer.steps.size(), config_.levels() - 1) << "the last step writes no key and value";
  }
}

TEST_P(EquivalenceTest, CompanyAndPaddingChangeNothing) {
  const auto model = RandomModel(ctx_, config_, 2);
  std::vector<History> histories;
  for (const int events : {9, 1, 0, 6}) histories.push_back(RandomHistory(config_, events, rng_));
  const std::vector<int32_t> codes = RandomCodes(config_, histories.size() * 2, rng_);
  const std::vector<int32_t> limits(histories.size() * 2, backend::kSeesAllOrders);
  const double company = std::string(GetParam().backend) == "aten" ? kTolerance : 0;  // bit-identical but in the oracle
  const auto together =
      Teacher(ctx_, *model, EncodeAll(ctx_, *model, BatchOf(config_, histories, 3)), 2, codes, limits);
  for (size_t b = 0; b < histories.size(); ++b) {
    const std::vector<int32_t> own(codes.begin() + b * 2 * config_.levels(),
                                   codes.begin() + (b + 1) * 2 * config_.levels());
    const EncodedContext context = EncodeAll(ctx_, *model, BatchOf(config_, {histories[b]}));
    const auto alone = Teacher(ctx_, *model, context, 2, own, {limits[0], limits[0]});
    for (int level = 0; level < config_.levels(); ++level) {
      const size_t size = 2 * config_.level_sizes[level];
      const std::vector<float> row(together[level].begin() + b * size, together[level].begin() + (b + 1) * size);
      EXPECT_LE(MaxDifference(alone[level], row), company) << "history " << b << " level " << level;
    }
  }
}

TEST_P(EquivalenceTest, SplitAndRepackedContextsAreTheSameContext) {
  const auto model = RandomModel(ctx_, config_, 3);
  const std::vector<History> histories = {RandomHistory(config_, 3, rng_), RandomHistory(config_, 9, rng_),
                                          RandomHistory(config_, 0, rng_)};
  const EncodedContext context = EncodeAll(ctx_, *model, BatchOf(config_, histories, 2));
  const std::vector<ContextHandle> handles = SplitContext(ctx_, context);
  ASSERT_EQ(handles.size(), 3);
  const int static_tokens = config_.user.enabled ? 1 : 0, pathways = config_.short_term.enabled() ? 2 : 1;
  EXPECT_EQ(handles[0].tokens(), static_tokens + 3 * pathways);
  EXPECT_EQ(handles[2].tokens(), static_tokens);
  EXPECT_GT(handles[1].bytes(), handles[0].bytes());

  const EncodedContext repacked = PackContexts(ctx_, {&handles[2], &handles[0]});
  const std::vector<int32_t> codes = RandomCodes(config_, 3, rng_);
  const std::vector<int32_t> limits(3, backend::kSeesAllOrders);
  const int levels = config_.levels();
  std::vector<int32_t> reordered(codes.begin() + 2 * levels, codes.end());
  reordered.insert(reordered.end(), codes.begin(), codes.begin() + levels);
  const auto before = Teacher(ctx_, *model, context, 1, codes, limits);
  const auto after = Teacher(ctx_, *model, repacked, 1, reordered, {limits[0], limits[0]});
  for (int level = 0; level < levels; ++level) {
    const size_t size = config_.level_sizes[level];
    const std::vector<float> last(before[level].end() - size, before[level].end());
    const std::vector<float> first(before[level].begin(), before[level].begin() + size);
    EXPECT_LT(MaxDifference({after[level].begin(), after[level].begin() + size}, last), kTolerance);
    EXPECT_LT(MaxDifference({after[level].begin() + size, after[level].end()}, first), kTolerance);
  }
}

// What a causal encoder is for: target p under the whole window equals target p under its own history.
TEST_P(CausalEncoderTest, OnePassTrainsEveryPosition) {
  const auto model = RandomModel(ctx_, config_, 4);
  const int events = 4;  // no pathway drops any, so that both windows hold the same elements
  const History history = RandomHistory(config_, events, rng_);
  const std::vector<int32_t> codes = RandomCodes(config_, events, rng_);
  std::vector<int32_t> limits;
  for (int target = 0; target < events; ++target) limits.push_back(target - 1);
  const EncodedContext window = EncodeAll(ctx_, *model, BatchOf(config_, {history}));
  const auto many = Teacher(ctx_, *model, window, events, codes, limits);
  for (int target = 0; target < events; ++target) {
    History before = history;
    before.short_term.resize(target);
    before.positive.resize(target);
    const EncodedContext context = EncodeAll(ctx_, *model, BatchOf(config_, {before}));
    const int levels = config_.levels();
    const auto one =
        Teacher(ctx_, *model, context, 1, {codes.begin() + target * levels, codes.begin() + (target + 1) * levels},
                {backend::kSeesAllOrders});
    for (int level = 0; level < levels; ++level) {
      const auto begin = many[level].begin() + target * config_.level_sizes[level];
      EXPECT_LT(MaxDifference(one[level], {begin, begin + config_.level_sizes[level]}), kTolerance)
          << "target " << target << " level " << level;
    }
  }
}

TEST_P(EquivalenceTest, LogitsDependOnContextAndCodes) {
  const auto model = RandomModel(ctx_, config_, 5);
  const EncodedContext context =
      EncodeAll(ctx_, *model, BatchOf(config_, {RandomHistory(config_, 5, rng_), RandomHistory(config_, 5, rng_)}));
  const std::vector<int32_t> limits(2, backend::kSeesAllOrders);
  const auto of_levels = [&](const std::vector<int32_t>& codes) {  // of two targets, three codes each
    std::vector<int32_t> cut(codes.begin(), codes.begin() + config_.levels());
    cut.insert(cut.end(), codes.begin() + 3, codes.begin() + 3 + config_.levels());
    return cut;
  };
  const auto logits = Teacher(ctx_, *model, context, 1, of_levels({1, 2, 3, 1, 2, 3}), limits);
  const auto other = Teacher(ctx_, *model, context, 1, of_levels({1, 3, 3, 4, 2, 3}), limits);
  const size_t size = config_.level_sizes[0];
  EXPECT_GT(MaxDifference({logits[0].begin(), logits[0].begin() + size}, {logits[0].begin() + size, logits[0].end()}),
            1e-2);
  EXPECT_LT(MaxDifference(logits[0], other[0]), 1e-6) << "level 0 must not see the codes";
  for (int level = 1; level < config_.levels(); ++level) {
    EXPECT_GT(MaxDifference(logits[level], other[level]), 1e-2) << level;
  }
}

TEST_P(EquivalenceTest, InferenceModeChangesNothing) {
  const auto model = RandomModel(ctx_, config_, 8);
  const EncoderInput input = BatchOf(config_, {RandomHistory(config_, 4, rng_)});
  const std::vector<int32_t> codes = RandomCodes(config_, 1, rng_);
  const auto outside = Teacher(ctx_, *model, EncodeAll(ctx_, *model, input), 1, codes, {backend::kSeesAllOrders});
  const backend::InferenceGuard guard;
  const auto inside = Teacher(ctx_, *model, EncodeAll(ctx_, *model, input), 1, codes, {backend::kSeesAllOrders});
  EXPECT_EQ(inside, outside);
}

// Every weight but the expert biases, which a rule moves, learns from the loss of a training pass with dropout.
TEST_P(EquivalenceTest, GradientsReachEveryWeight) {
  if (std::string(GetParam().backend) != "aten") GTEST_SKIP() << "trains on aten alone";
  const auto model = RandomModel(ctx_, config_, 9);
  for (const auto& [name, tensor] : model->weights().tensors()) {
    if (name.find("moe.bias") == std::string::npos) at::Tensor(tensor).requires_grad_(true);
  }
  std::vector<History> histories;
  for (int i = 0; i < 12; ++i) histories.push_back(RandomHistory(config_, 4, rng_));
  ctx_.training = true;
  ctx_.dropout = 0.1;
  ctx_.generator = backend::MakeGenerator(ctx_, 1);
  std::vector<backend::ExpertLoad> loads;
  ctx_.expert_loads = &loads;
  const EncodedContext context = EncodeAll(ctx_, *model, BatchOf(config_, histories));
  const TeacherInput targets{12, 2, RandomCodes(config_, 24, rng_), std::vector<int32_t>(24, backend::kSeesAllOrders)};
  at::Tensor loss;
  for (const at::Tensor& logits : model->TeacherForced(ctx_, context, UploadTeacherInput(ctx_, config_, targets))) {
    const at::Tensor level = logits.log_softmax(-1).select(-1, 0).sum();
    loss = loss.defined() ? loss.add(level) : level;
  }
  loss.backward();
  for (const auto& [name, tensor] : model->weights().tensors()) {
    if (name.find("moe.bias") != std::string::npos) continue;
    ASSERT_TRUE(tensor.grad().defined()) << name;
    EXPECT_TRUE(tensor.grad().isfinite().all().item<bool>()) << name;
    EXPECT_GT(tensor.grad().abs().max().item<float>(), 0) << name;
  }
  EXPECT_EQ(loads.size(), GetParam().name == "moe" ? 5 : 0);
}

// Rounding apart, every backend computes the oracle's logits: both within a few hundred roundings of exact arithmetic,
// relative to the largest logit.
TEST_P(EquivalenceTest, BackendsAgree) {
  backend::Context aten = TestContext();
  const auto oracle = RandomModel(aten, config_, 10), model = RandomModel(ctx_, config_, 10);
  std::vector<History> histories;
  for (const int events : {9, 0, 4, 7}) histories.push_back(RandomHistory(config_, events, rng_));
  const EncoderInput input = BatchOf(config_, histories, 1);
  const std::vector<int32_t> codes = RandomCodes(config_, histories.size() * 3, rng_);
  std::vector<int32_t> limits;
  for (size_t i = 0; i < histories.size() * 3; ++i) limits.push_back(static_cast<int32_t>(rng_() % 9) - 1);
  const auto expected = Teacher(aten, *oracle, EncodeAll(aten, *oracle, input), 3, codes, limits);
  const auto actual = Teacher(ctx_, *model, EncodeAll(ctx_, *model, input), 3, codes, limits);
  for (int level = 0; level < config_.levels(); ++level) {
    double largest = 0;
    for (const float logit : expected[level]) largest = std::max(largest, std::abs(double{logit}));
    EXPECT_LT(MaxDifference(actual[level], expected[level]), 300 * 6e-8 * largest) << "level " << level;
    EXPECT_GT(largest, 0.5);
  }
}

TEST_P(EquivalenceTest, Bf16IsCloseToFp32) {
  backend::Context bf16 = TestContext("bf16");
  const auto exact = RandomModel(ctx_, config_, 6);
  const auto rounded = RandomModel(bf16, config_, 6);
  const EncoderInput input = BatchOf(config_, {RandomHistory(config_, 7, rng_), RandomHistory(config_, 3, rng_)});
  const std::vector<int32_t> codes = RandomCodes(config_, 2, rng_);
  const std::vector<int32_t> limits(2, backend::kSeesAllOrders);
  const auto a = Teacher(ctx_, *exact, EncodeAll(ctx_, *exact, input), 1, codes, limits);
  const auto b = Teacher(bf16, *rounded, EncodeAll(bf16, *rounded, input), 1, codes, limits);
  for (int level = 0; level < config_.levels(); ++level) {
    double norm = 0, error = 0;
    for (size_t i = 0; i < a[level].size(); ++i) {
      norm += a[level][i] * a[level][i];
      error += (a[level][i] - b[level][i]) * (a[level][i] - b[level][i]);
    }
    // MoE may choose another expert at a near tie: a larger but still bounded error.
    EXPECT_LT(std::sqrt(error / norm), config_.decoder.ffn.experts > 0 ? 0.35 : 0.12) << "level " << level;
    EXPECT_GT(error, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, EquivalenceTest, testing::ValuesIn(ModelCases()),
                         [](const auto& info) { return info.param.name; });
INSTANTIATE_TEST_SUITE_P(Models, CausalEncoderTest, testing::ValuesIn(CausalCases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace beamline::model
