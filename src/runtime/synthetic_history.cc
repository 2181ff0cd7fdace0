// SPDX-License-Identifier: Apache-2.0
#include "runtime/synthetic_history.h"

namespace beamline::runtime {

std::vector<Event> SyntheticHistory(const catalogue::CatalogueSnapshot& catalogue, int length) {
  std::vector<Event> history(length);
  for (int i = 0; i < length; ++i) {
    history[i].item = catalogue.item_id(static_cast<uint32_t>(i % catalogue.num_items()));
    history[i].timestamp_ms = 1'600'000'000'000 + i * int64_t{60'000};
    history[i].play_time_ms = 10'000;
    history[i].labels = kClick | kLongView;
  }
  return history;
}

}  // namespace beamline::runtime
