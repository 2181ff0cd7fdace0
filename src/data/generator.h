// SPDX-License-Identifier: Apache-2.0
//
// A made-up short-video log with the shape of KuaiRand-Pure (events per user, label rates, durations, authors, tags,
// popularity) and with behaviour that can be learnt. The world: topics, each with a few styles; a video belongs to one
// style of one topic, which its tag and its author tell imperfectly, and has a popularity. A user has a few interests
// (a topic, a favourite style); each session is about one of them; every now and then the oldest gives way to a topic
// that follows from the newest, so interests drift along directed paths. What is shown is a mixture of what is popular
// and what fits an interest; what fits is watched longer. So co-occurrence tells much (item-KNN about 1.6 times
// popularity), the last item alone little (Markov about popularity), and recency, direction and attributes more than
// co-occurrence does: that is what a sequence model can gain.
//
// A pure function of the options: the same on every platform. User() may be called in any order and from several
// threads; memory is the world's, it does not grow with users.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "beamline/request.h"
#include "data/generator_world.h"
#include "data/import.h"
#include "data/user_table.h"

namespace beamline::data {

struct LogGeneratorOptions {
  int64_t users = 3000;
  int64_t items = 0;  // 0: in KuaiRand's proportion, 7583 videos for 26469 users, with fewer users per video below
  uint64_t seed = 1;
};

class LogGenerator {
 public:
  // InvalidArgument names the option out of range.
  static absl::StatusOr<LogGenerator> Create(const LogGeneratorOptions& options);

  struct User {
    UserRow row;
    std::vector<Event> events;  // in time order
  };
  User MakeUser(int64_t index) const;  // 0 <= index < users

  const LogGeneratorOptions& options() const { return options_; }  // `items` filled in
  const World& world() const { return world_; }

 private:
  LogGenerator(const LogGeneratorOptions& options, World world) : options_(options), world_(std::move(world)) {}

  LogGeneratorOptions options_;
  World world_;
};

// Writes events, items and users tables. The report's notes are the statistics of the log.
absl::StatusOr<ImportReport> GenerateLog(const LogGeneratorOptions& generator, const ImportOptions& options);

}  // namespace beamline::data
