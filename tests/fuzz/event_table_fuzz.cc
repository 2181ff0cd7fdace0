// SPDX-License-Identifier: Apache-2.0
//
// Tables of events, items and users, and sequence files, plain or gzip. A refusal names the file; rows that are taken
// are within the limits of their columns; nothing is lost between good rows and bad ones.
#include <string>

#include "beamline/limits.h"
#include "beamline/request.h"
#include "data/event_table.h"
#include "data/item_table.h"
#include "data/sequence_file.h"
#include "data/user_table.h"
#include "fuzz/fuzz_target.h"

namespace beamline::data {
namespace {

using fuzz::Require;

constexpr int64_t kMostRows = 200'000;  // a small gzip file may hold more than anybody would wait for

// Every row of a table through `check`; the verdict at the end names the file.
template <typename Row, typename Reader, typename Check>
void CheckRows(absl::StatusOr<Reader> reader, const std::string& path, const Check& check) {
  if (!reader.ok()) return fuzz::RequireNames(reader.status(), path);
  Row row;
  int64_t good = 0;
  absl::StatusOr<bool> more = reader->Next(&row);
  for (; more.ok() && *more && good < kMostRows; more = reader->Next(&row)) {
    ++good;
    check(row);
  }
  if (!more.ok()) return fuzz::RequireNames(more.status(), path);
  if (good < kMostRows) Require(reader->bad_rows().rows() - reader->bad_rows().bad() == good, "rows are good or bad");
}

void CheckEvent(const Event& event) {
  Require(event.timestamp_ms >= 0 && event.timestamp_ms <= kMaxTimestampMs, "timestamps are in range");
  Require(event.play_time_ms >= 0 && event.play_time_ms <= kMaxSpanMs, "play times are in range");
  Require(event.duration_ms >= 0 && event.duration_ms <= kMaxSpanMs, "durations are in range");
  Require((event.labels & ~uint32_t{kAllLabels}) == 0, "labels are known");
}

void CheckUser(std::string_view user) {
  Require(!user.empty() && user.size() <= kMaxUserIdBytes, "user ids have 1 to 256 bytes");
}

void CheckTables(const std::string& path, const BadRowPolicy& policy) {
  CheckRows<EventRow>(EventTableReader::Open(path, policy), path, [](const EventRow& row) {
    CheckUser(row.user_id);
    CheckEvent(row.event);
  });
  CheckRows<ItemRow>(ItemTableReader::Open(path, policy), path, [](const ItemRow& row) {
    const ItemAttributes& attributes = row.attributes;
    Require(attributes.title.size() <= 4096 && attributes.tags.size() <= kMaxTagsPerItem,
            "titles and tags are bounded");
    Require(attributes.duration_ms >= 0 && attributes.relevance - attributes.relevance == 0, "numbers are in range");
    fuzz::RequireOk(FormatTags(attributes.tags).status(), "tags that were read can be written");
  });
  CheckRows<UserRow>(UserTableReader::Open(path, policy), path, [](const UserRow& row) {
    CheckUser(row.user_id);
    Require(row.attributes.size() <= kMaxUserAttributes, "attributes are bounded");
  });
  SequenceFileReader::Options options;
  options.bad_rows = policy;
  CheckRows<UserSequence>(SequenceFileReader::Open(path, options), path, [](const UserSequence& row) {
    CheckUser(row.user_id);
    Require(row.events.size() <= kMaxSequenceItems, "sequences are bounded");
    for (const Event& event : row.events) CheckEvent(event);
  });
}

}  // namespace
}  // namespace beamline::data

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const beamline::fuzz::ScratchFile file("table");
  file.Write(beamline::fuzz::AsText(data, size));
  // Bad rows refuse the table, or are passed over.
  beamline::data::CheckTables(file.path(), {.max_fraction = size % 2 == 0 ? 0.01 : 1.0});
  return 0;
}
