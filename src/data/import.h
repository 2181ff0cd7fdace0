// SPDX-License-Identifier: Apache-2.0
//
// Importers: foreign data sets in, our event, item and user tables out (events.tsv.gz, items.tsv.gz, users.tsv.gz in
// one folder), so that everything after an import reads one format. All stream: memory grows with the number of items
// and users where ids must be unique, never with events. Files appear under their names when they are complete. Errors
// name file and line; bad rows are counted per file and refused above a threshold.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/progress.h"
#include "beamline/request.h"
#include "data/bad_rows.h"

namespace beamline::data {

struct ImportOptions {
  std::filesystem::path out;  // folder, made if it does not exist
  bool gzip = true;           // else plain .tsv
  bool overwrite = false;     // tables of these names that are there
  BadRowPolicy bad_rows;
  Progress* progress = nullptr;  // may be null
};

struct ImportReport {
  int64_t events = 0;
  int64_t items = 0;               // rows of items.tsv; 0: not written
  int64_t users = 0;               // rows of users.tsv; 0: not written
  std::vector<std::string> notes;  // what was read as what, bad rows, what was left out
};

// The official KuaiRand archive (Pure, and 1K and 27K, which share its columns), plain or gzip, in `folder` or its
// data/ folder, any subset of:
//   log_standard_*.csv, log_random_*.csv -> events; labels from the is_* and long_view columns
//   video_features_basic_*.csv           -> items; tags: tag (one each), video_type, upload_type, music_type
//   video_features_statistic_*.csv       -> the items' relevance (only on request, see below)
//   user_features_*.csv                  -> users; the categorical columns, without counts that have a _range beside
//   them
struct KuaiRandOptions {
  // The log of randomly exposed videos is another distribution, and the log that recommenders are trained and compared
  // on is the standard one. Without a standard log, the random one is taken in any case.
  bool include_random = false;
  // relevance = long plays per show. The statistics cover the whole period, test events included, so a relevance made
  // of them must not take part in an offline comparison.
  bool statistic_relevance = false;
};
absl::StatusOr<ImportReport> ImportKuaiRand(const std::filesystem::path& folder, const KuaiRandOptions& kuairand,
                                            const ImportOptions& options);

// A sequence file of any layout of sequence_file.h -> events.
absl::StatusOr<ImportReport> ImportSequences(const std::filesystem::path& file, uint32_t sequence_labels,
                                             const ImportOptions& options);

// Amazon 5-core in the layout of the LETTER authors: NAME.txt (user item item ...) -> events, labels click and
// long_view; item_titles.tsv[.gz] (item, asin, title) -> items with tag asin; NAME_item2attributes.json (item ->
// attribute numbers) -> items' tags attribute. Only NAME.txt is required.
absl::StatusOr<ImportReport> ImportAmazon(const std::filesystem::path& folder, const ImportOptions& options);

}  // namespace beamline::data
