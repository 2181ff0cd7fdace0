// SPDX-License-Identifier: Apache-2.0
//
// Item vectors in files: one fp32 vector per item, with the items' ids. Two formats: safetensors (a 2-D tensor, by
// default named "vectors" or the only 2-D float tensor of the file; ids in a 1-D "item_ids" of U64 or non-negative I64
// where there is one) and npy (a 2-D array). Ids may also come from a text file of one id per line; without any, the
// row number is the id. All is checked before use: finite values, as many ids as rows, no id twice.
// Pure functions; thread-safe.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/float_matrix.h"
#include "beamline/types.h"

namespace beamline::sid {

struct ItemVectors {
  std::vector<ItemId> items;  // [n], no id twice
  FloatMatrix vectors;        // [n, dim]
};

struct ItemVectorsFile {
  std::string path;      // .npy, else safetensors
  std::string tensor;    // of a safetensors file; empty: see above
  std::string ids_path;  // text; empty: ids of the file itself, else row numbers
};

absl::StatusOr<ItemVectors> ReadItemVectors(const ItemVectorsFile& file);
// safetensors with "vectors" and "item_ids".
absl::Status WriteItemVectors(const std::string& path, const ItemVectors& vectors);

}  // namespace beamline::sid
