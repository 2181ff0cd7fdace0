// SPDX-License-Identifier: Apache-2.0
//
// What rank 0 tells the ranks that follow it: which model to load or to forget, and, batch by batch, what to run on it.
// They see inputs and the beams it has chosen, never users, catalogues or deadlines. Plain values; a message is bytes
// of this machine's order. Between two processes of one version and commit: the group compares them at the start
// (GroupSettings).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/inputs.h"

namespace beamline::runtime {

// Changes with the messages and with what ranks compute.
inline constexpr int kGroupProtocol = 2;

enum class GroupCommand : uint8_t {
  kLoad,         // bundle, digest; answered by a note, LoadAnswer
  kUnload,       //
  kTuning,       // tuning: what rank 0's backend measured (backend.h, AdoptTuning), for all models
  kEncode,       // input; its rows become contexts first_context, first_context + 1, ...
  kBeginDecode,  // contexts, in batch order
  kStep,         // level; from level 1 on codes and parents [batch, rows]
  kEndDecode,    //
};

struct GroupMessage {
  GroupCommand command = GroupCommand::kUnload;
  uint64_t model = 0;              // rank 0's number for it
  std::vector<uint64_t> released;  // contexts of the model that nobody will ask for again

  std::string bundle;  // empty: the one that the rank was configured with
  std::string digest;  // of the bundle: runtime::IdentifyBundle
  std::string tuning;
  model::EncoderInput input;
  uint64_t first_context = 0;
  std::vector<uint64_t> contexts;
  int32_t level = 0;
  int32_t rows = 0;
  std::vector<int32_t> codes, parents;
};

std::string SerializeGroupMessage(const GroupMessage& message);
// INTERNAL: the bytes are no message. Nothing is allocated from a size that the bytes do not bear out.
absl::StatusOr<GroupMessage> ParseGroupMessage(absl::string_view bytes);

// Whether a rank could load a model.
struct LoadAnswer {
  uint64_t model = 0;
  absl::Status status;
};
std::string SerializeLoadAnswer(const LoadAnswer& answer);
absl::StatusOr<LoadAnswer> ParseLoadAnswer(absl::string_view bytes);

}  // namespace beamline::runtime
