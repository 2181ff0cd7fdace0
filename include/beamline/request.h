// SPDX-License-Identifier: Apache-2.0
//
// What a recommendation request carries and what its answer holds, as plain values without protobuf or torch. The
// server translates beamline.v1 messages to these; a C++ program that embeds the engine fills them directly.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "beamline/company.h"
#include "beamline/types.h"

namespace beamline {

// What a user did with an item, as a set of bits in Event::labels.
enum Label : uint32_t {
  kClick = 1u << 0,
  kLike = 1u << 1,
  kFollow = 1u << 2,
  kComment = 1u << 3,
  kForward = 1u << 4,
  kHate = 1u << 5,
  kLongView = 1u << 6,
  kProfileEnter = 1u << 7,
};
inline constexpr int kNumLabels = 8;
inline constexpr uint32_t kAllLabels = (1u << kNumLabels) - 1;

// One step of a behaviour sequence. Unknown times and durations are 0.
struct Event {
  ItemId item = 0;
  int64_t timestamp_ms = 0;  // Unix time, milliseconds
  int64_t play_time_ms = 0;  // how long it was watched
  int64_t duration_ms = 0;   // 0: taken from the catalogue
  uint32_t labels = 0;       // bits of Label
};

// A user attribute such as {"active_degree", "full"}; values are hashed into the model's buckets. A name that the model
// was not trained with is ignored; of one that comes twice the first counts.
struct UserAttribute {
  std::string name;
  std::string value;
};

// One clause of a rule: the item must carry at least one of the values under this key. Keys and values are the
// catalogue's item tags, e.g. {"region", {"DE", "AT"}}.
struct TagClause {
  std::string key;
  std::vector<std::string> any_of;
};

// Which items a request may receive. Exact at every level of the search and in every combination: an item is eligible
// iff it satisfies every clause of `rule`, is not in `deny`, and, where `restrict_to_allow`, is in `allow`.
struct Eligibility {
  std::vector<TagClause> rule;
  std::vector<ItemId> deny;
  std::vector<ItemId> allow;
  bool restrict_to_allow = false;  // true with an empty `allow` means: nothing is eligible

  bool unrestricted() const { return rule.empty() && deny.empty() && !restrict_to_allow; }
};

enum class Priority : uint8_t { kSheddable = 0, kDefault = 1, kCritical = 2 };

// How a code's log-probability is normalised: over its whole level (for t5: the whole vocabulary), as Hugging Face
// does, or over the children the catalogue snapshot has under the prefix, before the request's own rules.
enum class ScoreRule : uint8_t { kFull = 0, kLegal = 1 };

struct RecommendRequest {
  std::string request_id;
  std::string user_id;  // opaque bytes; part of the context cache's key
  std::vector<UserAttribute> user_attributes;
  std::vector<Event> history;  // oldest first
  int top_k = 10;              // items wanted
  int items_per_sid = 1;       // items taken from one SID, by relevance
  int max_per_author = 0;      // items of one author, the first in order; 0: any number. Author 0 is nobody
  // Beams kept per level. Empty: the engine's default, or top_k if that is more; one entry: that width at every level;
  // else one per level.
  std::vector<int> beam_widths;
  bool exclude_history = false;  // deny what the history holds
  Eligibility eligibility;
  Priority priority = Priority::kDefault;
  // By Engine::Now(), not by absl::Now(). Infinite: EngineOptions::default_deadline from its Submit on.
  absl::Time deadline = absl::InfiniteFuture();
  std::shared_ptr<Company> company;  // of those submitted at once with this one, so that they share batches; null: none
  bool trace = false;                // the answer also tells how it was found; for debugging, costs memory
};

struct RecommendedItem {
  ItemId item = 0;
  Sid sid;
  std::vector<float> log_probs;  // [levels], of each code given those before it; then of the end token if scored (t5)
  float score = 0;               // their left-to-right fp32 sum
  std::optional<float> value;    // of its SID, where the model has a ranker (`beamline train-ranker`)
};

// Why an answer holds fewer than top_k items.
enum class ShortReason : uint8_t {
  kNone = 0,
  kNoEligibleItems = 1,
  kEligibleItemsExhausted = 2,
  kBeamExhausted = 3,
  kAuthorsExhausted = 4,
};

// One prefix that the search kept at one level.
struct TracedBeam {
  Code code = 0;       // of this level; 0 where the model scores an end token
  int parent = 0;      // its index among the beams of the level before
  float log_prob = 0;  // of the code given those before it
  float score = 0;     // of the prefix: the left-to-right fp32 sum
};

// How an answer was found. A user's data: for the operator's eyes, never for a log.
struct SearchTrace {
  std::vector<Event> history;                   // the request's, or the store's
  std::vector<std::vector<TracedBeam>> levels;  // by level, in the search's order; then the end token's if scored
};

// Where the time of a request went.
struct StageTimings {
  absl::Duration queue;    // waiting in either queue
  absl::Duration encode;   // zero when the context was cached
  absl::Duration decode;   // all steps
  absl::Duration resolve;  // SIDs to items, after the answers and callbacks of those before it in its batch
  absl::Duration total;
  absl::Duration prepare;  // before the queues: history, eligibility, the model's input
  // Of decode, one per level (and the end token, where it is scored); they add up to it. Empty where a device searches
  // by itself (backend cuda): it does not tell when a step ends.
  std::vector<absl::Duration> steps = {};
  // Of an answer: requests of the batch that shared the time of encode and of decode, this one among them; 0 where the
  // stage did not run.
  int encode_requests = 0, decode_requests = 0;
  int decode_rows = 0;  // beams of that batch of decode
};

struct RecommendResult {
  // By the embedder's ranker (beamline/ranker.h), without one by the value that the model's own gives, without that by
  // score; all descending, equal ones by what comes next in this list, at last in SID order.
  std::vector<RecommendedItem> items;
  ShortReason short_reason = ShortReason::kNone;
  std::vector<int> beam_widths;  // used, per level
  int narrowing = 0;             // 0: as asked for; else the step of EngineOptions::narrowing that was applied, from 1
  // Of the history: what the model looked at, what the catalogue lacks, and the rest: beyond the model's windows.
  int seen_events = 0, unknown_items = 0, dropped_events = 0;
  bool context_cached = false;
  std::string model_version;
  std::string catalogue_version;
  StageTimings timings;
  std::shared_ptr<const SearchTrace> trace;  // null unless the request asked for it
};

}  // namespace beamline
