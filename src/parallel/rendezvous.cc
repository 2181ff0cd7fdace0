// SPDX-License-Identifier: Apache-2.0
#include "parallel/rendezvous.h"

#include <algorithm>
#include <optional>
#include <random>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "beamline/status.h"
#include "parallel/lobby.h"

namespace beamline::parallel {
namespace {

constexpr absl::Duration kRetry = absl::Milliseconds(50);
constexpr absl::Duration kLastWord = absl::Seconds(1);  // for rank 0, beyond kMeetingTime, to say who was lost

std::string NewToken() {
  std::random_device random;
  return absl::StrCat(absl::Hex(random(), absl::kZeroPad8), absl::Hex(random(), absl::kZeroPad8),
                      absl::Hex(random(), absl::kZeroPad8), absl::Hex(random(), absl::kZeroPad8));
}

absl::Status LostAtStart(int rank, absl::string_view how) {
  return absl::UnavailableError(absl::StrCat("parallel: rank ", rank, " was lost while the group started: ", how));
}

std::string LateText() { return absl::StrCat("no answer within ", absl::FormatDuration(kMeetingTime)); }

void Refuse(Socket& socket, const absl::Status& why) {
  // Small, and the first that is sent: a connection takes it at once.
  (void)socket.SendMessage(FormatRefusal(why), SteadyNow() + kGreetingTime);
}

// OK: `rank`, at the other end of its connection to rank 0 or from it, has met everybody. UNAVAILABLE: who is lost.
absl::Status ReadWelcome(Socket& control, int rank, absl::Time deadline) {
  const auto text = control.ReceiveMessage(kMaxGreeting, deadline);
  if (absl::IsDeadlineExceeded(text.status())) return LostAtStart(rank, LateText());
  if (!text.ok()) return LostAtStart(rank, text.status().message());
  if (const auto why = ParseRefusal(*text)) return absl::UnavailableError(*why);
  if (*text != kWelcome) return LostAtStart(rank, "it does not speak our protocol");
  return absl::OkStatus();
}

struct Expected {
  const std::string& token;
  int first;  // this rank and later ones
  absl::Duration lost_after;
};

// Keeps the connection of an expected rank that shows the token; another one closes.
bool TakeData(Lobby::Guest& guest, const Expected& expected, std::vector<Socket>& data) {
  const std::vector<std::string> words = absl::StrSplit(guest.message, '\n');
  int rank = -1;
  if (words.size() != 2 || words[0] != expected.token || !absl::SimpleAtoi(words[1], &rank)) return false;
  if (rank < expected.first || rank >= static_cast<int>(data.size()) || data[rank].open()) return false;
  data[rank] = std::move(guest.socket);
  NoticeLoss(data[rank], expected.lost_after);
  return true;
}

// Rank 0 until the group is whole.
class Gathering {
 public:
  Gathering(const ParallelOptions& options, Greeting own, Lobby lobby)
      : options_(options), own_(std::move(own)), lobby_(std::move(lobby)), listeners_(options.size) {
    all_.data.resize(options.size);
    all_.control.resize(options.size);
  }

  absl::StatusOr<Connections> Run() {
    absl::Status status = AwaitAll(SteadyNow() + options_.start_timeout);
    if (status.ok()) status = MeetAll(SteadyNow() + kMeetingTime);
    for (Socket& other : all_.control) {
      if (!other.open()) continue;
      if (!status.ok()) Refuse(other, status);
      // One that is lost just now is a loss of the group that has started: its watcher will say so.
      if (status.ok()) (void)other.SendMessage(kWelcome, SteadyNow() + kLastWord);
    }
    if (!status.ok()) return status;
    return std::move(all_);
  }

 private:
  std::vector<int> Missing(const std::vector<Socket>& of) const {
    std::vector<int> missing;
    for (int rank = 1; rank < options_.size; ++rank) {
      if (!of[rank].open()) missing.push_back(rank);
    }
    return missing;
  }

  absl::Status AwaitAll(absl::Time deadline) {
    while (!Missing(all_.control).empty()) {
      if (SteadyNow() >= deadline) return NotCome();
      BEAMLINE_ASSIGN_OR_RETURN(std::optional<Lobby::Guest> guest, lobby_.Next(deadline, all_.control));
      FreePlacesOfLost();  // before anybody is refused who comes again
      if (guest) Welcome(*guest);
    }
    return absl::OkStatus();
  }

  void FreePlacesOfLost() {
    for (int rank = 1; rank < options_.size; ++rank) {
      Socket& control = all_.control[rank];
      if (!control.open() || !HasNews(control)) continue;
      char byte = 0;
      const absl::Status status = control.ReceiveSome({&byte, 1}).status();
      LogEvent(spdlog::level::warn, "parallel: a rank has left before the group started; it may come again",
               {{"rank", rank}, {"reason", status.ok() ? "it spoke out of turn" : status.message()}});
      control = Socket();
    }
  }

