// SPDX-License-Identifier: Apache-2.0
#include "cli/command.h"

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace beamline::cli {
namespace {

constexpr int kBadUsage = 2;

template <typename T>
struct NumberIn {
  using Type = T;
};
template <typename T>
struct NumberIn<std::optional<T>> {
  using Type = T;
};
template <typename T>
struct NumberIn<std::vector<T>> {
  using Type = T;
};

CLI::Validator Within(Limits limits, NumberKind kind) {
  return CLI::Validator([=](std::string& text) { return CheckNumber(limits, kind, &text); }, FormatLimits(limits), "");
}

// What CLI11 calls "A subcommand is required", with the word that is none.
std::string MissingCommand(const CLI::App& app) {
  std::vector<std::string> known;
  for (const CLI::App* command : app.get_subcommands({})) known.push_back(command->get_name());
  const std::vector<std::string> words = app.remaining();
  return absl::StrCat(words.empty() ? "needs one of " : absl::StrCat("'", words.front(), "' is none of "),
                      absl::StrJoin(known, ", "));
}

// CLI11's errors in the form of ours: one line, the verb in front, the way out behind.
std::string UsageError(const CLI::App* app, const CLI::Error& error) {
  std::string command = app->get_name();
  for (; !app->get_subcommands().empty(); app = app->get_subcommands().front()) {
    absl::StrAppend(&command, " ", app->get_subcommands().front()->get_name());
  }
  const bool missing = dynamic_cast<const CLI::RequiredError*>(&error) != nullptr;
  std::string message = error.what();
  if (missing && !app->get_subcommands({}).empty()) {
    message = MissingCommand(*app);
  } else if (const std::vector<std::string> unknown = app->remaining(); missing && !unknown.empty()) {
    absl::StrAppend(&message, ", and '", unknown.front(), "' is none of its options");  // CLI11 tells one thing alone
  }
  return absl::StrCat(command, ": ", message, "; see `", command, " --help`\n");
}

// CLI11 takes "--name=" for a name whose value is the next word; here it has the empty one.
std::vector<std::string> Words(int argc, char** argv) {
  std::vector<std::string> words;
  bool options = true;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    options &= word != "--";
    if (options && word.size() > 3 && word.starts_with("--") && word.find('=') == word.size() - 1) {
      words.push_back(word.substr(0, word.size() - 1));
      words.push_back("");
    } else {
      words.push_back(word);
    }
  }
  return words;
}

}  // namespace

bool Option::given() const { return option_->count() > 0; }

Option* Option::Required() {
  option_->required();
  return this;
}

Option* Option::ShowDefault() {
  option_->capture_default_str();
  return this;
}

Option* Option::ShowDefault(const std::string& text) {
  option_->default_str(text);
  return this;
}

Option* Option::Group(const std::string& title) {
  option_->group(title);
  return this;
}

Option* Option::TypeName(const std::string& name) {
  option_->type_name(name);
  return this;
}

Option* Option::OneOf(const std::vector<std::string>& values) {
  option_->check(CLI::IsMember(values));
  return this;
}

Option* Option::Separator(char separator) {
  option_->delimiter(separator);
  return this;
}

Option* Option::Needs(Option* other) {
  option_->needs(other->option_);
  return this;
}

Option* Option::Excludes(Option* other) {
  option_->excludes(other->option_);
  return this;
}

std::string Command::name() const { return app_->get_name(); }

bool Command::parsed() const { return app_->parsed(); }

bool Command::parsed(const std::string& name) const { return app_->got_subcommand(name); }

Command* Command::AddCommand(const std::string& name, const std::string& about) {
  commands_.push_back(std::make_unique<Command>(app_->add_subcommand(name, about)));
  return commands_.back().get();
}

void Command::RequireCommand() { app_->require_subcommand(1); }

void Command::Footer(const std::string& text) { app_->footer(text); }

Option* Command::Own(CLI::Option* option) {
  options_.push_back(std::make_unique<Option>(option));
  return options_.back().get();
}

Option* Command::AddText(const std::string& flags, std::string& value, const std::string& help) {
  return Own(app_->add_option(flags, value, help));
}

Option* Command::AddPath(const std::string& flags, std::filesystem::path& value, const std::string& help) {
  return Own(app_->add_option(flags, value, help));
}

Option* Command::AddTexts(const std::string& flags, std::vector<std::string>& values, const std::string& help) {
  return Own(app_->add_option(flags, values, help));
}

Option* Command::AddFlag(const std::string& flags, bool& value, const std::string& help) {
  return Own(app_->add_flag(flags, value, help));
}

Option* Command::AddCallback(const std::string& flags, std::function<void(const std::string&)> callback,
                             const std::string& help) {
  return Own(app_->add_option_function<std::string>(flags, callback, help));
}

template <typename T>
Option* Command::AddNumber(const std::string& flags, T& value, Limits limits, const std::string& help) {
  using Number = typename NumberIn<T>::Type;
  if (limits.high > static_cast<double>(std::numeric_limits<Number>::max())) {
    limits.high = static_cast<double>(std::numeric_limits<Number>::max());
  }
  const NumberKind kind = !std::is_integral_v<Number> ? NumberKind::kReal
                          : std::is_signed_v<Number>  ? NumberKind::kSigned
                                                      : NumberKind::kUnsigned;
  return Own(app_->add_option(flags, value, help)->transform(Within(limits, kind)));
}

template Option* Command::AddNumber(const std::string&, int&, Limits, const std::string&);
template Option* Command::AddNumber(const std::string&, int64_t&, Limits, const std::string&);
template Option* Command::AddNumber(const std::string&, uint32_t&, Limits, const std::string&);
template Option* Command::AddNumber(const std::string&, uint64_t&, Limits, const std::string&);
template Option* Command::AddNumber(const std::string&, double&, Limits, const std::string&);
template Option* Command::AddNumber(const std::string&, std::optional<uint64_t>&, Limits, const std::string&);
template Option* Command::AddNumber(const std::string&, std::vector<uint32_t>&, Limits, const std::string&);
template Option* Command::AddNumber(const std::string&, std::vector<double>&, Limits, const std::string&);

CommandLine::CommandLine(const std::string& name, const std::string& about, const std::string& version)
    : app_(std::make_unique<CLI::App>(about, name)), root_(std::make_unique<Command>(app_.get())) {
  app_->set_version_flag("--version", version, "Print the version and exit");
  app_->require_subcommand(1);
  app_->failure_message(UsageError);
}

CommandLine::~CommandLine() = default;

std::string CommandLine::Help() const { return app_->help(); }

std::optional<int> CommandLine::Parse(int argc, char** argv) {
  std::vector<std::string> words = Words(argc, argv);
  std::reverse(words.begin(), words.end());  // as CLI11 wants them
  try {
    app_->parse(std::move(words));
  } catch (const CLI::ParseError& error) {
    return app_->exit(error) == 0 ? 0 : kBadUsage;
  }
  return std::nullopt;
}

}  // namespace beamline::cli
