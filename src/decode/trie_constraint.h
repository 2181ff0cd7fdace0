// SPDX-License-Identifier: Apache-2.0
//
// What a request may reach, as the search sees it: the whole snapshot, or what its compiled eligibility leaves of it.
// The view points into both; keep them alive for as long as it is used. Pure.
#pragma once

#include "absl/status/statusor.h"
#include "beamline/kernels/trie_view.h"
#include "catalogue/eligibility.h"
#include "catalogue/snapshot.h"

namespace beamline::decode {

// A null eligibility: everything. INTERNAL when the eligibility was compiled for another snapshot: its node ids would
// mean other items.
absl::StatusOr<kernels::ConstraintView> MakeConstraint(const catalogue::CatalogueSnapshot& snapshot,
                                                       const catalogue::CompiledEligibility* eligibility);

}  // namespace beamline::decode
