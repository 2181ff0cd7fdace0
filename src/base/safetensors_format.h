// SPDX-License-Identifier: Apache-2.0
//
// What reader and writer of safetensors share: which tensor names are allowed. Printable ASCII only (no look-alikes,
// NUL or control characters), 1 to 512 bytes, no "..", because names end up in messages, logs and sometimes paths.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace beamline {

absl::Status CheckTensorName(absl::string_view name, absl::string_view source_name);

}  // namespace beamline
