// SPDX-License-Identifier: Apache-2.0
//
// Where exceptions end: this project throws none, but the allocator and the tensor library do, and one that leaves a
// thread ends the process. Wrap what allocates from a file's or a request's size. Thread-safe.
#pragma once

#include <exception>
#include <new>
#include <optional>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/out_of_memory.h"

namespace beamline {

// OK once `work` has returned; INTERNAL with what it threw. `what` names the stage. Too little memory is
// `out_of_memory`, of the host or of a device: a fault for the request that met it, but something to try again later
// for a load.
inline absl::Status RunCatching(absl::string_view what, absl::FunctionRef<void()> work,
                                absl::StatusCode out_of_memory = absl::StatusCode::kInternal) {
  try {
    work();
    return absl::OkStatus();
  } catch (const OutOfMemory& error) {
    return absl::Status(out_of_memory, absl::StrCat(what, ": out of memory: ", error.what()));
  } catch (const std::bad_alloc&) {
    return absl::Status(out_of_memory, absl::StrCat(what, ": out of memory"));
  } catch (const std::exception& error) {
    // The first line says what happened; the rest is a stack trace.
    const absl::string_view message = error.what();
    return absl::InternalError(absl::StrCat(what, " failed: ", message.substr(0, message.find('\n'))));
  } catch (...) {
    return absl::InternalError(absl::StrCat(what, " failed: it threw what is no std::exception"));
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
