// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/cublas_lt.h"

#include <string>
#include <type_traits>

#include <dlfcn.h>

#include "absl/strings/str_cat.h"

namespace beamline::backend::cuda {
namespace {

struct Loaded {
  CublasLt functions;
  std::string error;
};

Loaded Load() {
  Loaded loaded;
  // Under the name it was compiled against, then as torch's wheels bring it: already in the process.
  const std::string versioned = absl::StrCat("libcublasLt.so.", CUBLAS_VER_MAJOR);
  void* library = dlopen(versioned.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* reason = dlerror();
    loaded.error = reason == nullptr ? versioned + " cannot be loaded" : reason;
    return loaded;
  }
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    if (function == nullptr && loaded.error.empty()) loaded.error = absl::StrCat(versioned, " has no ", name);
  };
  CublasLt& lt = loaded.functions;
  find(lt.create, "cublasLtCreate");
  find(lt.version, "cublasLtGetVersion");
  find(lt.desc_create, "cublasLtMatmulDescCreate");
  find(lt.desc_destroy, "cublasLtMatmulDescDestroy");
  find(lt.desc_set, "cublasLtMatmulDescSetAttribute");
  find(lt.layout_create, "cublasLtMatrixLayoutCreate");
  find(lt.layout_destroy, "cublasLtMatrixLayoutDestroy");
  find(lt.preference_create, "cublasLtMatmulPreferenceCreate");
  find(lt.preference_destroy, "cublasLtMatmulPreferenceDestroy");
  find(lt.preference_set, "cublasLtMatmulPreferenceSetAttribute");
  find(lt.heuristic, "cublasLtMatmulAlgoGetHeuristic");
  find(lt.check, "cublasLtMatmulAlgoCheck");
  find(lt.matmul, "cublasLtMatmul");
  return loaded;
}

}  // namespace

absl::StatusOr<const CublasLt*> LoadCublasLt() {
  static const Loaded* const loaded = new Loaded(Load());
  if (loaded->error.empty()) return &loaded->functions;
  return absl::FailedPreconditionError(absl::StrCat("cuBLASLt cannot be used: ", loaded->error));
}

}  // namespace beamline::backend::cuda
