// SPDX-License-Identifier: Apache-2.0
//
// NCCL's functions, looked up in libnccl.so.2 when a group first needs them: the program starts on machines that have
// neither. The header it is compiled with says what they look like. Thread-safe.
#pragma once

#include <nccl.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace beamline::backend {

struct NcclApi {
  decltype(&ncclGetVersion) get_version;
  decltype(&ncclGetUniqueId) get_unique_id;
  decltype(&ncclCommInitRankConfig) comm_init_rank_config;
  decltype(&ncclCommGetAsyncError) comm_get_async_error;
  decltype(&ncclCommAbort) comm_abort;
  decltype(&ncclGetErrorString) get_error_string;
  decltype(&ncclGetLastError) get_last_error;
  decltype(&ncclGroupStart) group_start;
  decltype(&ncclGroupEnd) group_end;
  decltype(&ncclSend) send;
  decltype(&ncclRecv) recv;
};

// FAILED_PRECONDITION: the library cannot be loaded, or is older than the header.
absl::StatusOr<const NcclApi*> LoadNccl();

}  // namespace beamline::backend
