// SPDX-License-Identifier: Apache-2.0
#include "backend/parallel/nccl_api.h"

#include <string>

#include <dlfcn.h>

#include "absl/strings/str_cat.h"

namespace beamline::backend {
namespace {

constexpr char kNcclLibrary[] = "libnccl.so.2";

absl::StatusOr<NcclApi> LookUpNccl() {
  void* const library = dlopen(kNcclLibrary, RTLD_NOW | RTLD_GLOBAL);
  if (library == nullptr) {
    const char* reason = dlerror();
    return absl::FailedPreconditionError(
        absl::StrCat("parallel.size: ranks on CUDA devices need NCCL, and ", kNcclLibrary, " cannot be loaded (",
                     reason == nullptr ? "no reason given" : reason, "); install it, or use device cpu or one rank"));
  }
  NcclApi api{};
  std::string missing;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name));
    if (function == nullptr) absl::StrAppend(&missing, missing.empty() ? "" : ", ", name);
  };
  find(api.get_version, "ncclGetVersion");
  find(api.get_unique_id, "ncclGetUniqueId");
  find(api.comm_init_rank_config, "ncclCommInitRankConfig");
  find(api.comm_get_async_error, "ncclCommGetAsyncError");
  find(api.comm_abort, "ncclCommAbort");
  find(api.get_error_string, "ncclGetErrorString");
  find(api.get_last_error, "ncclGetLastError");
  find(api.group_start, "ncclGroupStart");
  find(api.group_end, "ncclGroupEnd");
  find(api.send, "ncclSend");
  find(api.recv, "ncclRecv");
  int version = 0;
  if (missing.empty()) api.get_version(&version);
  if (!missing.empty() || version < NCCL_VERSION(NCCL_MAJOR, 0, 0)) {
    return absl::FailedPreconditionError(absl::StrCat(kNcclLibrary, ": version ", version, " lacks ",
                                                      missing.empty() ? "what 2.0 has" : missing,
                                                      "; this program was built for ", NCCL_VERSION_CODE));
  }
  return api;
}

}  // namespace

absl::StatusOr<const NcclApi*> LoadNccl() {
  static const absl::StatusOr<NcclApi> api = LookUpNccl();
  if (!api.ok()) return api.status();
  return &*api;
}

}  // namespace beamline::backend
