// SPDX-License-Identifier: Apache-2.0
//
// Where exceptions end: this project throws none, but the allocator and the tensor library do, and one that leaves a
// thread ends the process. Wrap what allocates from a file's or a request's size. Thread-safe.
#pragma once

#include <exception>
#include <optional>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace beamline {

// Whether it is std::bad_alloc, or what the tensor library throws instead. Only its words tell that from a fault: its
// allocator of the host has no type of its own for it, nor have cuBLAS's handles, and this level knows no torch.
bool MeansOutOfMemory(const std::exception& error);

// Inside of a catch block: INTERNAL with what was caught, its first line. `what` names the stage. Too little memory is
// `out_of_memory`, of the host or of a device: a fault for the request that met it, but something to try again later
// for a load.
absl::Status StatusOfCaught(absl::string_view what, absl::StatusCode out_of_memory = absl::StatusCode::kInternal);

// OK once `work` has returned; else the status of what it threw.
inline absl::Status RunCatching(absl::string_view what, absl::FunctionRef<void()> work,
                                absl::StatusCode out_of_memory = absl::StatusCode::kInternal) {
  try {
    work();
    return absl::OkStatus();
  } catch (...) {
    return StatusOfCaught(what, out_of_memory);
  }
}

// The same for work that returns an absl::Status or an absl::StatusOr: what it returned, or what it threw.
template <typename Work>
auto ReturnCatching(absl::string_view what, Work work, absl::StatusCode out_of_memory = absl::StatusCode::kInternal) {
  std::optional<decltype(work())> result;
  absl::Status status = RunCatching(
      what, [&] { result.emplace(work()); }, out_of_memory);
  return status.ok() ? *std::move(result) : decltype(work())(std::move(status));
}

}  // namespace beamline
