// SPDX-License-Identifier: Apache-2.0
//
// Limits that hold wherever a value comes in: in tables and importers, in catalogues, in requests to the engine and on
// the wire. One set, so that what a table may hold a request can ask for. Limits that an operator sets are in
// EngineOptions (engine.h); those of a SID in types.h.
#pragma once

#include <cstdint>

namespace beamline {

inline constexpr int kMaxRequestIdBytes = 128;
inline constexpr int kMaxUserIdBytes = 256;    // opaque
inline constexpr int kMaxUserAttributes = 64;  // of one user
inline constexpr int kMaxTagsPerItem = 256;
inline constexpr int kMaxNameBytes = 128;   // of a user attribute, and of a tag's key
inline constexpr int kMaxValueBytes = 512;  // of either's value; UTF-8 where it is stored
inline constexpr int kMaxTitleBytes = 4096;
inline constexpr int kMaxRuleClauses = 64;                       // a bit each while a rule is compiled
inline constexpr int kMaxClauseValues = 4096;                    // of one clause
inline constexpr int64_t kMaxTimestampMs = 253'402'300'799'999;  // the end of the year 9999
inline constexpr int64_t kMaxSpanMs = 4'294'967'295;             // of play times and durations: 49 days

}  // namespace beamline
