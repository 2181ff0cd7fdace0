// SPDX-License-Identifier: Apache-2.0
//
// One folder that tests/golden/t5_parity.py wrote: a Hugging Face checkpoint, an index of SIDs, requests and generate's
// lists for them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "beamline/types.h"
#include "parity/list_comparison.h"
#include "runtime/import_hf.h"

namespace beamline::parity {

struct GoldenRequest {
  std::vector<int64_t> tokens;  // of the encoder, by the tokenizer's ids
  std::vector<ItemId> history;  // the items they stand for, in time order
  int width = 1;
  ReferenceList expected;
};

struct GoldenCase {
  std::string name;
  runtime::ImportHfOptions import;  // without an output
  std::vector<GoldenRequest> requests;
};

absl::StatusOr<GoldenCase> ReadGoldenCase(const std::filesystem::path& folder);
// The folders of cases inside `folder`, sorted; none where it does not exist.
std::vector<std::filesystem::path> CaseFolders(const std::filesystem::path& folder);

}  // namespace beamline::parity
