// SPDX-License-Identifier: Apache-2.0
//
// A made-up short-video log with the shape of KuaiRand-Pure (events per user, label rates, durations, authors, tags,
// popularity) and with behaviour that can be learnt. The world: topics, each with a few styles; a video belongs to one
// style of one topic, which its tag and its author tell imperfectly, and has a popularity. A user has a few interests
// (a topic, a favourite style); each session is about one of them; before most sessions the oldest gives way to a topic
// that follows from the newest, along a directed path of topics, as one video leads to the next rabbit hole. What is
// shown is a mixture of what is popular and what fits an interest; what fits is watched longer.
//
// So co-occurrence tells much (item-KNN about 1.6 times popularity) and the last item alone little (Markov about
// popularity: most of what is watched in a session is not about its interest, and a pair of videos is rare), while a
// sequence model can gain more: it sees where interests go and not only what goes together, which events are of this
// session, and that videos of one tag, style and neighbourhood follow each other whether or not these two ever did.
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
  // INVALID_ARGUMENT names the option out of range.
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
