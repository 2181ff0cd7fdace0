// SPDX-License-Identifier: Apache-2.0
//
// What family t5 (1910.10683, as Hugging Face's T5ForConditionalGeneration) needs beside the sizes that all families
// share. A token is a row of the embedding: first the codes of level 0, then those of level 1, ..., then all other
// tokens, so that a code is an offset and selection looks at one slice of the logits, while their log-sum-exp runs over
// the whole vocabulary. `beamline import hf` puts the rows in this order; vocabulary.safetensors keeps the tokenizer's
// ids.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"

namespace beamline::model {

// Around which the feed-forward is built; gelu is the tanh form ("gelu_new"), which T5 v1.1 means by gated-gelu.
enum class T5Activation { kRelu, kGelu, kSilu };

absl::string_view T5ActivationName(T5Activation activation);  // "relu"

// A history as the encoder reads it: prefix, the SIDs of its newest items in time order, suffix.
struct T5Template {
  std::vector<int32_t> prefix;  // rows
  std::vector<int32_t> suffix;  // rows, most often the end token
  int max_items = 0;            // of the history; older ones are dropped
};

struct T5Config {
  int64_t vocabulary = 0;          // rows of the embedding
  bool encoder_embedding = false;  // the encoder has a table of its own beside the decoder's
  bool padded = false;  // some rows are codes without a token: a bias on the head takes them out of every sum
  T5Activation activation = T5Activation::kRelu;
  bool scale_head = true;     // the decoder's output is multiplied by d_model^-1/2 before the head
  int relative_buckets = 32;  // of each stack's relative bias; the encoder's half are for keys after the query
  int relative_max_distance = 128;
  int32_t start = 0;       // row of the decoder's first input
  int32_t end = 0;         // row of the end token
  bool score_end = false;  // the end token's log-probability is part of the score; it never changes who is in a beam
  T5Template input;
};

}  // namespace beamline::model
