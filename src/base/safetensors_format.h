// SPDX-License-Identifier: Apache-2.0
//
// What reader and writer of safetensors share.
#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/safetensors.h"

namespace beamline {

// Printable ASCII only (no look-alikes, NUL or control characters), 1 to 512 bytes, no "..", because names end up in
// messages, logs and sometimes paths.
absl::Status CheckTensorName(absl::string_view name, absl::string_view source_name);

// The value of kSafetensorsDigest: of all other metadata and of names, dtypes, shapes and bytes, whatever their order
// in the file.
std::string SafetensorsDigest(const std::map<std::string, std::string>& metadata,
                              const std::map<std::string, TensorView>& tensors);

}  // namespace beamline
