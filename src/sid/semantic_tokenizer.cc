// SPDX-License-Identifier: Apache-2.0
#include "sid/semantic_tokenizer.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/interrupt.h"
#include "beamline/status.h"
#include "sid/centroid_search.h"

namespace beamline::sid {

absl::StatusOr<SemanticTokenizer> SemanticTokenizer::Create(Codebook codebook) {
  if (!codebook.has_centroids()) {
    return absl::FailedPreconditionError(
        absl::StrCat("codebook '", codebook.name(), "' came from an index file without centroids and cannot encode"));
  }
  return SemanticTokenizer(std::move(codebook));
}

absl::Status SemanticTokenizer::Occupy(absl::Span<const Sid> sids) {
  for (const Sid& sid : sids) BEAMLINE_RETURN_IF_ERROR(codebook_.CheckSid(sid));
  for (const Sid& sid : sids) ++occupancy_[sid];
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Sid>> SemanticTokenizer::EncodeNew(const FloatMatrix& vectors, int max_items_per_sid,
                                                              const EncodeRun& run) {
  if (max_items_per_sid < 1) {
    return absl::InvalidArgumentError(absl::StrCat("max_items_per_sid is ", max_items_per_sid, ", must be at least 1"));
  }
  BEAMLINE_ASSIGN_OR_RETURN(std::vector<Sid> sids, Encode(vectors, run.pool, run.progress));
  const int last = codebook_.levels() - 1;
  const CentroidSearch search(codebook_.centroids(last));
  std::vector<LaneFloats> scores(search.blocks());
  std::vector<float> residual(codebook_.dim());
  for (int64_t i = 0; i < vectors.rows; ++i) {
    if (i % 4096 == 0) BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
    const auto taken = occupancy_.find(sids[i]);
    if (taken != occupancy_.end() && taken->second >= max_items_per_sid) {
      residual.assign(vectors.row(i), vectors.row(i) + vectors.cols);
      for (int level = 0; level < last; ++level) {
        const float* centroid = codebook_.centroids(level).row(sids[i][level]);
        for (int64_t d = 0; d < vectors.cols; ++d) residual[d] -= centroid[d];
      }
      search.Scores(residual.data(), 0, search.blocks(), scores.data());
      float best = std::numeric_limits<float>::infinity();
      const Sid prefix(sids[i].codes().first(last));
      for (Code code = 0; code < search.size(); ++code) {
        const float score = scores[code / kLanes].values[code % kLanes];
        if (!(score < best)) continue;
        Sid candidate = prefix;
        candidate.push_back(code);
        const auto it = occupancy_.find(candidate);
        if (it != occupancy_.end() && it->second >= max_items_per_sid) continue;
        best = score;
        sids[i] = candidate;
      }
    }
    ++occupancy_[sids[i]];
  }
  return sids;
}

absl::StatusOr<std::vector<Sid>> SemanticTokenizer::EncodeBeside(const SidTable& known, const ItemVectors& items,
                                                                 int max_items_per_sid, const EncodeRun& run) {
  absl::flat_hash_map<ItemId, Sid> sid_of;
  for (size_t i = 0; i < known.items.size(); ++i) sid_of.emplace(known.items[i], known.sids[i]);
  BEAMLINE_RETURN_IF_ERROR(Occupy(known.sids));
  FloatMatrix added(0, items.vectors.cols);
  for (int64_t i = 0; i < items.vectors.rows; ++i) {
    if (sid_of.contains(items.items[i])) continue;
    added.values.insert(added.values.end(), items.vectors.row(i), items.vectors.row(i + 1));
    ++added.rows;
  }
  BEAMLINE_ASSIGN_OR_RETURN(const std::vector<Sid> fresh, EncodeNew(added, max_items_per_sid, run));
  std::vector<Sid> sids;
  size_t next = 0;
  for (const ItemId item : items.items) {
    const auto it = sid_of.find(item);
    sids.push_back(it != sid_of.end() ? it->second : fresh[next++]);
  }
  return sids;
}

}  // namespace beamline::sid
