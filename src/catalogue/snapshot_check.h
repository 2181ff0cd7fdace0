// SPDX-License-Identifier: Apache-2.0
//
// Everything a snapshot relies on, checked in full before it is used, so that no file, however it was made, can lead a
// search or a lookup out of an array. Unique ids are checked by ItemIndex. A pure function; about 0.2 s for 10^7 items.
#pragma once

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "catalogue/snapshot.h"

namespace beamline::catalogue {

// INVALID_ARGUMENT names the array, the entry, the limit and the value.
absl::Status CheckSnapshotContents(const SnapshotContents& contents);

// Level count and sizes a codebook may have.
absl::Status CheckLevelSizes(absl::Span<const uint32_t> level_sizes);

// A version or fingerprint: 1 to 256 printable ASCII characters without spaces.
absl::Status CheckIdentifier(absl::string_view text, absl::string_view field);

}  // namespace beamline::catalogue
