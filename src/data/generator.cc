// SPDX-License-Identifier: Apache-2.0
#include "data/generator.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/interrupt.h"
#include "beamline/status.h"
#include "data/event_table.h"
#include "data/statistics.h"
#include "data/table_folder.h"

namespace beamline::data {
namespace {

constexpr int64_t kMostUsers = 100'000'000;
constexpr int64_t kFewestItems = 50;
constexpr int64_t kMostItems = 10'000'000;
constexpr int64_t kKuaiRandUsers = 26469;
constexpr int64_t kKuaiRandItems = 7583;
constexpr int kLogDays = 31;

constexpr QuantilePoint kExposures[] = {{0, 1}, {.1, 6}, {.5, 32}, {.9, 101}, {.99, 214}, {1, 320}};

// What users do. Tuned so that the log has KuaiRand's shape and KuaiRand's ratios of the counting baselines.
constexpr int kInterests = 3;
constexpr std::array<double, kInterests> kInterestWeights = {0.5, 0.8, 1.0};  // summed up, newest first
constexpr double kSessionEvents = 14;                                         // mean
constexpr double kDriftPerSession = 0.9;
constexpr double kDriftAlongPath = 0.95;  // else to any topic
constexpr double kShownByInterest = 0.36;
constexpr double kShownBySession = 0.9;  // of those, about the session's interest
constexpr double kFavouriteStyle = 0.4;
constexpr double kRepeat = 0.3;  // chance that a video drawn again is shown again
constexpr double kLongViewLogit = -1.8;
constexpr double kInterestLogit = 1.7;
constexpr double kFavouriteLogit = 0.5;
constexpr int kAgeGroups = 6;

struct Interest {
  uint32_t topic = 0;
  uint32_t style = 0;
};

double Logistic(double x) { return 1 / (1 + std::exp(-x)); }

// One user's life, event by event.
class Behaviour {
 public:
  Behaviour(const World& world, Random random) : world_(world), random_(random) {
    age_group_ = static_cast<uint32_t>(random_.Below(kAgeGroups));
    for (Interest& interest : interests_) interest = NewInterest(FirstTopic());
    patience_ = 0.35 * random_.Normal();
    generosity_ = std::exp(0.8 * random_.Normal() - 0.32);
  }

