// SPDX-License-Identifier: Apache-2.0
//
// The parts of reading a configuration that config.cc puts together: a list of problems, the text parser that goes on
// after an error, and the checks of meaning. Pure.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "beamline/config/v1/server_config.pb.h"
#include "google/protobuf/text_format.h"
#include "server/config.h"

namespace beamline::server {

class ConfigProblems {
 public:
  explicit ConfigProblems(std::string name) : name_(std::move(name)) {}

  // `line` counts from 1; 0: no line, e.g. something missing.
  void Add(int line, const std::string& text);
  bool empty() const { return problems_.empty(); }
  absl::Status ToStatus() const;  // by line, the first 50 and how many more; OK when empty

 private:
  struct Problem {
    int line;
    std::string text;
  };
  std::string name_;
  std::vector<Problem> problems_;
};

// Parses what can be parsed and tells where each field stood.
std::unique_ptr<google::protobuf::TextFormat::ParseInfoTree> ParseConfigText(const std::string& text,
                                                                             config::v1::ServerConfig* config,
                                                                             ConfigProblems* problems);

// Ranges, words, relations between fields, and files that must exist.
void CheckConfig(const config::v1::ServerConfig& config, const google::protobuf::TextFormat::ParseInfoTree& locations,
                 const ConfigOverrides& overrides, ConfigProblems* problems);

// The candidate with the smallest edit distance to `word`, if it is at most a third of the word's length.
std::string Nearest(absl::string_view word, const std::vector<std::string>& candidates);

}  // namespace beamline::server
