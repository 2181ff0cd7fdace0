// SPDX-License-Identifier: Apache-2.0
#include "runtime/vocabulary.h"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/safetensors.h"
#include "beamline/status.h"
#include "model/config.h"

namespace beamline::runtime {
namespace {

// Embedding rows are addressed by int32, and row 0 is taken.
constexpr int64_t kMaxIds = (int64_t{1} << 31) - 2;

constexpr char kPopularity[] = "item_popularity", kCounted[] = "counted_items";

std::vector<uint64_t> SortedUnique(std::vector<uint64_t> ids) {
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

absl::StatusOr<std::vector<uint64_t>> ReadIds(const SafetensorsFile& file, const std::string& tensor) {
  BEAMLINE_ASSIGN_OR_RETURN(const TensorView view, file.Get(tensor, DType::kU64, {-1}));
  const absl::Span<const uint64_t> ids = view.as<uint64_t>();
  if (static_cast<int64_t>(ids.size()) > kMaxIds) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.source(), ": tensor '", tensor, "' holds ", ids.size(), " ids, the limit is ", kMaxIds));
  }
  for (size_t i = 1; i < ids.size(); ++i) {
    if (ids[i - 1] < ids[i]) continue;
    return absl::InvalidArgumentError(absl::StrCat(file.source(), ": tensor '", tensor,
                                                   "' is not strictly ascending: [", i - 1, "] = ", ids[i - 1], ", [",
                                                   i, "] = ", ids[i], "; write it again with `beamline train`"));
  }
  return std::vector<uint64_t>(ids.begin(), ids.end());
}

// Other code indexes by them.
absl::Status CheckTokens(absl::Span<const int64_t> tokens, const std::string& source) {
  const int64_t rows = static_cast<int64_t>(tokens.size());
  const auto refuse = [&](const auto&... what) {
    return absl::InvalidArgumentError(absl::StrCat(source, ": tensor 'tokens' ", what...));
  };
  if (rows > model::kMaxT5Vocabulary) return refuse("has ", rows, " rows, the limit is ", model::kMaxT5Vocabulary);
  std::vector<bool> taken(rows, false);
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t token = tokens[row];
    if (token == -1) continue;
    if (token < 0 || token >= rows) {
      return refuse("row ", row, ": must be -1 or an id below the number of rows, ", rows, ", is ", token);
    }
    if (taken[token]) {
      const int64_t first = std::find(tokens.begin(), tokens.end(), token) - tokens.begin();
      return refuse("row ", row, ": is ", token, ", as row ", first, " is; no two rows may have one id");
    }
    taken[token] = true;
  }
  return absl::OkStatus();
}

absl::StatusOr<Vocabulary> IdsFromFile(const SafetensorsFile& file) {
  if (file.contains("tokens")) {
    BEAMLINE_ASSIGN_OR_RETURN(const TensorView view, file.Get("tokens"));
    const absl::Span<const int64_t> tokens = view.as<int64_t>();
    BEAMLINE_RETURN_IF_ERROR(CheckTokens(tokens, file.source()));
    return Vocabulary::OfTokens({tokens.begin(), tokens.end()});
  }
  BEAMLINE_ASSIGN_OR_RETURN(std::vector<uint64_t> items, ReadIds(file, "items"));
  BEAMLINE_ASSIGN_OR_RETURN(std::vector<uint64_t> authors, ReadIds(file, "authors"));
  return Vocabulary(std::move(items), std::move(authors));
}

