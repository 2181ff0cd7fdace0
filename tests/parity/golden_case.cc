// SPDX-License-Identifier: Apache-2.0
#include "parity/golden_case.h"

#include <algorithm>
#include <system_error>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/safetensors.h"
#include "beamline/status.h"
#include "sid/codebook.h"

namespace beamline::parity {
namespace {

namespace fs = std::filesystem;

absl::StatusOr<absl::Span<const int32_t>> Ints(const SafetensorsFile& file, const std::string& name) {
  BEAMLINE_ASSIGN_OR_RETURN(const TensorView view, file.Get(name));
  if (view.dtype != DType::kI32) return absl::InvalidArgumentError(absl::StrCat(name, ": ", view.ToString()));
  return view.as<int32_t>();
}

absl::Status ReadOptions(const SafetensorsFile& file, const fs::path& folder, runtime::ImportHfOptions& options) {
  BEAMLINE_ASSIGN_OR_RETURN(const std::string index, file.GetMetadata("index"));
  BEAMLINE_ASSIGN_OR_RETURN(options.dialect, file.GetMetadata("dialect"));
  BEAMLINE_ASSIGN_OR_RETURN(const std::string score_end, file.GetMetadata("score_end"));
  BEAMLINE_ASSIGN_OR_RETURN(const std::string max_items, file.GetMetadata("max_items"));
  BEAMLINE_ASSIGN_OR_RETURN(const std::string levels, file.GetMetadata("levels"));
  BEAMLINE_ASSIGN_OR_RETURN(options.index.level_sizes, sid::ParseLevelSizes(levels));
  options.folder = folder / "hf";
  options.sid_index = (folder / index).string();
  options.index.id_offset = 1;
  options.score_end = score_end == "1";
  if (!absl::SimpleAtoi(max_items, &options.max_items)) return absl::InvalidArgumentError("max_items");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GoldenCase> ReadGoldenCase(const fs::path& folder) {
  GoldenCase golden;
  golden.name = folder.filename().string();
  BEAMLINE_ASSIGN_OR_RETURN(const SafetensorsFile file,
                            SafetensorsFile::Read((folder / "golden.safetensors").string()));
  BEAMLINE_RETURN_IF_ERROR(ReadOptions(file, folder, golden.import));
  BEAMLINE_ASSIGN_OR_RETURN(const auto tokens, Ints(file, "tokens"));
  BEAMLINE_ASSIGN_OR_RETURN(const auto lengths, Ints(file, "lengths"));
  BEAMLINE_ASSIGN_OR_RETURN(const auto history, Ints(file, "history"));
  BEAMLINE_ASSIGN_OR_RETURN(const auto widths, Ints(file, "widths"));
  BEAMLINE_ASSIGN_OR_RETURN(const auto counts, Ints(file, "counts"));
  BEAMLINE_ASSIGN_OR_RETURN(const auto codes, Ints(file, "codes"));
  BEAMLINE_ASSIGN_OR_RETURN(const TensorView scores, file.Get("scores"));
  BEAMLINE_ASSIGN_OR_RETURN(const TensorView gaps, file.Get("cut_gaps"));
  TensorView doubles;  // sets made before it was written have none
  if (file.contains("scores_in_double")) {
    BEAMLINE_ASSIGN_OR_RETURN(doubles, file.Get("scores_in_double"));
  }
  const size_t count = lengths.size(), levels = golden.import.index.level_sizes.size();
  size_t row = 0;
  for (size_t i = 0; i < count; ++i) {
    GoldenRequest request;
    const auto* own_tokens = tokens.data() + i * tokens.size() / count;
    request.tokens.assign(own_tokens, own_tokens + lengths[i]);
    for (size_t j = 0; j < history.size() / count; ++j) {
      const int32_t item = history[i * history.size() / count + j];
      if (item != 0) request.history.push_back(item);
    }
    request.width = widths[i];
    request.expected.cut_gap = gaps.as<float>()[i];
    for (int32_t entry = 0; entry < counts[i]; ++entry, ++row) {
      Scored scored{.score = scores.as<float>()[row]};
      for (size_t level = 0; level < levels; ++level) scored.sid.push_back(codes[row * levels + level]);
      request.expected.entries.push_back(scored);
      if (doubles.elements() > 0) request.expected.in_double.push_back(doubles.as<double>()[row]);
    }
    golden.requests.push_back(std::move(request));
  }
  if (count == 0 || row * levels != codes.size()) {
    return absl::InvalidArgumentError(absl::StrCat(folder.string(), ": counts do not fit codes"));
  }
  return golden;
}

std::vector<fs::path> CaseFolders(const fs::path& folder) {
  std::vector<fs::path> folders;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    if (fs::exists(entry.path() / "golden.safetensors", error)) folders.push_back(entry.path());
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

}  // namespace beamline::parity
