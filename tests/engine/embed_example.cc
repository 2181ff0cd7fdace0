// SPDX-License-Identifier: Apache-2.0
//
// Beamline inside a C++ program, without a server: load a bundle, ask for one user, print what to show.
//   embed_example BUNDLE_FOLDER [ITEM_ID...]        the ids are what the user watched, oldest first
#include <cstdlib>
#include <iostream>

#include "beamline/engine.h"

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: embed_example BUNDLE_FOLDER [ITEM_ID...]\n";
    return 2;
  }
  beamline::EngineOptions options;
  options.bundle = argv[1];
  auto engine = beamline::CreateEngine(options);
  if (!engine.ok()) {
    std::cerr << engine.status() << "\n";
    return 1;
  }

  beamline::RecommendRequest request;
  request.user_id = "alice";
  for (int i = 2; i < argc; ++i) request.history.push_back({.item = std::strtoull(argv[i], nullptr, 10)});
  request.top_k = 5;
  request.exclude_history = true;

  // Submit does not wait and takes a callback; Recommend is the two together.
  const auto answer = (*engine)->Recommend(request);
  if (!answer.ok()) {
    std::cerr << answer.status() << "\n";
    return 1;
  }
  for (const beamline::RecommendedItem& item : answer->items) {
    std::cout << item.item << " " << item.sid.ToString() << " " << item.score << "\n";
  }
  std::cout << "model " << answer->model_version << ", catalogue " << answer->catalogue_version << ", "
            << answer->timings.total << "\n";
}
