// SPDX-License-Identifier: Apache-2.0
#include "scheduler/cost_table.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace beamline::scheduler {
namespace {

constexpr int kBucketsPerOctave = 4;
constexpr double kWithinBucket = 1.5;               // the most that sizes of one bucket differ by
constexpr int kBucketAge = 10;                      // in maximum ages
constexpr int kMuchLarger = 3 * kBucketsPerOctave;  // than eight times as much

// The most that one batch may say where it was known to take `known`. Of what takes next to nothing a stall may be
// told, too, or it would never be learnt that it has become slow.
absl::Duration Most(absl::Duration known) { return 8 * std::max(known, absl::Milliseconds(1)); }

int BucketOf(int64_t size) {
  return static_cast<int>(std::log2(static_cast<double>(std::max<int64_t>(size, 1))) * kBucketsPerOctave);
}

}  // namespace

CostTable::Cell CostTable::At(WorkKind kind, const BatchSize& size) {
  return {BucketOf(kind == WorkKind::kEncode ? size.requests : size.computed_rows()), BucketOf(size.context_tokens),
          absl::ZeroDuration(), absl::InfinitePast()};
}

int64_t CostTable::Bucket(WorkKind kind, const BatchSize& size) {
  const Cell at = At(kind, size);
  return (static_cast<int64_t>(kind) << 32) + (int64_t{at.width_bucket} << 16) + at.tokens_bucket;
}

CostTable::Cell* CostTable::Find(WorkKind kind, const BatchSize& size) {
  const Cell at = At(kind, size);
  for (Cell& cell : kinds_[static_cast<int>(kind)].cells) {
    if (cell.width_bucket == at.width_bucket && cell.tokens_bucket == at.tokens_bucket) return &cell;
  }
  return nullptr;
}

void CostTable::Forget(Kind& kind, absl::Time now) const {
  const bool all = Stale(kind, now);
  std::erase_if(kind.cells, [&](const Cell& cell) { return all || now - cell.refreshed > kBucketAge * max_age_; });
}

void CostTable::Observe(WorkKind kind, const BatchSize& size, absl::Duration duration, absl::Time now) {
  Kind& table = kinds_[static_cast<int>(kind)];
  // What was known when it began: one that takes longer than the maximum age does not make its own kind stale.
  const absl::Time began = now - duration;
  Forget(table, began);
  const absl::Duration expected = table.baseline.empty() ? duration : Estimate(kind, size, began);
  table.refreshed = now;
  if (Cell* cell = Find(kind, size)) {
    cell->duration += (std::min(duration, Most(cell->duration)) - cell->duration) * weight_;
    cell->refreshed = now;
    return;
  }
  Cell cell = At(kind, size);
  // Other work on the machine makes a batch slower, never faster.
  cell.duration = duration < expected ? duration : expected + (std::min(duration, Most(expected)) - expected) * weight_;
  cell.refreshed = now;
  table.cells.push_back(cell);
}

void CostTable::ObserveAtLeast(WorkKind kind, const BatchSize& size, absl::Duration duration, absl::Time now) {
  Kind& table = kinds_[static_cast<int>(kind)];
  const absl::Time began = now - duration;
  Forget(table, began);
  Cell* const cell = Find(kind, size);
  const absl::Duration known = cell != nullptr ? cell->duration : Estimate(kind, size, began);
  if (known < duration) {
    Observe(kind, size, duration, now);
  } else if (cell != nullptr) {
    table.refreshed = cell->refreshed = now;
  }
}

void CostTable::SetBaseline(absl::Span<const BatchCost> measured) {
  for (Kind& kind : kinds_) kind.baseline.clear();
  for (const BatchCost& cost : measured) {
    Cell cell = At(cost.kind, cost.size);
    cell.duration = std::max(cost.duration, absl::Nanoseconds(1));  // ratios are taken of it
    kinds_[static_cast<int>(cost.kind)].baseline.push_back(cell);
  }
}

void CostTable::BoundBaseline(WorkKind kind, const BatchSize& size, absl::Duration duration) {
  std::vector<Cell>& baseline = kinds_[static_cast<int>(kind)].baseline;
  if (baseline.empty()) return;
  Cell at = At(kind, size);
  at.duration = std::max(duration, absl::Nanoseconds(1)) * kWithinBucket;
  for (Cell& cell : baseline) {
    if (Growth(at, cell) <= 0) cell.duration = std::min(cell.duration, at.duration);
  }
  if (at.duration < Scaled(baseline, at)) baseline.push_back(at);
}

bool CostTable::Stale(absl::Time now) const {
  return std::any_of(kinds_.begin(), kinds_.end(), [&](const Kind& kind) { return Stale(kind, now); });
}

absl::Duration CostTable::Estimate(WorkKind kind, const BatchSize& size, absl::Time now) const {
  const Kind& table = kinds_[static_cast<int>(kind)];
  const Cell at = At(kind, size);
  if (table.cells.empty() || Stale(table, now)) {
    return table.baseline.empty() ? absl::ZeroDuration() : Scaled(table.baseline, at);
  }
  if (table.baseline.empty()) return Scaled(table.cells, at);
  const Cell& nearest = Nearest(table.cells, at);
  const absl::Duration expected = Scaled(table.baseline, at), expected_there = Scaled(table.baseline, nearest);
  if (Growth(nearest, at) > kMuchLarger && expected > expected_there) {
    return expected + (nearest.duration - expected_there);
  }
  return nearest.duration * absl::FDivDuration(expected, expected_there);
}

absl::Duration CostTable::Least(WorkKind kind, const BatchSize& size, absl::Time now) const {
  const absl::Duration estimate = Estimate(kind, size, now);
  const std::vector<Cell>& baseline = kinds_[static_cast<int>(kind)].baseline;
  return baseline.empty() ? estimate : std::min(estimate, Scaled(baseline, At(kind, size)));
}

int CostTable::Growth(const Cell& cell, const Cell& at) {
  return std::max(at.width_bucket - cell.width_bucket, at.tokens_bucket - cell.tokens_bucket);
}

const CostTable::Cell& CostTable::Nearest(const std::vector<Cell>& cells, const Cell& at) {
  const auto distance = [&](const Cell& cell) {
    return std::abs(cell.width_bucket - at.width_bucket) + std::abs(cell.tokens_bucket - at.tokens_bucket);
  };
  return *std::min_element(cells.begin(), cells.end(),
                           [&](const Cell& a, const Cell& b) { return distance(a) < distance(b); });
}

absl::Duration CostTable::Scaled(const std::vector<Cell>& cells, const Cell& at) {
  const Cell& nearest = Nearest(cells, at);
  const int growth = std::max(0, Growth(nearest, at));
  const int shrinkage = growth > 0 ? 0 : Growth(at, nearest);
  return nearest.duration * std::exp2((growth - shrinkage / 2.0) / kBucketsPerOctave);
}

absl::Duration CostsAt::Estimate(WorkKind kind, const BatchSize& size) const {
  const auto [known, added] = known_.try_emplace(CostTable::Bucket(kind, size));
  if (added) known->second = table_.Estimate(kind, size, now_);
  return known->second;
}

}  // namespace beamline::scheduler