absl::StatusOr<Vocabulary> FromFile(const SafetensorsFile& file) {
  std::vector<ExpectedTensor> expected;
  if (file.contains("tokens")) {
    expected = {{"tokens", {DType::kI64}, {-1}}};
  } else {
    expected = {{"items", {DType::kU64}, {-1}}, {"authors", {DType::kU64}, {-1}}};
  }
  const bool counted = file.contains(kCounted), has_popularity = counted || file.contains(kPopularity);
  if (has_popularity) expected.push_back({kPopularity, {DType::kU32}, {-1}});
  if (counted) expected.push_back({kCounted, {DType::kU64}, {-1}});
  BEAMLINE_RETURN_IF_ERROR(CheckTensors(file, expected));
  BEAMLINE_ASSIGN_OR_RETURN(Vocabulary vocabulary, IdsFromFile(file));
  if (!has_popularity) return vocabulary;
  std::vector<ItemId> items(vocabulary.items().begin(), vocabulary.items().end());
  if (counted) {
    BEAMLINE_ASSIGN_OR_RETURN(items, ReadIds(file, kCounted));
  }
  BEAMLINE_ASSIGN_OR_RETURN(const TensorView view,
                            file.Get(kPopularity, DType::kU32, {static_cast<int64_t>(items.size())}));
  const absl::Span<const uint32_t> counts = view.as<uint32_t>();
  vocabulary.SetPopularity(std::move(items), {counts.begin(), counts.end()});
  return vocabulary;
}

template <typename T>
void AddList(Sha256& digest, const std::vector<T>& values) {
  const uint64_t size = values.size();
  digest.Update({reinterpret_cast<const char*>(&size), sizeof(size)});
  digest.Update({reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)});
}

SafetensorsLimits Limits() {
  SafetensorsLimits limits;
  limits.allow_empty = true;  // a log without authors
  return limits;
}

}  // namespace

Vocabulary::Vocabulary(std::vector<ItemId> items, std::vector<uint64_t> authors)
    : items_(SortedUnique(std::move(items))), authors_(SortedUnique(std::move(authors))) {}

Vocabulary Vocabulary::OfTokens(std::vector<int64_t> tokens) {
  Vocabulary vocabulary;
  vocabulary.tokens_ = std::move(tokens);
  return vocabulary;
}

absl::StatusOr<Vocabulary> Vocabulary::Load(const std::string& path) {
  BEAMLINE_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Read(path, Limits()));
  return FromFile(file);
}

absl::StatusOr<Vocabulary> Vocabulary::Parse(absl::string_view bytes, const std::string& name) {
  BEAMLINE_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Parse(bytes, name, Limits()));
  return FromFile(file);
}

absl::Status Vocabulary::Save(const std::string& path) const {
  SafetensorsWriter writer;
  const auto add = [&](const char* name, const auto& values) {
    using T = std::decay_t<decltype(values[0])>;
    return writer.Add<T>(name, {static_cast<int64_t>(values.size())}, absl::MakeConstSpan(values));
  };
  if (!tokens_.empty()) {
    BEAMLINE_RETURN_IF_ERROR(add("tokens", tokens_));
  } else {
    BEAMLINE_RETURN_IF_ERROR(add("items", items_));
    BEAMLINE_RETURN_IF_ERROR(add("authors", authors_));
  }
  if (!counted_.empty()) BEAMLINE_RETURN_IF_ERROR(add(kCounted, counted_));
  if (!popularity_.empty()) BEAMLINE_RETURN_IF_ERROR(add(kPopularity, popularity_));
  return writer.Write(path);
}

void Vocabulary::SetPopularity(std::vector<ItemId> items, std::vector<uint32_t> counts) {
  counted_ = items == items_ ? std::vector<ItemId>() : std::move(items);
  popularity_ = std::move(counts);
}

uint32_t Vocabulary::Popularity(ItemId item) const {
  const uint32_t index = IndexOf(counted_.empty() ? items_ : counted_, item);
  return index == 0 || popularity_.empty() ? 0 : popularity_[index - 1];
}

std::string Vocabulary::Fingerprint() const {
  Sha256 digest;
  AddList(digest, items_);
  AddList(digest, authors_);
  AddList(digest, tokens_);
  return digest.HexDigest();
}

uint32_t Vocabulary::IndexOf(const std::vector<uint64_t>& sorted, uint64_t id) {
  const auto found = std::lower_bound(sorted.begin(), sorted.end(), id);
  if (found == sorted.end() || *found != id) return 0;
  return static_cast<uint32_t>(found - sorted.begin()) + 1;
}

}  // namespace beamline::runtime
