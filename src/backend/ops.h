// SPDX-License-Identifier: Apache-2.0
//
// The op set: all that model, decode and runtime may do with tensors. Ops are of sublayer size; each dispatches to the
// context's Backend. Activations are 2-D rows `[rows, d]` in the context's dtype; where rows belong to a batch they are
// batch-major. Ids are int32. Sizes are capacities: padded rows and tokens hold valid ids and are masked or ignored.
//
// One rule of visibility everywhere: every token has an `order`, a query with limit q sees key j iff order[j] <= q.
// Static tokens have order -1, event i of the window order i, padding kPaddingOrder. A query that sees nothing gets 0.
//
// REQUIRES: shapes as stated, ids inside their tables. Errors of ATen (shapes, memory) are c10::Error exceptions: the
// runtime and the trainer catch them at their border. In aten all ops but the state ops are differentiable.
#pragma once

#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "backend/context.h"
#include "backend/device_search.h"
#include "backend/op_types.h"

namespace beamline::backend {

using at::Tensor;

inline constexpr int32_t kPaddingOrder = std::numeric_limits<int32_t>::max();
inline constexpr int32_t kSeesAllOrders = kPaddingOrder - 1;  // a limit that sees everything but padding

// -- Host data ---------------------------------------------------------------------------------------------------
Tensor UploadInts(Context& ctx, absl::Span<const int32_t> values, absl::Span<const int64_t> shape);
Tensor UploadFloats(Context& ctx, absl::Span<const float> values, absl::Span<const int64_t> shape);  // stays fp32
Tensor UploadWeight(Context& ctx, absl::Span<const float> values, absl::Span<const int64_t> shape);  // to ctx.dtype
std::vector<int32_t> DownloadInts(Context& ctx, const Tensor& ints);
std::vector<float> DownloadFloats(Context& ctx, const Tensor& floats);  // any float dtype, row-major

// -- Embeddings --------------------------------------------------------------------------------------------------
// Column c of features [batch, length, columns] looked up in tables[c]: [batch * length, sum of widths], or, summed,
// [batch * length, width].
Tensor EmbedFeatures(Context& ctx, absl::Span<const FeatureTable> tables, FeatureFusion fusion, const Tensor& features);
// Pathways [batch * length_i, d] side by side plus position_table[positions]; dropout. -> [batch * tokens, d]. An
// undefined table adds nothing; `positions` [batch, tokens] still tells the shape.
Tensor JoinTokens(Context& ctx, absl::Span<const Tensor> pathways, const Tensor& position_table,
                  const Tensor& positions);
// [BOS] + the first steps - 1 codes of codes [batch, targets, levels]; dropout. -> [batch * targets * steps, d].
// REQUIRES: steps <= levels + 1.
Tensor EmbedPrefix(Context& ctx, const CodeEmbedding& embedding, const Tensor& codes, int steps);
// Input of one decode step: BOS of each of of.batch requests at of.level 0, else codes [batch, rows] of the level
// before.
Tensor EmbedStep(Context& ctx, const CodeEmbedding& embedding, const LevelRows& of, const Tensor& codes);
// Trunk input: position rows alone, once per group. -> [groups * levels, d]
Tensor EmbedPositions(Context& ctx, const Tensor& positions, int64_t groups);
// The trunk's row of a level, repeated for the beams of each request: trunk [batch * levels, d] -> [batch * rows, d]
Tensor TrunkRows(Context& ctx, const Tensor& trunk, const LevelRows& of, int64_t rows);
// trunk + sigmoid(W [trunk; code] + b) * code, all [rows, d], W [d, 2 d]
Tensor GatedFusion(Context& ctx, const Tensor& trunk, const Tensor& code, const DenseWeights& gate);

// -- Norm, dense, feed-forward -----------------------------------------------------------------------------------
Tensor RmsNorm(Context& ctx, const Tensor& x, const Tensor& weight, double epsilon);
Tensor Dense(Context& ctx, const Tensor& x, const DenseWeights& w, Activation activation = Activation::kNone);
Tensor FeedForward(Context& ctx, const Tensor& x, const FeedForwardWeights& w);
Tensor MoeFeedForward(Context& ctx, const Tensor& x, const MoeWeights& w);
Tensor Residual(Context& ctx, const Tensor& x, const Tensor& delta);  // x + dropout(delta)
Tensor Dropout(Context& ctx, const Tensor& x);                        // x itself outside of training
// The head over a level's rows of x [batch * rows * levels, d].
// -> fp32 [batch, rows, vocab], fp32 accumulators never rounded to the context's dtype
Tensor LevelHead(Context& ctx, const Tensor& x, const HeadWeights& head, const LevelRows& of);

// -- Ranks (tensor parallelism, 1909.08053) -------------------------------------------------------------------------
// Heads, feed-forward columns and vocabularies are shared among the ranks; where all of them need the whole, these put
// it together. Without a communicator every one of them is its argument. See communicator.h for the order of sums.
// What each rank has of the same rows, added up, in place. x [rows, d]
Tensor AllReduce(Context& ctx, const Tensor& x);
// Each rank's columns side by side. own [batch, rows, columns of the rank] -> [batch, rows, columns]
Tensor AllGather(Context& ctx, const Tensor& own, int64_t columns);
// The rows of a weight that every rank holds whole which are this rank's to multiply with: of [rows, ...], a view.
Tensor RowsOfRank(const Tensor& weight, parallel::Shard shard);

// -- Attention ---------------------------------------------------------------------------------------------------
// Scores are scaled and get a relative bias as the weights say; a row's place in its sequence is its position: the
// token's in SelfAttention, the row's in its run of `length`, the step in LineageAttention.
// Masks are opaque to the caller; made once per pass, used by every layer.
// limit [batch, groups], each for `repeat` consecutive query rows.
Tensor VisibilityMask(Context& ctx, const Tensor& order, const Tensor& limit, int repeat);
// Every query sees all but padding.
Tensor PaddingMask(Context& ctx, const Tensor& order);
// Encoder: x [batch * tokens, d], packed [rows, d] -> same, with the same bits of each row but in aten.
Tensor SelfAttention(Context& ctx, const Tensor& x, const SelfAttentionWeights& w, const TokenView& view);
// x [batch * tokens, width] -> [rows, width]; packed rows -> [batch * tokens, width]. What is of nobody is zeros; x
// itself where there is nothing to do.
Tensor PackTokens(Context& ctx, const Tensor& x, const TokenPacking& packing);
Tensor UnpackTokens(Context& ctx, const Tensor& x, const TokenPacking& packing);
// Decoder, teacher-forced: each run of `length` rows attends causally to itself. x [groups * length, d] -> same
Tensor CausalSelfAttention(Context& ctx, const Tensor& x, const SelfAttentionWeights& w, int length);
// x [batch * tokens, d], packed [rows, d] -> [batch, tokens, 2 * heads * head_dim]
Tensor ContextKeyValue(Context& ctx, const Tensor& x, const CrossAttentionWeights& w, const ContextRows& of);
// x [batch * rows, d] -> same
Tensor CrossAttention(Context& ctx, const Tensor& x, const CrossAttentionWeights& w, const ContextView& context);

// -- State (inference) -------------------------------------------------------------------------------------------
// lineage [batch, parent rows, steps] or undefined, parents [batch, rows] -> [batch, rows, steps + 1]: for every row,
// the row its ancestor had in each step.
Tensor ExtendLineage(Context& ctx, const Tensor& lineage, const Tensor& parents);
// x [batch * rows, d] attends to its ancestors and itself; unless it is the last step, its key and value are appended
// to the cache.
Tensor LineageAttention(Context& ctx, const Tensor& x, const SelfAttentionWeights& w, const LineageStep& step);
// Of each of xs [batch, capacity, ...] the entries of row `row` whose order is not kPaddingOrder, copied. -> of each
// [count, ...]
std::vector<Tensor> TakeVisible(Context& ctx, absl::Span<const Tensor> xs, const Tensor& order, int64_t row);
// Rows [count_i, ...] padded with `fill` to `capacity` and stacked; of an undefined tensor, but the first, nothing but
// `fill`. -> [rows.size(), capacity, ...]
Tensor StackPadded(Context& ctx, absl::Span<const Tensor> rows, int64_t capacity, int32_t fill);
// The same of as many rows for each of `stacks` stacks, those of one behind those of the one before, with zeros. What
// is undefined in one is so in all. -> of each [rows.size() / stacks, capacity, ...]
std::vector<Tensor> StackAllPadded(Context& ctx, absl::Span<const Tensor> rows, int64_t stacks, int64_t capacity);
// Rows [first, first + count) of x, copied out of the batch. -> [count, ...]
Tensor TakeRows(Context& ctx, const Tensor& x, int64_t first, int64_t count);
// Parts [count_i, ...] one after the other. -> [sum of counts, ...]
Tensor JoinRows(Context& ctx, absl::Span<const Tensor> parts);

// -- Selection ---------------------------------------------------------------------------------------------------
// kernels::BeamSelectCpu per request; the answer depends on nothing but the request. Logits leave the device inside.
void SelectBeams(Context& ctx, const SelectBeamsArgs& args);
// The ranker's value of every beam of the last level (RankerWeights): fp32 sums whatever the states' dtype, in an order
// that depends on the width alone (in aten, the oracle, on how many there are, too).
void RankBeams(Context& ctx, const RankBeamsArgs& args);
// The ranker's logits of single candidates, differentiable, of aten alone: states [n, width], codes int32 [n].
// -> fp32 [n, heads]
Tensor RankerLogits(Context& ctx, const Tensor& states, const RankerWeights& w, const Tensor& codes);
// Runs `body`, a pass that enqueues work on `inputs` alone and returns its results: a backend with graphs repeats what
// an earlier body of the same name did for inputs of the same shapes, on copies of these, and does not call this one.
// So all that a pass depends on is in its name (weights, too), in the shapes or in the inputs' memory. The first word
// of the name is the pass's kind; results hold until another of its kind runs.
using PassBody = absl::FunctionRef<std::vector<Tensor>(absl::Span<const Tensor>)>;
std::vector<Tensor> RunPass(Context& ctx, const std::string& pass, absl::Span<const Tensor> inputs, PassBody body);
// The room that a batch has for so many requests, tokens of a context or beams: at least as much. A backend that keeps
// passes by their shapes knows few sizes, none below `fewest`; requests that fill it up have no tokens and no beams.
int64_t RoomFor(const Context& ctx, int64_t size, int64_t fewest = 1);
// How many rows a packing of so many tokens has, of a batch that has `padded` with its padding: that, where it is not
// worth it; none, where padding may stand between tokens.
int64_t RowsToPack(const Context& ctx, int64_t tokens, int64_t padded);
inline constexpr int64_t kFewestTokens = 32;  // of a context: fewer take a GPU no less time
// Whether BeginSearch gives searches: a first decode step then belongs to their passes and not to contexts.
bool SearchesOnDevice(const Context& ctx);
// A search with its beams on the device; null where the backend has none. Before the batch's first step.
std::unique_ptr<DeviceSearch> BeginSearch(Context& ctx, absl::Span<const DeviceSearchRequest> requests);

}  // namespace beamline::backend
