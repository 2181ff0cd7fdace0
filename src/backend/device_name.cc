// SPDX-License-Identifier: Apache-2.0
#include "backend/device_name.h"

#include <algorithm>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace beamline::backend {

absl::StatusOr<c10::Device> ParseDeviceName(absl::string_view name) {
  if (name == "cpu") return c10::Device(c10::kCPU);
  if (name == "cuda") return c10::Device(c10::kCUDA);
  absl::string_view digits = name;
  int index = 0;
  const bool numbered = absl::ConsumePrefix(&digits, "cuda:") && !digits.empty() &&
                        std::all_of(digits.begin(), digits.end(), absl::ascii_isdigit) &&
                        (digits == "0" || digits[0] != '0') && absl::SimpleAtoi(digits, &index) &&
                        index <= std::numeric_limits<c10::DeviceIndex>::max();
  if (numbered) return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index));
  return absl::InvalidArgumentError(absl::StrCat("device: '", name, "' is unknown; use cpu, cuda or cuda:N"));
}

absl::Status CheckDeviceIsThere(absl::string_view name, c10::Device device, int gpus) {
  if (device.is_cpu() || std::max<int>(device.index(), 0) < gpus) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("device: '", name, "' asked for, but there are ", gpus, " CUDA devices, from cuda:0 on"));
}

}  // namespace beamline::backend
