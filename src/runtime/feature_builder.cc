// SPDX-License-Identifier: Apache-2.0
#include "runtime/feature_builder.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "model/feature_index.h"
#include "runtime/token_template.h"

namespace beamline::runtime {
namespace {

constexpr std::string_view kTagKey = "tag";
constexpr uint32_t kPositiveLabels = kLike | kFollow | kComment | kForward | kLongView | kProfileEnter;

// Seconds from `from_ms` to `to_ms`; negative, which is unknown, where either is.
double SecondsBetween(int64_t from_ms, int64_t to_ms) {
  if (from_ms <= 0 || to_ms <= 0) return -1;
  return std::max(0.0, (static_cast<double>(to_ms) - static_cast<double>(from_ms)) / 1000.0);
}

// Of a time span in milliseconds; 0 is unknown.
double Seconds(int64_t ms) { return ms <= 0 ? -1 : static_cast<double>(ms) / 1000.0; }

bool ReadsAttributes(const model::PathwayConfig& pathway) {
  return std::any_of(pathway.features.begin(), pathway.features.end(), [](const model::FeatureConfig& feature) {
    return feature.kind == model::FeatureKind::kAuthor || feature.kind == model::FeatureKind::kTag ||
           feature.kind == model::FeatureKind::kDuration;
  });
}

// The newest `limit` of `count` events, of those that pass, as ascending indices.
template <typename Pass>
std::vector<int> Newest(int count, int limit, const Pass& pass) {
  std::vector<int> kept;
  for (int i = count - 1; i >= 0 && static_cast<int>(kept.size()) < limit; --i) {
    if (pass(i)) kept.push_back(i);
  }
  std::reverse(kept.begin(), kept.end());
  return kept;
}

}  // namespace

bool IsPositive(const Event& event) {
  const bool bare = event.labels == 0 && event.play_time_ms == 0 && event.duration_ms == 0;
  return bare || ((event.labels & kPositiveLabels) != 0 && (event.labels & kHate) == 0);
}

// An event with what the catalogue knows of its item.
struct FeatureBuilder::Element {
  const Event* event = nullptr;
  Sid sid;
  uint64_t author = 0;
  int64_t duration_ms = 0;
  std::string tag;
  int64_t newest_ms = 0;
};

FeatureBuilder::FeatureBuilder(model::ModelConfig config, std::shared_ptr<const Vocabulary> vocabulary)
    : config_(std::move(config)),
      vocabulary_(std::move(vocabulary)),
      needs_attributes_(ReadsAttributes(config_.short_term) || ReadsAttributes(config_.positive)) {}

EncodedRequest FeatureBuilder::Build(const FeatureSource& source, const Catalogue& catalogue) const {
  const absl::Span<const Event> history = source.history;
  if (config_.is_t5()) return BuildTokens(config_, history, catalogue);
  const int events = static_cast<int>(history.size());
  std::vector<std::optional<Sid>> sids(events);  // none: the catalogue lacks the item
  std::transform(history.begin(), history.end(), sids.begin(),
                 [&](const Event& event) { return catalogue.Encode(event.item); });
  const std::vector<int> recent = Newest(events, config_.short_term.length, [&](int i) { return sids[i].has_value(); });
  const std::vector<int> positive =
      Newest(events, config_.positive.length, [&](int i) { return sids[i].has_value() && IsPositive(history[i]); });
  std::vector<int> kept;
  std::set_union(recent.begin(), recent.end(), positive.begin(), positive.end(), std::back_inserter(kept));

  EncodedRequest request;
  request.static_features = StaticFeatures(source);
  request.unknown_items = static_cast<int>(std::count(sids.begin(), sids.end(), std::nullopt));
  request.seen_events = static_cast<int>(kept.size());
  request.dropped_events = events - request.unknown_items - request.seen_events;

  const auto newest = std::find_if(sids.rbegin(), sids.rend(), [](const auto& sid) { return sid.has_value(); });
  const int64_t newest_ms = newest == sids.rend() ? 0 : history[sids.rend() - newest - 1].timestamp_ms;
  request.first_event = kept.empty() ? events : kept.front();
  std::vector<Element> elements(events - request.first_event);  // of the event at first_event and those behind it
  for (int i : kept) {
    Element& element = elements[i - request.first_event];
    element.event = &history[i];
    element.sid = *std::move(sids[i]);
    element.newest_ms = newest_ms;
    element.duration_ms = history[i].duration_ms;
    if (!needs_attributes_) continue;
    std::optional<CatalogueItem> item = catalogue.GetItem(history[i].item);
    if (!item.has_value()) continue;
    element.author = item->attributes.author;
    if (element.duration_ms == 0) element.duration_ms = item->attributes.duration_ms;
    for (auto& [key, value] : item->attributes.tags) {
      if (key != kTagKey) continue;
      element.tag = std::move(value);
      break;
    }
  }
  request.pathways[0] = BuildPathway(config_.short_term, recent, request.first_event, elements);
  request.pathways[1] = BuildPathway(config_.positive, positive, request.first_event, elements);
  return request;
}

std::vector<int32_t> FeatureBuilder::StaticFeatures(const FeatureSource& source) const {
  std::vector<int32_t> ids;
  if (!config_.user.enabled) return ids;
  if (config_.user.user_buckets > 0) {
    ids.push_back(source.user_id.empty() ? 0 : model::HashBucket(source.user_id, config_.user.user_buckets));
  }
  for (const std::string& name : config_.user.attributes) {
    const auto found = std::find_if(source.user_attributes.begin(), source.user_attributes.end(),
                                    [&](const UserAttribute& attribute) { return attribute.name == name; });
    const bool present = found != source.user_attributes.end() && !found->value.empty();
    ids.push_back(present ? model::HashBucket(found->value, config_.user.attribute_buckets) : 0);
  }
  return ids;
}

EncodedPathway FeatureBuilder::BuildPathway(const model::PathwayConfig& pathway, const std::vector<int>& kept,
                                            int first_order, absl::Span<const Element> elements) const {
  EncodedPathway encoded;
  encoded.length = static_cast<int>(kept.size());
  encoded.features.reserve(kept.size() * model::FeatureColumns(config_, pathway));
  int64_t previous_ms = 0;
  for (int index : kept) {
    const Element& element = elements[index - first_order];
    for (const model::FeatureConfig& feature : pathway.features) {
      if (feature.kind == model::FeatureKind::kSid) {
        AppendCodes(element, encoded.features);
      } else {
        encoded.features.push_back(FeatureId(feature, element, previous_ms));
      }
    }
    encoded.order.push_back(index - first_order);
    previous_ms = element.event->timestamp_ms;
  }
  return encoded;
}

void FeatureBuilder::AppendCodes(const Element& element, std::vector<int32_t>& features) const {
  for (int level = 0; level < config_.levels(); ++level) {
    features.push_back(level < element.sid.levels() ? static_cast<int32_t>(element.sid[level]) + 1 : 0);
  }
}

int32_t FeatureBuilder::FeatureId(const model::FeatureConfig& feature, const Element& element,
                                  int64_t previous_ms) const {
  const Event& event = *element.event;
  const int64_t buckets = model::FeatureBuckets(feature);
  switch (feature.kind) {
    case model::FeatureKind::kItem: {
      const int64_t index = vocabulary_->ItemIndex(event.item);
      return index < buckets ? static_cast<int32_t>(index) : 0;
    }
    case model::FeatureKind::kAuthor: {
      const int64_t index = vocabulary_->AuthorIndex(element.author);
      return index < buckets ? static_cast<int32_t>(index) : 0;
    }
    case model::FeatureKind::kTag:
      return element.tag.empty() ? 0 : model::HashBucket(element.tag, buckets);
    case model::FeatureKind::kAge:
      return model::LogBucket(SecondsBetween(event.timestamp_ms, element.newest_ms), buckets);
    case model::FeatureKind::kGap:
      return model::LogBucket(SecondsBetween(previous_ms, event.timestamp_ms), buckets);
    case model::FeatureKind::kHour:
      return model::HourIndex(event.timestamp_ms);
    case model::FeatureKind::kPlay:
      return model::LogBucket(Seconds(event.play_time_ms), buckets);
    case model::FeatureKind::kDuration:
      return model::LogBucket(Seconds(element.duration_ms), buckets);
    case model::FeatureKind::kLabels:
      return static_cast<int32_t>(event.labels & kAllLabels);
    case model::FeatureKind::kSid:    // several columns: AppendCodes
    case model::FeatureKind::kToken:  // BuildTokens
      break;
  }
  return 0;
}

}  // namespace beamline::runtime
