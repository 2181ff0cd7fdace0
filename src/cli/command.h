// SPDX-License-Identifier: Apache-2.0
//
// What a verb sees of the command line: commands, their options, and the parse. CLI11 does the work, behind
// command.cc alone: its header costs every source that includes it ten seconds of compiling.
//
// Variables given to Add* are written by CommandLine::Parse and must live until then. A CommandLine owns its commands
// and options; pointers to them hold as long as it lives. Not thread-safe.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/number_limits.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace beamline::cli {

class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}
  bool given() const;  // after the parse
  Option* Required();
  Option* ShowDefault();  // the variable's value in the help
  Option* ShowDefault(const std::string& text);
  Option* Group(const std::string& title);
  Option* TypeName(const std::string& name);
  Option* OneOf(const std::vector<std::string>& values);
  Option* Separator(char separator);  // of a list in one argument
  Option* Needs(Option* other);
  Option* Excludes(Option* other);

 private:
  CLI::Option* option_;
};

class Command {
 public:
  explicit Command(CLI::App* app) : app_(app) {}
  std::string name() const;
  bool parsed() const;                         // the user chose it
  bool parsed(const std::string& name) const;  // and this command of it
  Command* AddCommand(const std::string& name, const std::string& about);
  void RequireCommand();
  void Footer(const std::string& text);

  // flags: "--name", "--name,--alias", or "NAME" for a positional argument.
  Option* AddText(const std::string& flags, std::string& value, const std::string& help);
  Option* AddPath(const std::string& flags, std::filesystem::path& value, const std::string& help);
  Option* AddTexts(const std::string& flags, std::vector<std::string>& values, const std::string& help);
  Option* AddFlag(const std::string& flags, bool& value, const std::string& help);
  // Calls back in the order in which options were added, not that of the command line.
  Option* AddCallback(const std::string& flags, std::function<void(const std::string&)> callback,
                      const std::string& help);
  // T: int, int64_t, uint32_t, uint64_t, double, optional<uint64_t>, vector<uint32_t>, vector<double>.
  template <typename T>
  Option* AddNumber(const std::string& flags, T& value, Limits limits, const std::string& help);

 private:
  Option* Own(CLI::Option* option);

  CLI::App* app_;
  std::vector<std::unique_ptr<Command>> commands_;
  std::vector<std::unique_ptr<Option>> options_;
};

class CommandLine {
 public:
  CommandLine(const std::string& name, const std::string& about, const std::string& version);
  ~CommandLine();
  Command* root() { return root_.get(); }
  std::string Help() const;
  // The exit code where there is nothing left to do: 0 after --help and --version, 2 for bad usage, which is printed.
  std::optional<int> Parse(int argc, char** argv);

 private:
  std::unique_ptr<CLI::App> app_;
  std::unique_ptr<Command> root_;
};

}  // namespace beamline::cli