  std::vector<Event> Live(int exposures) {
    const double span = static_cast<double>(kLogDays) * static_cast<double>(kDayMs);
    std::vector<int64_t> starts;  // of sessions
    const int sessions = std::max(1, static_cast<int>(std::lround(exposures / kSessionEvents)));
    starts.reserve(sessions);
    for (int i = 0; i < sessions; ++i) {
      starts.push_back(world_.first_ms + static_cast<int64_t>(random_.Uniform() * span * 0.99));
    }
    std::sort(starts.begin(), starts.end());
    std::vector<Event> events;
    int64_t now = 0;
    for (int session = 0; session < sessions; ++session) {
      now = std::max(now + 60'000, starts[session]);
      if (random_.Chance(kDriftPerSession)) Drift();
      const size_t about = random_.Pick(kInterestWeights);
      const int end = static_cast<int>(static_cast<int64_t>(exposures) * (session + 1) / sessions);
      while (static_cast<int>(events.size()) < end) {
        events.push_back(Watch(Show(about), now));
        now += events.back().play_time_ms + 1000 + static_cast<int64_t>(random_.Uniform() * 4000);
      }
    }
    return events;
  }

  uint32_t age_group() const { return age_group_; }
  Random& random() { return random_; }

 private:
  // Young and old start from different topics, a little.
  uint32_t FirstTopic() {
    uint32_t topic = 0;
    for (int tries = 0; tries < 3; ++tries) {
      topic = static_cast<uint32_t>(random_.Pick(world_.topic_cumulative));
      if (topic % kAgeGroups == age_group_) break;
    }
    return topic;
  }
  Interest NewInterest(uint32_t topic) { return {topic, static_cast<uint32_t>(random_.Below(kStylesPerTopic))}; }

  void Drift() {
    uint32_t topic = static_cast<uint32_t>(random_.Pick(world_.topic_cumulative));
    if (random_.Chance(kDriftAlongPath)) {
      topic = world_.successors[interests_[0].topic * kSuccessors + random_.Below(kSuccessors)];
    }
    std::rotate(interests_.begin(), interests_.end() - 1, interests_.end());
    interests_[0] = NewInterest(topic);
  }

  uint32_t Show(size_t about) {
    uint32_t video = 0;
    for (int tries = 0; tries < 8; ++tries) {
      const World::Shelf* shelf = &world_.everything;
      if (random_.Chance(kShownByInterest)) {
        const Interest& interest = interests_[random_.Chance(kShownBySession) ? about : random_.Pick(kInterestWeights)];
        const uint32_t style =
            random_.Chance(kFavouriteStyle) ? interest.style : static_cast<uint32_t>(random_.Below(kStylesPerTopic));
        shelf = &world_.shelves[interest.topic * kStylesPerTopic + style];
      }
      video = shelf->videos[random_.Pick(shelf->cumulative)];
      if (!shown_.contains(video) || random_.Chance(kRepeat)) break;
    }
    shown_.insert(video);
    return video;
  }

  Event Watch(uint32_t index, int64_t now) {
    const World::Video& video = world_.videos[index];
    double logit = kLongViewLogit + patience_ + video.appeal;
    double fit = 0;
    for (const Interest& interest : interests_) {
      if (interest.topic != video.topic) continue;
      fit = std::max(fit, kInterestLogit + (interest.style == video.style ? kFavouriteLogit : 0));
    }
    // Nobody watches a video through twice, so that sequences of long views hold no repeats, as KuaiRand's derived
    // sets.
    const bool long_view = random_.Chance(Logistic(logit + fit)) && long_viewed_.insert(index).second;
    Event event;
    event.item = world_.items[index].item;
    event.timestamp_ms = now;
    event.duration_ms = world_.items[index].attributes.duration_ms;
    // A long view, as KuaiRand defines it, reaches the end or 18 seconds, whichever is shorter.
    const double needed = static_cast<double>(std::min<int64_t>(event.duration_ms, 18'000));
    const double rest = static_cast<double>(event.duration_ms) - needed;
    const double watched =
        long_view ? needed + random_.Uniform() * (rest + 0.3 * needed) : needed * std::pow(random_.Uniform(), 2) * 0.99;
    event.play_time_ms = static_cast<int64_t>(watched);
    event.labels = Labels(long_view, video);
    return event;
  }

  uint32_t Labels(bool long_view, const World::Video& video) {
    uint32_t labels = long_view ? uint32_t{kLongView} : 0u;
    if (random_.Chance(long_view ? 0.995 : 0.19)) labels |= kClick;
    if (random_.Chance((long_view ? 0.85 : 0.06) * video.like_rate * generosity_)) labels |= kLike;
    if (random_.Chance(long_view ? 0.0032 : 0.0004)) labels |= kFollow;
    if (random_.Chance(long_view ? 0.006 : 0.001)) labels |= kComment;
    if (random_.Chance(long_view ? 0.0024 : 0.0002)) labels |= kForward;
    if (random_.Chance(long_view ? 0.0001 : 0.0011)) labels |= kHate;
    if (random_.Chance(long_view ? 0.035 : 0.011)) labels |= kProfileEnter;
    return labels;
  }

  const World& world_;
  Random random_;
  uint32_t age_group_;
  std::array<Interest, kInterests> interests_;  // newest first
  double patience_;
  double generosity_;
  absl::flat_hash_set<uint32_t> shown_;
  absl::flat_hash_set<uint32_t> long_viewed_;
};

const std::vector<std::string>& UserColumns() {
  static const std::vector<std::string> columns = {"active_degree", "age_range", "register_days_range"};
  return columns;
}

}  // namespace

absl::StatusOr<LogGenerator> LogGenerator::Create(const LogGeneratorOptions& options) {
  LogGeneratorOptions filled = options;
  if (options.users < 1 || options.users > kMostUsers) {
    return absl::InvalidArgumentError(absl::StrCat("users is ", options.users, ", not from 1 to ", kMostUsers));
  }
  if (options.items == 0) {
    const double proportion = static_cast<double>(options.users) / kKuaiRandUsers;
    filled.items = std::clamp(std::llround(kKuaiRandItems * std::pow(proportion, 0.6)),
                              static_cast<long long>(kFewestItems), static_cast<long long>(kMostItems));
  } else if (options.items < kFewestItems || options.items > kMostItems) {
    return absl::InvalidArgumentError(
        absl::StrCat("items is ", options.items, ", not 0 or from ", kFewestItems, " to ", kMostItems));
  }
  return LogGenerator(filled, MakeWorld(filled.items, filled.seed));
}

LogGenerator::User LogGenerator::MakeUser(int64_t index) const {
  Behaviour behaviour(world_, Random(options_.seed, static_cast<uint64_t>(index) + 1));
  const int exposures = static_cast<int>(std::lround(DrawByQuantiles(kExposures, &behaviour.random())));
  User user;
  user.row.user_id = absl::StrCat("u", index + 1);
  user.events = behaviour.Live(exposures);
  const char* degree = exposures > 60 ? "full_active" : exposures > 20 ? "high_active" : "middle_active";
  constexpr std::array<const char*, kAgeGroups> kAges = {"0-17", "18-23", "24-30", "31-40", "41-49", "50+"};
  constexpr std::array<const char*, 4> kRegistered = {"0-90", "91-365", "366-730", "730+"};
  user.row.attributes = {{UserColumns()[0], degree},
                         {UserColumns()[1], kAges[behaviour.age_group()]},
                         {UserColumns()[2], kRegistered[behaviour.random().Below(kRegistered.size())]}};
  return user;
}

absl::StatusOr<ImportReport> GenerateLog(const LogGeneratorOptions& generator_options, const ImportOptions& options) {
  BEAMLINE_ASSIGN_OR_RETURN(const LogGenerator generator, LogGenerator::Create(generator_options));
  BEAMLINE_ASSIGN_OR_RETURN(const TableFolder out, TableFolder::Open(options.out, options.gzip,
                                                                     {"events", "items", "users"}, options.overwrite));
  BEAMLINE_ASSIGN_OR_RETURN(ItemTableWriter items, ItemTableWriter::Create(out.Path("items")));
  for (const ItemRow& row : generator.world().items) BEAMLINE_RETURN_IF_ERROR(items.Write(row));
  BEAMLINE_ASSIGN_OR_RETURN(UserTableWriter users, UserTableWriter::Create(out.Path("users"), UserColumns()));
  BEAMLINE_ASSIGN_OR_RETURN(EventTableWriter events, EventTableWriter::Create(out.Path("events")));
  StatisticsCounter counter;
  StartProgress(options.progress, "generating", generator_options.users, "users");
  for (int64_t index = 0; index < generator_options.users; ++index) {
    BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
    const LogGenerator::User user = generator.MakeUser(index);
    std::vector<std::string_view> values;
    values.reserve(user.row.attributes.size());
    for (const UserAttribute& attribute : user.row.attributes) values.push_back(attribute.value);
    BEAMLINE_RETURN_IF_ERROR(users.Write(user.row.user_id, values));
    for (const Event& event : user.events) {
      BEAMLINE_RETURN_IF_ERROR(events.Write(user.row.user_id, event));
      counter.Add(user.row.user_id, event);
    }
    UpdateProgress(options.progress, index + 1);
  }
  FinishProgress(options.progress);
  BEAMLINE_RETURN_IF_ERROR(items.Commit());
  BEAMLINE_RETURN_IF_ERROR(users.Commit());
  BEAMLINE_RETURN_IF_ERROR(events.Commit());
  return ImportReport{events.rows(), items.rows(), users.rows(), {counter.Finish(items.rows()).ToString()}};
}

}  // namespace beamline::data
