// SPDX-License-Identifier: Apache-2.0
#include "runtime/group_message.h"

#include <cstring>
#include <type_traits>

namespace beamline::runtime {
namespace {

// One order of fields for both directions: Visit names every field once.
class GroupWriter {
 public:
  template <typename T>
  void operator()(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  void operator()(const std::string& text) { Append(text.data(), text.size(), 1); }
  template <typename T>
  void operator()(const std::vector<T>& values) {
    Append(values.data(), values.size(), sizeof(T));
  }
  std::string Take() { return std::move(bytes_); }

 private:
  void Append(const void* data, uint64_t count, size_t size) {
    (*this)(count);
    if (count > 0) bytes_.append(static_cast<const char*>(data), count * size);
  }
  std::string bytes_;
};

class GroupReader {
 public:
  explicit GroupReader(absl::string_view bytes) : bytes_(bytes) {}

  template <typename T>
  void operator()(T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    const absl::string_view taken = Take(1, sizeof(value));
    if (!taken.empty()) std::memcpy(&value, taken.data(), sizeof(value));
  }
  void operator()(std::string& text) { text = std::string(TakeCounted(1)); }
  template <typename T>
  void operator()(std::vector<T>& values) {
    const absl::string_view taken = TakeCounted(sizeof(T));
    values.resize(taken.size() / sizeof(T));
    if (!taken.empty()) std::memcpy(values.data(), taken.data(), taken.size());
  }
  bool whole() const { return good_ && bytes_.empty(); }

 private:
  absl::string_view TakeCounted(size_t size) {
    uint64_t count = 0;
    (*this)(count);
    return Take(count, size);
  }
  absl::string_view Take(uint64_t count, size_t size) {
    good_ = good_ && count <= bytes_.size() / size;
    if (!good_) return {};
    const absl::string_view taken = bytes_.substr(0, count * size);
    bytes_.remove_prefix(taken.size());
    return taken;
  }
  absl::string_view bytes_;
  bool good_ = true;
};

template <typename Message, typename Visitor>
void Visit(Message& message, Visitor& visit) {
  visit(message.command);
  visit(message.model);
  visit(message.released);
  visit(message.bundle);
  visit(message.digest);
  visit(message.tuning);
  visit(message.input.batch);
  visit(message.input.static_features);
  for (auto& pathway : message.input.pathways) {
    visit(pathway.length);
    visit(pathway.features);
  }
  visit(message.input.positions);
  visit(message.input.order);
  visit(message.first_context);
  visit(message.contexts);
  visit(message.level);
  visit(message.rows);
  visit(message.codes);
  visit(message.parents);
}

}  // namespace

std::string SerializeGroupMessage(const GroupMessage& message) {
  GroupWriter writer;
  Visit(message, writer);
  return writer.Take();
}

absl::StatusOr<GroupMessage> ParseGroupMessage(absl::string_view bytes) {
  GroupMessage message;
  GroupReader reader(bytes);
  Visit(message, reader);
  if (!reader.whole() || message.command > GroupCommand::kEndDecode) {
    return absl::InternalError("the group: rank 0 sent what is no message");
  }
  return message;
}

std::string SerializeLoadAnswer(const LoadAnswer& answer) {
  GroupWriter writer;
  writer(answer.model);
  writer(static_cast<int32_t>(answer.status.code()));
  writer(std::string(answer.status.message().substr(0, 16 << 10)));
  return writer.Take();
}

absl::StatusOr<LoadAnswer> ParseLoadAnswer(absl::string_view bytes) {
  LoadAnswer answer;
  int32_t code = 0;
  std::string message;
  GroupReader reader(bytes);
  reader(answer.model);
  reader(code);
  reader(message);
  if (!reader.whole()) return absl::InternalError("the group: a rank sent what is no answer");
  answer.status = absl::Status(static_cast<absl::StatusCode>(code), message);
  return answer;
}

}  // namespace beamline::runtime
