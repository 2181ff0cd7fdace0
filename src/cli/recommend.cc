// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <google/protobuf/util/json_util.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/utf8.h"
#include "beamline/status.h"
#include "cli/client.h"
#include "cli/client_output.h"
#include "cli/history_input.h"
#include "cli/verb.h"

namespace beamline::cli {
namespace {

struct Options {
  std::string target = "127.0.0.1:50051";
  std::string user, items, history, data, deny, allow, priority, request_id;
  std::vector<std::string> rules, attributes;
  std::vector<uint32_t> beams;
  uint32_t top_k = 10;
  uint32_t items_per_sid = 1;
  uint32_t max_per_author = 0;
  int max_history = 512;
  int timeout_ms = 5000;
  int shown = 5;
  bool exclude_history = false, json = false, status = false;
  TlsFlags tls;
  Option* allow_option = nullptr;
};

absl::StatusOr<UserInput> ReadInput(const Options& options) {
  UserInput input;
  if (!options.data.empty()) {
    BEAMLINE_ASSIGN_OR_RETURN(input, ReadUserFromData(options.data, options.user, options.max_history));
  } else if (!options.history.empty()) {
    BEAMLINE_ASSIGN_OR_RETURN(input.history, ReadHistoryFile(options.history));
  } else {
    BEAMLINE_ASSIGN_OR_RETURN(const std::vector<ItemId> items, ParseItemList(options.items, "--items"));
    for (const ItemId item : items) input.history.push_back({item});
  }
  for (const std::string& attribute : options.attributes) {
    if (const size_t equals = attribute.find('='); equals == std::string::npos || equals == 0) {
      return absl::InvalidArgumentError(absl::StrCat("--attribute: \"", attribute, "\" is not NAME=VALUE"));
    }
    std::pair<std::string, std::string> pair = absl::StrSplit(attribute, absl::MaxSplits('=', 1));
    input.attributes.push_back({std::move(pair.first), std::move(pair.second)});
  }
  return input;
}

absl::Status FillEligibility(const Options& options, v1::Eligibility* eligibility) {
  BEAMLINE_ASSIGN_OR_RETURN(const std::vector<ItemId> deny, ParseItemList(options.deny, "--deny"));
  eligibility->mutable_deny_item_ids()->Assign(deny.begin(), deny.end());
  if (options.allow_option->given()) {
    BEAMLINE_ASSIGN_OR_RETURN(const std::vector<ItemId> allow, ParseItemList(options.allow, "--allow"));
    eligibility->mutable_allow()->mutable_item_ids()->Assign(allow.begin(), allow.end());
  }
  for (const std::string& rule : options.rules) {
    const size_t equals = rule.find('=');
    if (equals == std::string::npos || equals == 0) {
      return absl::InvalidArgumentError(absl::StrCat("--rule: \"", rule, "\" is not KEY=VALUE[,VALUE...]"));
    }
    v1::Eligibility::TagClause& clause = *eligibility->add_rule();
    clause.set_key(rule.substr(0, equals));
    for (absl::string_view value : absl::StrSplit(rule.substr(equals + 1), ',')) clause.add_any_of(std::string(value));
  }
  return absl::OkStatus();
}

// Protobuf sends no other text.
absl::Status CheckText(absl::string_view flag, absl::string_view text) {
  if (IsUtf8(text)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(flag, ": '", absl::CHexEscape(text), "' is not UTF-8"));
}

absl::StatusOr<v1::RecommendRequest> MakeRequest(const Options& options, const UserInput& input) {
  BEAMLINE_RETURN_IF_ERROR(CheckText("--user", options.user));
  BEAMLINE_RETURN_IF_ERROR(CheckText("--request-id", options.request_id));
  for (const std::string& text : options.attributes) BEAMLINE_RETURN_IF_ERROR(CheckText("--attribute", text));
  for (const std::string& text : options.rules) BEAMLINE_RETURN_IF_ERROR(CheckText("--rule", text));
  v1::RecommendRequest request;
  request.set_request_id(options.request_id);
  request.set_user_id(options.user);
  FillUser(input.history, input.attributes, &request);
  request.set_top_k(options.top_k);
  request.set_items_per_sid(options.items_per_sid);
  request.set_max_per_author(options.max_per_author);
  request.mutable_beam_widths()->Assign(options.beams.begin(), options.beams.end());
  request.set_exclude_history(options.exclude_history);
  BEAMLINE_RETURN_IF_ERROR(FillEligibility(options, request.mutable_eligibility()));
  if (options.priority == "sheddable") request.set_priority(v1::PRIORITY_SHEDDABLE);
  if (options.priority == "critical") request.set_priority(v1::PRIORITY_CRITICAL);
  return request;
}

// What the catalogue knows of the items that will be shown.
absl::StatusOr<ItemsById> LookUp(Client& client, const UserInput& input, size_t shown,
                                 const v1::RecommendResponse& response) {
  std::vector<ItemId> wanted;
  const size_t first = input.history.size() - std::min(shown, input.history.size());
  for (size_t i = first; i < input.history.size(); ++i) wanted.push_back(input.history[i].item);
  for (const v1::RecommendedItem& item : response.items()) wanted.push_back(item.item_id());
  ItemsById items;
  for (const ItemId id : wanted) {
    if (items.contains(id)) continue;
    BEAMLINE_ASSIGN_OR_RETURN(std::optional<v1::Item> item, client.GetItem(id));
    if (item) items.emplace(id, *std::move(item));
  }
  return items;
}

absl::Status PrintJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions print;
  print.add_whitespace = true;
  print.preserve_proto_field_names = true;
  std::string text;
  if (!google::protobuf::util::MessageToJsonString(message, &text, print).ok()) {
    return absl::InternalError("the answer cannot be written as JSON");
  }
  std::fputs(text.c_str(), stdout);
  return absl::OkStatus();
}

absl::Status Run(const Options& options) {
  BEAMLINE_ASSIGN_OR_RETURN(Client client,
                            Client::Create(options.target, absl::Milliseconds(options.timeout_ms), options.tls));
  if (options.status) {
    BEAMLINE_ASSIGN_OR_RETURN(const v1::GetStatusResponse status, client.GetStatus());
    if (options.json) return PrintJson(status);
    std::fputs(FormatStatus(status).c_str(), stdout);
    return absl::OkStatus();
  }
  if (!options.data.empty() && options.user.empty()) {
    return absl::InvalidArgumentError("--data: say whose history to take with --user");
  }
  BEAMLINE_ASSIGN_OR_RETURN(const UserInput input, ReadInput(options));
  if (input.history.empty() && options.user.empty()) {
    return absl::InvalidArgumentError(
        "nobody to recommend to: name a user (--user) or some events (--items, --history)");
  }
  BEAMLINE_ASSIGN_OR_RETURN(const v1::RecommendRequest request, MakeRequest(options, input));
  BEAMLINE_ASSIGN_OR_RETURN(const v1::RecommendResponse response, client.Recommend(request));
  if (options.json) return PrintJson(response);
  BEAMLINE_ASSIGN_OR_RETURN(const ItemsById items, LookUp(client, input, options.shown, response));
  if (!options.user.empty()) std::printf("user %s, ", options.user.c_str());
  std::fputs(FormatHistory(input.history, options.shown, items).c_str(), stdout);
  std::fputs(FormatRecommendations(response, items).c_str(), stdout);
  return absl::OkStatus();
}

void AddUserOptions(Command* command, Options* options) {
  const char* const group = "Whom for";
  command->AddText("--user", options->user, "User id, opaque to the server")->Group(group);
  Option* data = command->AddText("--data", options->data, "Take --user's history and attributes from this data folder")
                     ->TypeName("DIR")
                     ->Group(group);
  Option* history =
      command
          ->AddText("--history", options->history,
                    "Events, oldest first, one per line: item_id [timestamp_ms [play_time_ms [label|label...]]]; "
                    "- reads standard input")
          ->TypeName("FILE|-")
          ->Group(group);
  Option* items = command->AddText("--items,--item", options->items, "Item ids seen, oldest first: 1,2,3")
                      ->TypeName("IDS")
                      ->Group(group);
  data->Excludes(history)->Excludes(items);
  history->Excludes(items);
  command->AddTexts("--attribute", options->attributes, "User attribute; may be repeated")
      ->TypeName("NAME=VALUE")
      ->Group(group);
  command->AddNumber("--max-history", options->max_history, {1, 1e6}, "Newest events taken from --data")
      ->ShowDefault()
      ->Group(group);
}

void AddSearchOptions(Command* command, Options* options) {
  const char* const group = "What";
  command->AddNumber("--top-k", options->top_k, {}, "Items wanted; the server has a limit")
      ->ShowDefault()
      ->Group(group);
  command->AddNumber("--beam", options->beams, {}, "Beams kept: one width, or one per level: 64,128,128")
      ->Separator(',')
      ->TypeName("N[,N...]")
      ->Group(group);
  command->AddNumber("--items-per-sid", options->items_per_sid, {}, "Items taken from one SID")
      ->ShowDefault()
      ->Group(group);
  command->AddNumber("--max-per-author", options->max_per_author, {}, "Items of one author; 0: any number")
      ->ShowDefault()
      ->Group(group);
  command->AddFlag("--exclude-history", options->exclude_history, "Never recommend what the history holds")
      ->Group(group);
  command->AddText("--deny", options->deny, "Items never to recommend: 1,2,3")->TypeName("IDS")->Group(group);
  options->allow_option =
      command->AddText("--allow", options->allow, "Recommend nothing else: 1,2,3; \"\" allows nothing")
          ->TypeName("IDS")
          ->Group(group);
  command->AddTexts("--rule", options->rules, "Items must carry one of these tag values; repeat for further clauses")
      ->TypeName("KEY=V1,V2")
      ->Group(group);
  command->AddText("--priority", options->priority, "Who waits when the server is loaded")
      ->OneOf({"sheddable", "default", "critical"})
      ->Group(group);
}

}  // namespace

