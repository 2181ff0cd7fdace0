// SPDX-License-Identifier: Apache-2.0
//
// A SID index in every dialect. A refusal names the file; of what is read every invariant of SidTable holds, and our
// own format gives back what was written.
#include <string>

#include "fuzz/fuzz_target.h"
#include "sid/sid_index.h"

namespace beamline::sid {
namespace {

using fuzz::Require;

void CheckDialect(const char* dialect, const fuzz::ScratchFile& file, const fuzz::ScratchFile& copy,
                  int64_t max_bad_rows) {
  SidIndexOptions options;
  options.max_bad_rows = max_bad_rows;
  options.id_offset = max_bad_rows == 0 ? 0 : 1;
  BadRows bad_rows;
  const auto table = ReadSidIndex(dialect, file.path(), options, &bad_rows);
  if (!table.ok()) return fuzz::RequireNames(table.status(), file.path());
  Require(bad_rows.count <= max_bad_rows && bad_rows.messages.size() <= 10, "no more bad rows than allowed");
  fuzz::RequireOk(CheckSidTable(*table), dialect);
  fuzz::RequireOk(WriteSidTsv(copy.path(), *table), "what was read can be written");
  const auto again = ReadSidTsv(copy.path());
  fuzz::RequireOk(again.status(), "and read again");
  Require(again->items == table->items && again->sids == table->sids && again->level_sizes == table->level_sizes &&
              again->codebook_fingerprint == table->codebook_fingerprint && again->targets == table->targets &&
              again->log == table->log,
          "and is the same");
}

}  // namespace
}  // namespace beamline::sid

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const beamline::fuzz::ScratchFile file("sids"), copy("sids.tsv");
  file.Write(beamline::fuzz::AsText(data, size));
  for (const char* dialect : {"letter", "minionerec-info", "openonerec", "tsv"}) {
    beamline::sid::CheckDialect(dialect, file, copy, size % 2 == 0 ? 0 : 3);
  }
  return 0;
}
