// SPDX-License-Identifier: Apache-2.0
#include "parallel/rendezvous.h"

#include <algorithm>
#include <random>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "beamline/status.h"

namespace beamline::parallel {
namespace {

constexpr absl::string_view kMagic = "beamline group 1";
constexpr absl::string_view kWelcome = "welcome";
constexpr absl::string_view kRefused = "refused";
constexpr size_t kMaxGreeting = 64 << 10;
constexpr absl::Duration kGreetingTime = absl::Seconds(2);  // for a connection to say who it is
constexpr absl::Duration kRetry = absl::Milliseconds(50);

// Greetings are lines of text. A joining rank's: magic, rank, size, its port, then "field\tvalue" of the settings.
// The answer: welcome, token, then "address\tport" of each rank's listener; or: refused, why.
struct Greeting {
  int rank = 0;
  int size = 0;
  int port = 0;
  Settings settings;
};

std::string Format(const Greeting& greeting) {
  std::string text = absl::StrCat(kMagic, "\n", greeting.rank, "\n", greeting.size, "\n", greeting.port);
  for (const auto& [field, value] : greeting.settings) absl::StrAppend(&text, "\n", field, "\t", value);
  return text;
}

absl::StatusOr<Greeting> ParseGreeting(const std::string& text) {
  const std::vector<std::string> lines = absl::StrSplit(text, '\n');
  Greeting greeting;
  if (lines.size() < 4 || lines[0] != kMagic || !absl::SimpleAtoi(lines[1], &greeting.rank) ||
      !absl::SimpleAtoi(lines[2], &greeting.size) || !absl::SimpleAtoi(lines[3], &greeting.port)) {
    return absl::InvalidArgumentError("it does not speak our protocol");
  }
  for (size_t i = 4; i < lines.size(); ++i) {
    greeting.settings.push_back(absl::StrSplit(lines[i], absl::MaxSplits('\t', 1)));
  }
  return greeting;
}

// What a joining rank has that does not fit rank 0.
absl::Status Compare(const Greeting& other, const ParallelOptions& options, const Settings& settings) {
  const auto differ = [&](absl::string_view field, const auto& theirs, const auto& ours) {
    return absl::FailedPreconditionError(absl::StrCat(field, ": rank ", other.rank, " has ", theirs, ", rank 0 has ",
                                                      ours, "; all ranks of a group need the same"));
  };
  if (other.size != options.size) return differ("parallel.size", other.size, options.size);
  if (other.rank < 1 || other.rank >= options.size) {
    return absl::FailedPreconditionError(
        absl::StrCat("parallel.rank: ", other.rank, " joined, the others are 1..", options.size - 1));
  }
  for (size_t i = 0; i < std::max(settings.size(), other.settings.size()); ++i) {
    const std::pair<std::string, std::string> none("", "nothing");
    const auto& ours = i < settings.size() ? settings[i] : none;
    const auto& theirs = i < other.settings.size() ? other.settings[i] : none;
    if (ours != theirs) return differ(ours.first.empty() ? theirs.first : ours.first, theirs.second, ours.second);
  }
  return absl::OkStatus();
}

std::string NewToken() {
  std::random_device random;
  return absl::StrCat(absl::Hex(random(), absl::kZeroPad8), absl::Hex(random(), absl::kZeroPad8),
                      absl::Hex(random(), absl::kZeroPad8), absl::Hex(random(), absl::kZeroPad8));
}

// Of the time after all have come and before all have met.
absl::Status WhileMeeting(const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      absl::StrCat("parallel: a rank was lost while the group started: ", status.message()));
}

// Takes connections that show the token, until each rank from `first` on has one.
absl::Status AcceptData(Socket& listener, const std::string& token, int first, absl::Time deadline, Connections& all) {
  std::vector<Socket>& data = all.data;
  for (int missing = static_cast<int>(data.size()) - first; missing > 0;) {
    absl::StatusOr<Socket> accepted = Accept(listener, deadline, all.control);
    if (!accepted.ok()) return WhileMeeting(accepted.status());
    Socket joined = *std::move(accepted);
    const auto text = joined.ReceiveMessage(kMaxGreeting, std::min(deadline, SteadyNow() + kGreetingTime));
    if (!text.ok()) continue;  // a stray one
    const std::vector<std::string> words = absl::StrSplit(*text, '\n');
    int rank = -1;
    if (words.size() != 2 || words[0] != token || !absl::SimpleAtoi(words[1], &rank)) continue;
    if (rank < first || rank >= static_cast<int>(data.size()) || data[rank].open()) continue;
    data[rank] = std::move(joined);
    --missing;
  }
  return absl::OkStatus();
}

absl::Status MissingRanks(const std::vector<Socket>& control, const ParallelOptions& options) {
  std::vector<int> missing;
  for (int rank = 1; rank < options.size; ++rank) {
    if (!control[rank].open()) missing.push_back(rank);
  }
  return absl::DeadlineExceededError(
      absl::StrCat("parallel.size: of ", options.size, " ranks these did not come to ", options.address, " port ",
                   options.port, " within parallel.start_timeout_ms (",
                   absl::ToInt64Milliseconds(options.start_timeout), "): ", absl::StrJoin(missing, ", ")));
}

void Refuse(Socket& socket, const absl::Status& why) {
  (void)socket.SendMessage(absl::StrCat(kRefused, "\n", why.message()), SteadyNow() + kGreetingTime);
}

absl::StatusOr<Connections> Gather(const ParallelOptions& options, const Settings& settings, absl::Time deadline) {
  BEAMLINE_ASSIGN_OR_RETURN(Socket listener, Listen({options.address, options.port}, "parallel.port"));
  Connections all;
  all.data.resize(options.size);
  all.control.resize(options.size);
  std::vector<Endpoint> listeners(options.size);
  for (int missing = options.size - 1; missing > 0;) {
    absl::StatusOr<Socket> joined = Accept(listener, deadline);
    if (absl::IsDeadlineExceeded(joined.status())) return MissingRanks(all.control, options);
    if (!joined.ok()) return joined.status();
    const auto text = joined->ReceiveMessage(kMaxGreeting, std::min(deadline, SteadyNow() + kGreetingTime));
    const auto greeting = text.ok() ? ParseGreeting(*text) : text.status();
    if (!greeting.ok()) {
      Log().warn("parallel: a connection from {} was dropped: {}", PeerEndpoint(*joined).address,
                 std::string(greeting.status().message()));
      continue;
    }
    if (absl::Status status = Compare(*greeting, options, settings); !status.ok()) {
      Refuse(*joined, status);
      for (Socket& other : all.control) {
        if (other.open()) Refuse(other, status);
      }
      return status;
    }
    if (all.control[greeting->rank].open()) {
      Refuse(*joined, absl::FailedPreconditionError(absl::StrCat("parallel.rank: ", greeting->rank,
                                                                 " is taken by another process of the group")));
      continue;
    }
    listeners[greeting->rank] = {PeerEndpoint(*joined).address, greeting->port};
    all.control[greeting->rank] = *std::move(joined);
    --missing;
  }
  const std::string token = NewToken();
  std::string welcome = absl::StrCat(kWelcome, "\n", token);
  for (const Endpoint& other : listeners) absl::StrAppend(&welcome, "\n", other.address, "\t", other.port);
  for (int rank = 1; rank < options.size; ++rank) {
    BEAMLINE_RETURN_IF_ERROR(all.control[rank].SendMessage(welcome, deadline));
  }
  BEAMLINE_RETURN_IF_ERROR(AcceptData(listener, token, 1, deadline, all));
  // Nobody starts before everybody has met everybody.
  for (int rank = 1; rank < options.size; ++rank) {
    BEAMLINE_RETURN_IF_ERROR(WhileMeeting(all.control[rank].ReceiveMessage(kMaxGreeting, deadline).status()));
  }
  for (int rank = 1; rank < options.size; ++rank) {
    BEAMLINE_RETURN_IF_ERROR(WhileMeeting(all.control[rank].SendMessage(kWelcome, deadline)));
  }
  return all;
}

absl::StatusOr<Socket> ConnectToFirst(const ParallelOptions& options, absl::Time deadline) {
  for (;;) {
    absl::StatusOr<Socket> socket = Connect({options.address, options.port}, deadline);
    if (socket.ok()) return socket;
    if (SteadyNow() + kRetry >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("parallel.address: rank ", options.rank, " found no rank 0 at ", options.address, " port ",
                       options.port, " within parallel.start_timeout_ms (",
                       absl::ToInt64Milliseconds(options.start_timeout), "): ", socket.status().message()));
    }
    absl::SleepFor(kRetry);
  }
}

