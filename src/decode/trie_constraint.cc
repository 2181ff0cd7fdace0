// SPDX-License-Identifier: Apache-2.0
#include "decode/trie_constraint.h"

#include "absl/strings/str_cat.h"

namespace beamline::decode {

absl::StatusOr<kernels::ConstraintView> MakeConstraint(const catalogue::CatalogueSnapshot& snapshot,
                                                       const catalogue::CompiledEligibility* eligibility) {
  if (eligibility != nullptr) {
    if (&eligibility->snapshot() == &snapshot) return eligibility->view();
    return absl::InternalError(absl::StrCat("eligibility: compiled for catalogue version '",
                                            eligibility->snapshot().version(), "', the request is pinned to '",
                                            snapshot.version(), "'"));
  }
  kernels::ConstraintView view;
  view.trie = snapshot.trie();
  view.snapshot_trie = snapshot.trie();
  return view;
}

}  // namespace beamline::decode
