// SPDX-License-Identifier: Apache-2.0
//
// What `beamline recommend` prints: a user's history, the ranked items as a table, the server's status. Pure: text out.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "beamline/request.h"
#include "beamline/v1/catalogue.pb.h"
#include "beamline/v1/model.pb.h"
#include "beamline/v1/recommend.pb.h"

namespace beamline::cli {

using ItemsById = std::map<ItemId, v1::Item>;  // what the catalogue knows of the items shown

// The newest `shown` events, newest last.
std::string FormatHistory(const std::vector<Event>& history, size_t shown, const ItemsById& items);
// rank, video, SID, score, probability of each code, title.
std::string FormatRecommendations(const v1::RecommendResponse& response, const ItemsById& items);
std::string FormatStatus(const v1::GetStatusResponse& status);

}  // namespace beamline::cli