  void Welcome(Lobby::Guest& guest) {
    const auto greeting = ParseGreeting(guest.message);
    const std::string address = PeerEndpoint(guest.socket).address;
    absl::Status status = greeting.status();
    if (greeting.ok()) {
      status = CompareGreetings(*greeting, own_);
      if (!status.ok()) last_refusal_ = std::string(status.message());
      if (status.ok() && all_.control[greeting->rank].open()) {
        status = absl::FailedPreconditionError(
            absl::StrCat("parallel.rank: ", greeting->rank, " is taken by another process of the group"));
      }
      if (!status.ok()) Refuse(guest.socket, status);
    }
    if (!status.ok()) {
      LogEvent(spdlog::level::warn,
               greeting.ok() ? "parallel: a rank was refused" : "parallel: a connection was dropped",
               {{"address", address}, {"reason", status.message()}});
      return;
    }
    listeners_[greeting->rank] = {address, greeting->port};
    NoticeLoss(guest.socket, options_.lost_after);
    all_.control[greeting->rank] = std::move(guest.socket);
    const std::string missing = absl::StrJoin(Missing(all_.control), ",");
    LogEvent(spdlog::level::info, "parallel: a rank has come",
             {{"rank", greeting->rank}, {"address", address}, {"missing", missing.empty() ? "none" : missing}});
  }

  absl::Status NotCome() const {
    return absl::DeadlineExceededError(absl::StrCat(
        "parallel.size: of ", options_.size, " ranks these did not come to ", options_.address, " port ", options_.port,
        " within parallel.start_timeout_ms (", absl::ToInt64Milliseconds(options_.start_timeout),
        "): ", absl::StrJoin(Missing(all_.control), ", "),
        last_refusal_.empty() ? "" : absl::StrCat("; one was refused: ", last_refusal_)));
  }

  // Nobody starts before everybody has met everybody.
  absl::Status MeetAll(absl::Time deadline) {
    const std::string token = NewToken();
    std::string welcome = absl::StrCat(kWelcome, "\n", token);
    for (const Endpoint& other : listeners_) absl::StrAppend(&welcome, "\n", other.address, "\t", other.port);
    for (int rank = 1; rank < options_.size; ++rank) {
      const absl::Status sent = all_.control[rank].SendMessage(welcome, deadline);
      if (!sent.ok()) return LostAtStart(rank, sent.message());
    }
    std::vector<bool> met(options_.size, false);
    met[0] = true;
    const auto unmet = [&] { return static_cast<int>(std::find(met.begin(), met.end(), false) - met.begin()); };
    while (unmet() < options_.size || !Missing(all_.data).empty()) {
      if (SteadyNow() >= deadline) {
        // One that hangs has not come; others have not met because they wait for it.
        const std::vector<int> missing = Missing(all_.data);
        return LostAtStart(missing.empty() ? unmet() : missing[0], LateText());
      }
      BEAMLINE_ASSIGN_OR_RETURN(std::optional<Lobby::Guest> guest, lobby_.Next(deadline, all_.control));
      for (int rank = 1; rank < options_.size; ++rank) {
        if (!HasNews(all_.control[rank])) continue;
        BEAMLINE_RETURN_IF_ERROR(ReadWelcome(all_.control[rank], rank, deadline));
        met[rank] = true;
      }
      if (!guest || TakeData(*guest, {token, 1, options_.lost_after}, all_.data)) continue;
      if (ParseGreeting(guest->message).ok()) {
        Refuse(guest->socket, absl::FailedPreconditionError("parallel.rank: all ranks of the group have come already"));
      }
    }
    return absl::OkStatus();
  }

