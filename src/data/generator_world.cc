// SPDX-License-Identifier: Apache-2.0
#include "data/generator_world.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"

namespace beamline::data {
namespace {

constexpr double kTopicsPerRoot = 0.28;  // topics = this * sqrt(videos)
constexpr int kMostTopics = 4000;
// Zipf-Mandelbrot over the rank r of n: (r / n + shift)^-exponent, the same curve for every n.
constexpr double kPopularityShift = 0.006;
constexpr double kPopularityExponent = 1.15;
constexpr double kTagTells = 0.85;               // share of videos whose tag is their style's
constexpr double kAuthorReuse = 0.14;            // KuaiRand: 7583 videos by 6510 authors
constexpr double kAuthorTells = 0.9;             // share of those that stay in their author's style
constexpr int64_t kFirstMs = 1'649'347'200'000;  // 8 April 2022, KuaiRand's first day

constexpr QuantilePoint kDurationSeconds[] = {{0, 4}, {.1, 13}, {.5, 70}, {.9, 266}, {1, 900}};

constexpr std::array<std::string_view, 28> kTopicNames = {
    "cooking",  "football", "cats",    "dance",    "cars",   "makeup",  "fishing", "history", "gaming", "travel",
    "babies",   "fitness",  "comedy",  "gadgets",  "piano",  "farming", "fashion", "science", "crafts", "street food",
    "painting", "weddings", "cycling", "language", "movies", "hiking",  "finance", "dogs"};
constexpr std::array<std::string_view, kStylesPerTopic> kStyleNames = {"how-to", "story", "live", "best-of"};
constexpr std::array<std::string_view, 12> kTitleWords = {"secrets", "day",      "challenge", "mistakes",
                                                          "guide",   "tour",     "moments",   "night",
                                                          "lesson",  "surprise", "tips",      "dream"};

std::string TopicName(uint32_t topic) {
  const std::string name(kTopicNames[topic % kTopicNames.size()]);
  const size_t round = topic / kTopicNames.size();
  return round == 0 ? name : absl::StrCat(name, " ", round + 1);
}

std::string TagName(uint32_t topic, uint32_t style) {
  return absl::StrCat(TopicName(topic), "/", std::string(kStyleNames[style]));
}

void Shelve(uint32_t video, double popularity, World::Shelf* shelf) {
  shelf->videos.push_back(video);
  shelf->cumulative.push_back((shelf->cumulative.empty() ? 0 : shelf->cumulative.back()) + popularity);
}

std::vector<uint32_t> Shuffled(uint32_t count, Random* random) {
  std::vector<uint32_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  for (uint32_t at = count; at > 1; --at) std::swap(order[at - 1], order[random->Below(at)]);
  return order;
}

double Fraction(double x) { return x - std::floor(x); }

uint32_t PickAt(const std::vector<double>& cumulative, double part) {
  const auto found = std::upper_bound(cumulative.begin(), cumulative.end(), part * cumulative.back());
  return static_cast<uint32_t>(std::min<size_t>(found - cumulative.begin(), cumulative.size() - 1));
}

void MakeTopics(int topics, Random* random, World* world) {
  const std::vector<uint32_t> weights = Shuffled(static_cast<uint32_t>(topics), random);
  double sum = 0;
  for (int topic = 0; topic < topics; ++topic) {
    sum += 1.0 / (weights[topic] + 0.2 * topics);  // some topics are liked more, the same number in every world
    world->topic_cumulative.push_back(sum);
    for (int i = 0; i < kSuccessors; ++i) world->successors.push_back(static_cast<uint32_t>(random->Below(topics)));
  }
  world->shelves.resize(static_cast<size_t>(topics) * kStylesPerTopic);
}

ItemAttributes MakeAttributes(uint32_t index, const World::Video& video, int topics, Random* random) {
  ItemAttributes attributes;
  const double topic_tempo = std::exp(0.4 * (static_cast<double>(video.topic % 5) - 2) / 2);
  attributes.duration_ms =
      static_cast<int64_t>(1000 * std::max(3.0, topic_tempo * DrawByQuantiles(kDurationSeconds, random)));
  attributes.created_ms = kFirstMs - static_cast<int64_t>(random->Uniform() * 3 * static_cast<double>(kDayMs));
  const bool honest = random->Chance(kTagTells);
  // A tag that does not tell the style still tells the topic two times in three.
  const uint64_t any_topic = honest ? 3 * topics : random->Below(3 * static_cast<uint64_t>(topics));
  const uint32_t tag_topic = any_topic < static_cast<uint64_t>(topics) ? static_cast<uint32_t>(any_topic) : video.topic;
  const uint32_t tag_style = honest ? video.style : static_cast<uint32_t>(random->Below(kStylesPerTopic));
  attributes.tags.emplace_back("tag", TagName(tag_topic, tag_style));
  attributes.tags.emplace_back("kind", random->Chance(0.01) ? "AD" : "NORMAL");
  attributes.title = absl::StrCat(TopicName(video.topic), " ", std::string(kStyleNames[video.style]), ": ",
                                  std::string(kTitleWords[random->Below(kTitleWords.size())]), " ", index + 1);
  return attributes;
}

}  // namespace

double DrawByQuantiles(absl::Span<const QuantilePoint> points, Random* random) {
  const double at = random->Uniform();
  size_t upper = 1;
  while (upper + 1 < points.size() && points[upper].fraction < at) ++upper;
  const QuantilePoint& a = points[upper - 1];
  const QuantilePoint& b = points[upper];
  const double part = (at - a.fraction) / (b.fraction - a.fraction);
  return std::exp(std::log(a.value) + part * (std::log(b.value) - std::log(a.value)));
}

World MakeWorld(int64_t num_items, uint64_t seed) {
  World world;
  world.first_ms = kFirstMs;
  Random random(seed, 0);
  const int topics = static_cast<int>(
      std::clamp<int64_t>(std::llround(kTopicsPerRoot * std::sqrt(static_cast<double>(num_items))), 4, kMostTopics));
  MakeTopics(topics, &random, &world);
  struct Author {
    uint64_t id;
    uint32_t topic;
    uint32_t style;
  };
  std::vector<Author> authors;
  const std::vector<uint32_t> ranks = Shuffled(static_cast<uint32_t>(num_items), &random);
  for (uint32_t index = 0; index < num_items; ++index) {
    World::Video video;
    // Along the ranks topics and styles take turns (golden ratios), so that popular videos are spread over all of them
    // and worlds of different seeds are alike.
    const double turn = ranks[index] + 0.5;
    video.topic = PickAt(world.topic_cumulative, Fraction(turn * 0.6180339887498949));
    video.style = static_cast<uint32_t>(Fraction(turn * 0.7548776662466927) * kStylesPerTopic);
    uint64_t author = 1'000'000 + authors.size();
    if (!authors.empty() && random.Chance(kAuthorReuse)) {
      const Author& known = authors[random.Below(authors.size())];
      author = known.id;
      if (random.Chance(kAuthorTells)) {
        video.topic = known.topic;
        video.style = known.style;
      }
    } else {
      authors.push_back({author, video.topic, video.style});
    }
    video.appeal = 0.3 * random.Normal();
    video.like_rate = 0.045 * std::exp(0.7 * random.Normal());
    ItemRow row;
    row.item = index + 1;
    row.attributes = MakeAttributes(index, video, topics, &random);
    row.attributes.author = author;
    const double rank = (static_cast<double>(ranks[index]) + 0.5) / static_cast<double>(num_items);
    const double popularity = std::pow(rank + kPopularityShift, -kPopularityExponent);
    Shelve(index, popularity, &world.everything);
    Shelve(index, popularity, &world.shelves[video.topic * kStylesPerTopic + video.style]);
    world.items.push_back(std::move(row));
    world.videos.push_back(video);
  }
  // A style without videos shows what is popular instead.
  for (World::Shelf& shelf : world.shelves) {
    if (shelf.videos.empty()) shelf = world.everything;
  }
  return world;
}

}  // namespace beamline::data
