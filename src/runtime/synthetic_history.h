// SPDX-License-Identifier: Apache-2.0
//
// What a model is warmed up and measured with before anybody asks. Pure.
#pragma once

#include <vector>

#include "beamline/request.h"
#include "catalogue/snapshot.h"

namespace beamline::runtime {

// A history of the catalogue's own items, clicked and watched: it fills every pathway of a model.
// REQUIRES: the catalogue has items, or `length` is 0.
std::vector<Event> SyntheticHistory(const catalogue::CatalogueSnapshot& catalogue, int length);

}  // namespace beamline::runtime
