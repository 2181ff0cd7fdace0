// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/beam_select.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "beamline/kernels/candidate_order.h"
#include "beamline/kernels/constraint.h"
#include "cpu/row_ops.h"

namespace beamline::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int32_t kMaxVocab = 1 << 24;

struct Candidate {
  uint64_t key = 0;  // OrderKey(score, node): the smaller the better
  float score = 0;
  float log_prob = 0;
  int32_t parent = 0;

  uint32_t node() const { return static_cast<uint32_t>(key); }
  friend bool operator<(const Candidate& a, const Candidate& b) { return a.key < b.key; }
};

// Keeps the best `width` candidates of a stream in amortised constant time each: candidates that beat the worst kept
// one collect in a buffer, and each time it is full a partial selection halves it and tightens the threshold.
class BestCandidates {
 public:
  // `buffer` is taken over, emptied.
  BestCandidates(size_t width, std::vector<Candidate>& buffer)
      : width_(width), capacity_(std::max<size_t>(2 * width, 256)), buffer_(buffer) {
    buffer_.clear();
    buffer_.reserve(capacity_);
  }

  // No candidate below this score can be among the best; equal ones may, by their node id.
  float threshold() const { return threshold_; }
  bool Admits(uint64_t key) const { return key < worst_key_; }

  void Add(const Candidate& candidate) {
    buffer_.push_back(candidate);
    if (buffer_.size() == capacity_) Shrink();
  }

  const std::vector<Candidate>& Sorted() {
    if (buffer_.size() > width_) Shrink();
    std::sort(buffer_.begin(), buffer_.end());
    return buffer_;
  }

 private:
  void Shrink() {
    std::nth_element(buffer_.begin(), buffer_.begin() + (width_ - 1), buffer_.end());
    buffer_.resize(width_);
    worst_key_ = buffer_.back().key;
    threshold_ = buffer_.back().score;
  }

  const size_t width_;
  const size_t capacity_;
  std::vector<Candidate>& buffer_;
  uint64_t worst_key_ = std::numeric_limits<uint64_t>::max();
  float threshold_ = -std::numeric_limits<float>::max();  // lets no -inf in
};

bool ValidArguments(const BeamSelectArgs& args) {
  if (args.constraint == nullptr || args.out == nullptr || args.logits == nullptr) return false;
  const int levels = args.constraint->trie.levels;
  if (levels < 1 || levels > kMaxTrieLevels || args.level < 0 || args.level >= levels) return false;
  if (args.width < 0 || args.width > kMaxBeamWidth) return false;
  if (args.vocab < 1 || args.vocab > kMaxVocab || args.ld < args.vocab) return false;
  if (args.first_code < 0 || args.first_code >= args.vocab) return false;
  return args.level == 0 || (args.in != nullptr && args.in->count >= 0);
}

// What a thread's steps write to: kept, so that a step of a width that was seen allocates nothing.
struct StepScratch {
  std::vector<Candidate> candidates;
  std::vector<float> gathered;
};

// One request's step: walks the parents best first, so that the threshold tightens early.
class Step {
 public:
  Step(const BeamSelectArgs& args, StepScratch& scratch)
      : args_(args),
        codes_end_(args.vocab - args.first_code),
        ops_(BestRowOps()),
        level_(args.constraint->trie.level[args.level]),
        eligibility_(args.constraint->eligibility[args.level]),
        best_(args.width, scratch.candidates),
        gathered_(scratch.gathered) {}

  int32_t parents() const { return args_.level == 0 ? 1 : args_.in->count; }

  SelectError AddParent(int32_t row, uint32_t parent, float parent_score) {
    if (args_.level > 0 && parent >= args_.constraint->trie.level[args_.level - 1].num_nodes) {
      return SelectError::kInvalidArgument;
    }
    const float* logits = args_.logits + row * args_.ld;
    const float* ahead = row + 1 < parents() ? logits + args_.ld : logits;
    RowScale scale{.parent_score = parent_score};
    if (const SelectError error = Normalise(logits, parent, ahead, &scale); error != SelectError::kOk) return error;
    const NodeRange children = Children(args_.constraint->trie, args_.level, parent);
    if (children.begin >= children.end) return SelectError::kOk;
    if (level_.codes[children.end - 1] >= codes_end_) return SelectError::kInvalidArgument;
    // The row's largest logit scores (max - max) - log_sum; rounding is monotone, so no child scores more.
    if (parent_score + (0.0f - scale.log_sum) < best_.threshold()) return SelectError::kOk;
    AddChildren(logits + args_.first_code, row, children, scale);
    return SelectError::kOk;
  }