  const ParallelOptions& options_;
  const Greeting own_;
  Lobby lobby_;
  Connections all_;
  std::vector<Endpoint> listeners_;
  std::string last_refusal_;
};

absl::StatusOr<Socket> ConnectToFirst(const ParallelOptions& options, absl::Time deadline) {
  for (;;) {
    absl::StatusOr<Socket> socket = Connect({options.address, options.port}, deadline);
    if (socket.ok()) return socket;
    absl::SleepFor(kRetry);
    if (SteadyNow() >= deadline) {  // with what the last attempt met, and not one that had no time
      return absl::DeadlineExceededError(
          absl::StrCat("parallel.address: rank ", options.rank, " found no rank 0 at ", options.address, " port ",
                       options.port, " within parallel.start_timeout_ms (",
                       absl::ToInt64Milliseconds(options.start_timeout), "): ", socket.status().message()));
    }
  }
}

// `places`: token, then where each rank listens.
absl::Status MeetOthers(const ParallelOptions& options, absl::Span<const std::string> places, Lobby& lobby,
                        Connections& all) {
  const absl::Time deadline = SteadyNow() + kMeetingTime + kLastWord;
  const std::string& token = places[0];
  for (int rank = 0; rank < options.rank; ++rank) {
    Endpoint endpoint{options.address, options.port};
    if (rank > 0) {
      const std::pair<std::string, std::string> place = absl::StrSplit(places[1 + rank], absl::MaxSplits('\t', 1));
      endpoint.address = place.first;
      if (!absl::SimpleAtoi(place.second, &endpoint.port)) return absl::InternalError("parallel: rank 0 sent no port");
    }
    absl::StatusOr<Socket> data = Connect(endpoint, deadline);
    if (data.ok()) {
      NoticeLoss(*data, options.lost_after);
      if (absl::Status sent = data->SendMessage(absl::StrCat(token, "\n", options.rank), deadline); !sent.ok()) {
        data = sent;
      }
    }
    if (!data.ok()) {
      return LostAtStart(rank, absl::StrCat(endpoint.address, " port ", endpoint.port, " cannot be reached from rank ",
                                            options.rank, ": ", data.status().message()));
    }
    all.data[rank] = *std::move(data);
  }
  for (int rank = options.rank + 1; rank < options.size; ++rank) {
    while (!all.data[rank].open()) {
      if (SteadyNow() >= deadline) return LostAtStart(rank, LateText());
      BEAMLINE_ASSIGN_OR_RETURN(std::optional<Lobby::Guest> guest, lobby.Next(deadline, {&all.control[0], 1}));
      if (guest) TakeData(*guest, {token, options.rank + 1, options.lost_after}, all.data);
      if (HasNews(all.control[0])) {  // too early for a welcome
        absl::Status news = ReadWelcome(all.control[0], 0, deadline);
        return news.ok() ? absl::InternalError("parallel: rank 0 started a group that is not whole") : news;
      }
    }
  }
  const absl::Status sent = all.control[0].SendMessage(kWelcome, deadline);
  if (!sent.ok()) return LostAtStart(0, sent.message());
  return ReadWelcome(all.control[0], 0, deadline);
}

absl::StatusOr<Connections> Join(const ParallelOptions& options, Greeting own) {
  const absl::Time deadline = SteadyNow() + options.start_timeout;
  Connections all;
  all.data.resize(options.size);
  all.control.resize(options.size);
  Socket& first = all.control[0];
  BEAMLINE_ASSIGN_OR_RETURN(first, ConnectToFirst(options, deadline));
  NoticeLoss(first, options.lost_after);
  BEAMLINE_ASSIGN_OR_RETURN(Socket listener, Listen({LocalEndpoint(first).address, 0}, "parallel.address"));
  Lobby lobby(std::move(listener));
  own.port = lobby.port();
  BEAMLINE_RETURN_IF_ERROR(first.SendMessage(FormatGreeting(own), deadline));
  const auto answer = first.ReceiveMessage(kMaxGreeting, deadline);
  if (!answer.ok()) {
    return absl::Status(answer.status().code(),
                        absl::StrCat("parallel.address: rank 0 at ", options.address, " port ", options.port,
                                     " gave the group up or is no Beamline: ", answer.status().message()));
  }
  if (const auto why = ParseRefusal(*answer)) return absl::FailedPreconditionError(*why);
  const std::vector<std::string> lines = absl::StrSplit(*answer, '\n');
  if (lines[0] != kWelcome || static_cast<int>(lines.size()) != options.size + 2) {
    return absl::FailedPreconditionError(absl::StrCat("parallel.address: what answers at ", options.address, " port ",
                                                      options.port, " is no rank 0 of a group"));
  }
  absl::Status status = MeetOthers(options, absl::MakeSpan(lines).subspan(1), lobby, all);
  if (status.ok()) return all;
  // Rank 0 tells the others, and may know better, or have said already, who it was.
  Refuse(first, status);
  const auto verdict = first.ReceiveMessage(kMaxGreeting, SteadyNow() + kLastWord);
  const auto why = verdict.ok() ? ParseRefusal(*verdict) : std::nullopt;
  return why ? absl::UnavailableError(*why) : status;
}

}  // namespace

absl::StatusOr<Connections> Meet(const ParallelOptions& options, const Settings& settings) {
  Greeting own{.rank = options.rank, .size = options.size, .port = options.port, .settings = settings};
  // Ranks that differ in it would find each other silent.
  own.settings.insert(own.settings.begin(),
                      {"parallel.lost_after_ms", absl::StrCat(absl::ToInt64Milliseconds(options.lost_after))});
  if (options.rank != 0) return Join(options, std::move(own));
  BEAMLINE_ASSIGN_OR_RETURN(Socket listener, Listen({options.address, options.port}, "parallel.port"));
  return Gathering(options, std::move(own), Lobby(std::move(listener))).Run();
}

}  // namespace beamline::parallel
