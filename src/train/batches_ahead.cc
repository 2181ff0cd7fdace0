// SPDX-License-Identifier: Apache-2.0
#include "train/batches_ahead.h"

#include <cstddef>
#include <utility>

namespace beamline::train {

BatchesAhead::BatchesAhead(std::function<ExampleBatch(int64_t)> build, int64_t begin, int64_t end, int threads)
    : build_(std::move(build)), end_(end), scheduled_(begin), pool_(threads) {}

ExampleBatch BatchesAhead::Next() {
  const size_t ahead = 1 + 2 * static_cast<size_t>(pool_.threads());  // one in use, one at work and one done per thread
  for (; coming_.size() < ahead && scheduled_ < end_; ++scheduled_) {
    std::packaged_task<ExampleBatch()> task([this, batch = scheduled_] { return build_(batch); });
    coming_.push_back(task.get_future());
    pool_.Schedule(std::move(task));
  }
  ExampleBatch next = coming_.front().get();
  coming_.pop_front();
  return next;
}

}  // namespace beamline::train