  void Write() {
    const std::vector<Candidate>& best = best_.Sorted();
    BeamSlots& out = *args_.out;
    for (size_t i = 0; i < best.size(); ++i) {
      out.node[i] = best[i].node();
      out.score[i] = best[i].score;
      out.parent[i] = best[i].parent;
      out.code[i] = level_.codes[best[i].node()];
      out.log_prob[i] = best[i].log_prob;
    }
    out.count = static_cast<int32_t>(best.size());
  }

 private:
  // Fills max and log_sum by the score rule. `ahead`: the logits read next.
  SelectError Normalise(const float* logits, uint32_t parent, const float* ahead, RowScale* scale) {
    float max = -kInfinity;
    if (!ops_.scan(logits, args_.vocab, &max)) return SelectError::kNonFiniteLogits;
    const float* summed = logits;
    int count = args_.vocab;
    if (args_.rule == ScoreRule::kLegal) {
      const NodeRange children = SnapshotChildren(*args_.constraint, args_.level, parent);
      const uint16_t* codes = args_.constraint->snapshot_trie.level[args_.level].codes;
      if (children.begin >= children.end || children.end - children.begin > static_cast<uint32_t>(codes_end_) ||
          codes[children.end - 1] >= codes_end_) {
        return SelectError::kInvalidArgument;
      }
      count = static_cast<int>(children.end - children.begin);
      gathered_.resize(count);
      ops_.gather(logits + args_.first_code, codes + children.begin, count, gathered_.data());
      summed = gathered_.data();
      ops_.scan(summed, count, &max);
    }
    if (max == -kInfinity) return SelectError::kNonFiniteLogits;
    scale->max = max;
    scale->log_sum = static_cast<float>(std::log(ops_.sum_exp(summed, count, max, ahead)));
    return SelectError::kOk;
  }

  // `logits` begins at the column of code 0.
  void AddChildren(const float* logits, int32_t row, NodeRange children, const RowScale& scale) {
    const DeadSlice dead = DeadAmong(eligibility_, children);
    float log_probs[kScoreBlock];
    float scores[kScoreBlock];
    for (uint32_t begin = children.begin; begin < children.end; begin += kScoreBlock) {
      const int count = static_cast<int>(std::min<uint32_t>(kScoreBlock, children.end - begin));
      if (!ops_.score({logits, level_.codes + begin, count, scale, best_.threshold(), log_probs, scores})) continue;
      for (int i = 0; i < count; ++i) {
        if (!(scores[i] >= best_.threshold())) continue;
        const uint64_t key = OrderKey(scores[i], begin + i);
        if (!best_.Admits(key) || !IsAlive(eligibility_, dead, begin + i)) continue;
        best_.Add({key, scores[i], log_probs[i], row});
      }
    }
  }

  const BeamSelectArgs& args_;
  const int32_t codes_end_;  // codes lie below it
  const RowOps& ops_;
  const TrieLevelView& level_;
  const EligibilityLevelView& eligibility_;
  BestCandidates best_;
  std::vector<float>& gathered_;
};

}  // namespace

SelectError BeamSelectCpu(const BeamSelectArgs& args) {
  if (args.out != nullptr) args.out->count = 0;
  if (!ValidArguments(args)) return SelectError::kInvalidArgument;
  if (args.width == 0) return SelectError::kOk;
  static thread_local StepScratch scratch;
  Step step(args, scratch);
  for (int32_t row = 0; row < step.parents(); ++row) {
    const uint32_t parent = args.level == 0 ? 0 : args.in->node[row];
    const float parent_score = args.level == 0 ? 0.0f : args.in->score[row];
    if (const SelectError error = step.AddParent(row, parent, parent_score); error != SelectError::kOk) return error;
  }
  step.Write();
  return SelectError::kOk;
}

}  // namespace beamline::kernels