Verb AddRecommend(Command& root) {
  auto options = std::make_shared<Options>();
  Command* command = root.AddCommand("recommend", "Ask a running server: ranked videos for a user, or its status");
  command->AddText("--target", options->target, "Server")->ShowDefault()->TypeName("HOST:PORT");
  command->AddNumber("--timeout-ms", options->timeout_ms, {1, 3'600'000}, "Deadline of each call")->ShowDefault();
  command->AddText("--request-id", options->request_id, "Comes back in the answer; default: the server makes one");
  command->AddNumber("--show", options->shown, {0, 1e6}, "Events of the history to print")->ShowDefault();
  command->AddFlag("--json", options->json, "Print the answer as JSON");
  command->AddFlag("--status", options->status, "Print what the server has loaded instead");
  AddUserOptions(command, options.get());
  AddSearchOptions(command, options.get());
  AddTlsFlags(command, &options->tls);
  command->Footer(R"(Examples:
  beamline recommend --user 7 --data data --top-k 5 --beam 64
  beamline recommend --items 4258,4073,1725 --exclude-history --rule tag=39,12 --deny 88
  printf '42 1650000000000 9500 click|long_view\n43\n' | beamline recommend --history -
  beamline recommend --status
  beamline recommend --target videos.example.com:443 --tls-ca ca.pem --status

The same with grpcurl:
  grpcurl -plaintext -d '{"user_id": "7", "history": [{"item_id": 42}, {"item_id": 43}], "top_k": 5,
    "beam_widths": [64], "eligibility": {"deny_item_ids": [88], "rule": [{"key": "tag", "any_of": ["39", "12"]}]}}' \
    127.0.0.1:50051 beamline.v1.RecommendService/Recommend
  grpcurl -plaintext -d '{"item_id": 42}' 127.0.0.1:50051 beamline.v1.CatalogueService/GetItem
  grpcurl -plaintext 127.0.0.1:50051 beamline.v1.ModelService/GetStatus)");
  return {command, [options] { return Run(*options); }};
}

}  // namespace beamline::cli