absl::StatusOr<Connections> Join(const ParallelOptions& options, const Settings& settings, absl::Time deadline) {
  Connections all;
  all.data.resize(options.size);
  all.control.resize(options.size);
  BEAMLINE_ASSIGN_OR_RETURN(Socket first, ConnectToFirst(options, deadline));
  BEAMLINE_ASSIGN_OR_RETURN(Socket listener, Listen({LocalEndpoint(first).address, 0}, "parallel.address"));
  const Greeting greeting{options.rank, options.size, LocalEndpoint(listener).port, settings};
  BEAMLINE_RETURN_IF_ERROR(first.SendMessage(Format(greeting), deadline));
  const auto answer = first.ReceiveMessage(kMaxGreeting, deadline);
  if (!answer.ok()) {
    return absl::Status(answer.status().code(),
                        absl::StrCat("parallel.address: rank 0 at ", options.address, " port ", options.port,
                                     " gave the group up or is no Beamline: ", answer.status().message()));
  }
  const std::vector<std::string> lines = absl::StrSplit(*answer, '\n');
  if (lines[0] == kRefused) {
    return absl::FailedPreconditionError(lines.size() > 1 ? lines[1] : "parallel: refused by rank 0");
  }
  if (lines[0] != kWelcome || static_cast<int>(lines.size()) != options.size + 2) {
    return absl::FailedPreconditionError(absl::StrCat("parallel.address: what answers at ", options.address, " port ",
                                                      options.port, " is no rank 0 of a group"));
  }
  const std::string& token = lines[1];
  for (int rank = 0; rank < options.rank; ++rank) {
    Endpoint endpoint{options.address, options.port};
    if (rank > 0) {
      const std::pair<std::string, std::string> place = absl::StrSplit(lines[2 + rank], absl::MaxSplits('\t', 1));
      endpoint.address = place.first;
      if (!absl::SimpleAtoi(place.second, &endpoint.port)) return absl::InternalError("parallel: rank 0 sent no port");
    }
    absl::StatusOr<Socket> data = Connect(endpoint, deadline);
    if (!data.ok()) return WhileMeeting(data.status());
    all.data[rank] = *std::move(data);
    BEAMLINE_RETURN_IF_ERROR(
        WhileMeeting(all.data[rank].SendMessage(absl::StrCat(token, "\n", options.rank), deadline)));
  }
  all.control[0] = std::move(first);
  BEAMLINE_RETURN_IF_ERROR(AcceptData(listener, token, options.rank + 1, deadline, all));
  BEAMLINE_RETURN_IF_ERROR(WhileMeeting(all.control[0].SendMessage(kWelcome, deadline)));
  BEAMLINE_RETURN_IF_ERROR(WhileMeeting(all.control[0].ReceiveMessage(kMaxGreeting, deadline).status()));
  return all;
}

}  // namespace

absl::StatusOr<Connections> Meet(const ParallelOptions& options, const Settings& settings) {
  const absl::Time deadline = SteadyNow() + options.start_timeout;
  return options.rank == 0 ? Gather(options, settings, deadline) : Join(options, settings, deadline);
}

}  // namespace beamline::parallel
