// SPDX-License-Identifier: Apache-2.0
//
// What `beamline import hf` takes and what it refuses, from the checkpoints of tests/golden/t5, spoiled one field at a
// time. That the imported models answer as transformers do is tests/parity.
#include "runtime/import_hf.h"

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/safetensors.h"
#include "runtime/bundle.h"
#include "runtime/hf_tokenizer.h"
#include "runtime/t5_vocabulary.h"
#include "testing/paths.h"

namespace beamline::runtime {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

// A private copy of one golden case.
class HfFolder {
 public:
  explicit HfFolder(const std::string& name) {
    static int count = 0;
    root_ = fs::path(::testing::TempDir()) / absl::StrCat("import_hf_", ++count);
    fs::remove_all(root_);
    fs::create_directories(root_);
    fs::copy(fs::path(BEAMLINE_SOURCE_DIR) / "tests/golden/t5" / name, root_, fs::copy_options::recursive);
    options.folder = root_ / "hf";
    options.sid_index = (root_ / "index.json").string();
    options.index.id_offset = 1;
    options.out = root_ / "bundle";
  }

  fs::path path(const std::string& file) const { return root_ / "hf" / file; }

  void EditJson(const std::string& file, const std::function<void(json&)>& edit) {
    json document = json::parse(*ReadFile(path(file), 1 << 24));
    edit(document);
    Write(file, document.dump());
  }
  void Write(const std::string& file, const std::string& text) { std::ofstream(path(file)) << text; }

  // The tensors of model.safetensors as fp32, to be changed and written back.
  struct Tensor {
    std::vector<int64_t> shape;
    std::vector<float> values;
  };
  void EditWeights(const std::function<void(std::map<std::string, Tensor>&)>& edit) {
    std::map<std::string, Tensor> tensors;
    {
      const SafetensorsFile file = *SafetensorsFile::Read(path("model.safetensors").string());
      for (const auto& [name, view] : file.tensors()) {
        tensors[name] = {view.shape, {view.as<float>().begin(), view.as<float>().end()}};
      }
    }
    edit(tensors);
    SafetensorsWriter writer;
    for (const auto& [name, tensor] : tensors) {
      ASSERT_TRUE(writer.Add<float>(name, tensor.shape, tensor.values).ok());
    }
    ASSERT_TRUE(writer.Write(path("model.safetensors").string()).ok());
  }

  absl::StatusOr<ImportHfResult> Import() const { return ImportHf(options); }
  std::string Error() const { return std::string(Import().status().message()); }

  ImportHfOptions options;

 private:
  fs::path root_;
};

// Without what transformers derives from it and saves beside it.
void SetActivation(json& config, const std::string& name) {
  config["feed_forward_proj"] = name;
  config.erase("dense_act_fn");
  config.erase("is_gated_act");
}

TEST(ImportHf, MakesABundleOfWhatTheFilesSay) {
  HfFolder folder("relu_tied");
  folder.options.model_out = folder.path("parts");
  const auto result = folder.Import();
  ASSERT_TRUE(result.ok()) << result.status();
  const auto bundle = LoadBundle(folder.options.out);
  ASSERT_TRUE(bundle.ok()) << bundle.status();
  const model::ModelConfig& config = bundle->config;
  EXPECT_EQ(bundle->manifest.family, "t5");
  EXPECT_EQ(config.d_model, 16);
  EXPECT_EQ(config.heads * config.head_dim, 24);
  EXPECT_EQ(config.encoder.layers, 2);
  EXPECT_EQ(config.decoder.layers, 1);
  EXPECT_TRUE(config.decoder.tied_heads);
  EXPECT_TRUE(config.t5.scale_head);
  EXPECT_FALSE(config.encoder.ffn.gated);
  EXPECT_EQ(config.t5.input.suffix, std::vector<int32_t>{config.t5.end}) << "what the tokenizer appends";
  EXPECT_EQ(bundle->vocabulary->tokens()[config.t5.end], 1);
  EXPECT_EQ(bundle->vocabulary->tokens()[config.t5.start], 0);
  for (const char* part :
       {"config.json", "model.safetensors", "vocabulary.safetensors", "codebook.safetensors", "sids.tsv"}) {
    EXPECT_TRUE(fs::exists(folder.path("parts") / part)) << part;
  }
  EXPECT_FALSE(fs::exists(folder.options.out.string() + ".parts"));
}

TEST(ImportHf, HeadAndScaleComeFromWhereTheyAreSaid) {
  // transformers 5: the flag of its own wins over tie_word_embeddings; before, that one meant both.
  HfFolder folder("relu_tied");
  folder.options.overwrite = true;
  const auto scaled = [&] {
    const auto result = folder.Import();
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() && result->config.t5.scale_head;
  };
  folder.EditJson("config.json", [](json& c) { c["scale_decoder_outputs"] = false, c["tie_word_embeddings"] = true; });
  EXPECT_FALSE(scaled());
  folder.EditJson("config.json", [](json& c) { c.erase("scale_decoder_outputs"); });
  EXPECT_TRUE(scaled());
  folder.EditJson("config.json", [](json& c) { c["tie_word_embeddings"] = false; });
  EXPECT_FALSE(scaled());
  folder.EditJson("config.json", [](json& c) { c.erase("tie_word_embeddings"); });
  EXPECT_TRUE(scaled());
  folder.EditJson("config.json", [](json& c) { c["tie_word_embeddings"] = nullptr; });
  EXPECT_TRUE(scaled());
  folder.EditJson("config.json", [](json& c) { c["scale_decoder_outputs"] = nullptr; });
  EXPECT_FALSE(scaled());

  // Whether the head is the embedding is for the weights to say.
  folder.EditWeights([](auto& tensors) { tensors["lm_head.weight"] = tensors["shared.weight"]; });
  EXPECT_TRUE(folder.Import()->config.decoder.tied_heads);
  folder.EditWeights([](auto& tensors) { tensors["lm_head.weight"].values[3] += 1; });
  EXPECT_FALSE(folder.Import()->config.decoder.tied_heads);
  EXPECT_FALSE(folder.Import()->config.t5.encoder_embedding);
  folder.EditWeights([](auto& tensors) {
    tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"];
    tensors["encoder.embed_tokens.weight"].values[3] += 1;
  });
  EXPECT_TRUE(folder.Import()->config.t5.encoder_embedding);
}

TEST(ImportHf, AFileWithACopyOfTheEmbeddingAloneIsEnough) {
  for (const char* copy : {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"}) {
    HfFolder folder("relu_tied");
    folder.EditWeights([copy](auto& tensors) {
      auto embedding = tensors.extract("shared.weight");
      embedding.key() = copy;
      tensors.insert(std::move(embedding));
    });
    const auto result = folder.Import();
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_TRUE(result->config.decoder.tied_heads) << copy;
    EXPECT_FALSE(result->config.t5.encoder_embedding) << copy;
  }
}

// As from_pretrained ties them: what is not in the file is the encoder's, where that and the decoder's differ.
TEST(ImportHf, OfTwoCopiesTheEncodersStandsForTheHead) {
  HfFolder folder("relu_tied");
  folder.EditWeights([](auto& tensors) {
    auto embedding = tensors.extract("shared.weight");
    embedding.key() = "encoder.embed_tokens.weight";
    tensors["decoder.embed_tokens.weight"] = embedding.mapped();
    tensors["decoder.embed_tokens.weight"].values[3] += 1;
    tensors.insert(std::move(embedding));
  });
  const auto result = folder.Import();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->config.decoder.tied_heads);
  EXPECT_TRUE(result->config.t5.encoder_embedding);
}

TEST(ImportHf, RefusesConfigsNamingFieldLimitAndValue) {
  const std::pair<std::function<void(json&)>, const char*> cases[] = {
      {[](json& c) { c["model_type"] = ""; }, "model_type: must be t5, is ''"},
      {[](json& c) { c["model_type"] = "bart"; }, "model_type: must be t5, is 'bart'"},
      {[](json& c) { c.erase("model_type"); }, "model_type: is missing"},
      {[](json& c) { c["architectures"] = {"T5EncoderModel"}; }, "architectures: must name T5ForConditionalGeneration"},
      {[](json& c) { c["d_model"] = "wide"; }, "d_model: must be an integer, is \"wide\""},
      {[](json& c) { c["d_model"] = 17; }, "is F32"},
      {[](json& c) { c["d_kv"] = 0; }, "d_kv: must lie in [1, 1024], is 0"},
      {[](json& c) { c["num_decoder_layers"] = 1000000000; },
       "num_decoder_layers: must lie in [1, 256], is 1000000000"},
      {[](json& c) { c["num_heads"] = 3; }, "SelfAttention.q.weight"},
      {[](json& c) { c["num_layers"] = 3; }, "encoder.block.2.layer.0.SelfAttention.q.weight: is missing"},
      {[](json& c) { c["num_layers"] = 1; },
       "encoder.block.1.layer.0.SelfAttention.k.weight: is no tensor of this model"},
      {[](json& c) { SetActivation(c, "gelu"); }, "feed_forward_proj: must be relu, gelu_new or silu"},
      {[](json& c) { SetActivation(c, "gated-tanh"); }, "is 'gated-tanh'"},
      {[](json& c) { SetActivation(c, "gated-gelu"); }, "wi_0.weight: is missing"},
      {[](json& c) { c["relative_attention_num_buckets"] = 16; }, "relative_attention_bias.weight: is F32[32,2]"},
      {[](json& c) { c["relative_attention_max_distance"] = 16; },
       "relative_attention_max_distance: must lie in [17, 1048576], is 16"},
      {[](json& c) { c["relative_attention_num_buckets"] = 1 << 30; },
       "relative_attention_num_buckets: must lie in [4, 4096], is 1073741824"},
      {[](json& c) { c["layer_norm_epsilon"] = 0; }, "layer_norm_epsilon: must lie in (0, 0.1], is 0"},
      {[](json& c) { c["vocab_size"] = 7; }, "config.json's vocab_size is 7"},
      {[](json& c) { c.erase("vocab_size"); }, "config.json's vocab_size is 32128"},
      {[](json& c) { c["vocab_size"] = 0; }, "vocab_size: must lie in [1, 16777216], is 0"},
      {[](json& c) { c["tie_word_embeddings"] = 1; }, "tie_word_embeddings: must be true or false"}};
  for (const auto& [spoil, message] : cases) {
    HfFolder folder("relu_tied");
    folder.EditJson("config.json", spoil);
    EXPECT_THAT(folder.Error(), HasSubstr(message));
    EXPECT_FALSE(fs::exists(folder.options.out));
  }
}

TEST(ImportHf, TakesTheActivationsThatTransformersNames) {
  for (const auto& [name, activation] : {std::pair{"relu", model::T5Activation::kRelu},
                                         {"gelu_new", model::T5Activation::kGelu},
                                         {"silu", model::T5Activation::kSilu},
                                         {"swish", model::T5Activation::kSilu}}) {
    HfFolder plain("relu_tied"), gated("few_items_end");
    plain.EditJson("config.json", [&](json& c) { SetActivation(c, name); });
    gated.EditJson("config.json", [&](json& c) { SetActivation(c, absl::StrCat("gated-", name)); });
    for (const HfFolder* folder : {&plain, &gated}) {
      const auto result = folder->Import();
      ASSERT_TRUE(result.ok()) << name << ": " << result.status();
      EXPECT_EQ(result->config.t5.activation, activation) << name;
      EXPECT_EQ(result->config.decoder.ffn.gated, folder == &gated) << name;
    }
  }
}

TEST(ImportHf, TheDerivedActivationWinsOverTheNameItCameFrom) {
  HfFolder folder("relu_tied");
  folder.options.overwrite = true;
  folder.EditJson("config.json", [](json& c) { c["dense_act_fn"] = "silu", c["is_gated_act"] = false; });
  EXPECT_EQ(folder.Import()->config.t5.activation, model::T5Activation::kSilu);
  folder.EditJson("config.json", [](json& c) { c["dense_act_fn"] = "gelu"; });
  EXPECT_THAT(folder.Error(), AllOf(HasSubstr("dense_act_fn: must be"), HasSubstr("is 'gelu'")));
  folder.EditJson("config.json", [](json& c) { c["dense_act_fn"] = "relu", c["is_gated_act"] = true; });
  EXPECT_THAT(folder.Error(), HasSubstr("wi_0.weight: is missing"));
}

TEST(ImportHf, TakesTheNamesThatConfigsShare) {
  HfFolder folder("relu_tied");
  folder.EditJson("config.json", [](json& c) {
    for (const auto& [own, shared] : {std::pair{"d_model", "hidden_size"},
                                      {"num_heads", "num_attention_heads"},
                                      {"num_layers", "num_hidden_layers"},
                                      {"d_kv", "head_dim"}}) {
      c[shared] = c[own];
      c.erase(own);
    }
  });
  const auto result = folder.Import();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->config.d_model, 16);
}

TEST(ImportHf, TakesClassesThatTrainingScriptsDerive) {
  HfFolder folder("relu_tied");
  folder.EditJson("config.json", [](json& c) { c["architectures"] = {"LETTER"}; });
  const auto result = folder.Import();
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->notes.size(), 1u);
  EXPECT_THAT(result->notes[0], HasSubstr("architectures is [\"LETTER\"], taken for a T5ForConditionalGeneration"));
}

TEST(ImportHf, StartsWhereGenerateStarts) {
  // Without a start token generate takes bos_token_id, and only without a generation_config.json asks config.json.
  HfFolder folder("relu_tied");
  folder.options.overwrite = true;
  const auto start = [&] {
    const auto result = folder.Import();
    EXPECT_TRUE(result.ok()) << result.status();
    return LoadBundle(folder.options.out)->vocabulary->tokens()[result->config.t5.start];
  };
  folder.EditJson("generation_config.json",
                  [](json& c) { c["decoder_start_token_id"] = nullptr, c["bos_token_id"] = 4; });
  EXPECT_EQ(start(), 4);
  folder.EditJson("generation_config.json", [](json& c) { c["decoder_start_token_id"] = 5; });
  EXPECT_EQ(start(), 5);
  fs::remove(folder.path("generation_config.json"));
  EXPECT_EQ(start(), 0);
  folder.EditJson("config.json", [](json& c) { c.erase("decoder_start_token_id"), c["bos_token_id"] = 4; });
  EXPECT_EQ(start(), 4);
}

TEST(ImportHf, NotesWhatGenerateWouldApply) {
  HfFolder folder("relu_tied");
  folder.options.overwrite = true;
  folder.EditJson("generation_config.json", [](json& c) { c["min_new_tokens"] = 9, c["renormalize_logits"] = true; });
  EXPECT_EQ(folder.Import()->notes.size(), 2u);
  folder.EditJson("generation_config.json", [](json& c) { c["do_sample"] = true, c["num_beam_groups"] = 2; });
  EXPECT_EQ(folder.Import()->notes.size(), 4u);
  folder.EditJson("generation_config.json", [](json& c) { c["do_sample"] = false, c["num_beam_groups"] = 1; });
  folder.EditJson("generation_config.json",
                  [](json& c) { c["min_new_tokens"] = nullptr, c["renormalize_logits"] = false; });
  EXPECT_EQ(folder.Import()->notes.size(), 0u);
  // config.json speaks for generate where it is alone, as transformers 4 wrote it.
  folder.EditJson("config.json", [](json& c) { c["repetition_penalty"] = 2.0; });
  EXPECT_EQ(folder.Import()->notes.size(), 0u);
  fs::remove(folder.path("generation_config.json"));
  const auto result = folder.Import();
  ASSERT_EQ(result->notes.size(), 1u);
  EXPECT_THAT(result->notes[0], HasSubstr("config.json: repetition_penalty is 2.0, which Beamline does not apply"));
}

void SetLength(HfFolder& folder, const char* key, int value) {
  folder.EditJson("generation_config.json", [&](json& c) {
    c.erase("max_new_tokens"), c.erase("max_length");
    c[key] = value;
  });
}

TEST(ImportHf, NotesALengthThatBeamlineDoesNotMake) {
  HfFolder folder("relu_tied");  // four levels
  folder.options.overwrite = true;
  const auto notes = [&](const char* key, int value) {
    SetLength(folder, key, value);
    return folder.Import()->notes;
  };
  EXPECT_THAT(notes("max_new_tokens", 4), ::testing::IsEmpty());
  EXPECT_THAT(notes("max_length", 5), ::testing::IsEmpty());
  EXPECT_THAT(notes("max_new_tokens", 3), ::testing::ElementsAre(HasSubstr("is 3, which ends before the 4 codes")));
  EXPECT_THAT(notes("max_new_tokens", 0), ::testing::ElementsAre(HasSubstr("is 0, which ends before")));
  EXPECT_THAT(notes("max_length", 3), ::testing::ElementsAre(HasSubstr("(or max_length - 1) is 2, which ends before")));
  EXPECT_THAT(notes("max_new_tokens", 9), ::testing::ElementsAre(HasSubstr("is 9, more than the levels")));
}

// With a callback that allows the end alone after the codes, generate scores it wherever its length leaves room.
TEST(ImportHf, ScoresTheEndWhereGenerateHasRoomForIt) {
  HfFolder folder("relu_tied");  // four levels
  folder.options.overwrite = true;
  const auto scores = [&](const char* key, int value) {
    SetLength(folder, key, value);
    const auto result = folder.Import();
    EXPECT_TRUE(result.ok()) << result.status();
    return result->config.t5.score_end;
  };
  EXPECT_FALSE(scores("max_new_tokens", 4));
  EXPECT_TRUE(scores("max_new_tokens", 5));
  EXPECT_TRUE(scores("max_new_tokens", 6));
  EXPECT_TRUE(scores("max_new_tokens", 256));
  EXPECT_FALSE(scores("max_length", 5));  // with the start token
  EXPECT_TRUE(scores("max_length", 6));
  fs::remove(folder.path("generation_config.json"));  // then generate asks config.json
  for (const int length : {5, 6}) {
    folder.EditJson("config.json", [length](json& c) { c["max_length"] = length; });
    const auto result = folder.Import();
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->config.t5.score_end, length == 6);
  }
}

TEST(ImportHf, TakesTokensFromGenerationConfigFirst) {
  HfFolder folder("relu_tied");
  folder.options.overwrite = true;
  folder.EditJson("generation_config.json", [](json& c) { c["eos_token_id"] = {4}; });
  auto result = folder.Import();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(LoadBundle(folder.options.out)->vocabulary->tokens()[result->config.t5.end], 4);
  folder.EditJson("generation_config.json", [](json& c) { c["eos_token_id"] = {1, 4}; });
  EXPECT_THAT(folder.Error(), HasSubstr("generation_config.json:\neos_token_id: must be one token id, is [1,4]"));
  folder.EditJson("generation_config.json", [](json& c) { c["eos_token_id"] = 5000; });
  EXPECT_THAT(folder.Error(), HasSubstr("eos_token_id: token 5000 is outside the embedding"));
  folder.EditJson("generation_config.json", [](json& c) {
    c["eos_token_id"] = 1, c["repetition_penalty"] = 1.5, c["bad_words_ids"] = json::array();
  });
  result = folder.Import();
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->notes.size(), 2u);
  EXPECT_THAT(result->notes[0], HasSubstr("repetition_penalty is 1.5, which Beamline does not apply"));
  fs::remove(folder.path("generation_config.json"));
  EXPECT_TRUE(folder.Import().ok());
  folder.EditJson("config.json", [](json& c) { c.erase("decoder_start_token_id"); });
  EXPECT_THAT(folder.Error(), HasSubstr("decoder_start_token_id: is missing"));
}

TEST(ImportHf, RefusesWeightsThatAreNotTheModels) {
  using Tensors = std::map<std::string, HfFolder::Tensor>;
  const std::pair<std::function<void(Tensors&)>, const char*> cases[] = {
      {[](Tensors& t) { t["shared.weight"].values[7] = std::numeric_limits<float>::quiet_NaN(); },
       "shared.weight: 1 values are NaN or infinite"},
      {[](Tensors& t) { t["adapter.weight"] = t["shared.weight"]; }, "adapter.weight: is no tensor of this model"},
      {[](Tensors& t) { t.erase("decoder.final_layer_norm.weight"); }, "decoder.final_layer_norm.weight: is missing"},
      {[](Tensors& t) { t.erase("shared.weight"); }, "shared.weight is missing"},
      {[](Tensors& t) {
         HfFolder::Tensor& copy = t["decoder.embed_tokens.weight"] = t["shared.weight"];
         ++copy.shape[0];
         copy.values.resize(copy.values.size() + 16);
       },
       "decoder.embed_tokens.weight: is F32"},
      {[](Tensors& t) {
         HfFolder::Tensor& head = t["lm_head.weight"] = t["shared.weight"];
         --head.shape[0];
         head.values.resize(head.values.size() - 16);
       },
       "lm_head.weight: is F32"},
      {[](Tensors& t) {
         HfFolder::Tensor& embedding = t["shared.weight"];
         embedding.shape[0] = 30;
         embedding.values.resize(30 * 16);
       },
       "shared.weight: is F32[30,16], config.json's vocab_size is 65"}};
  for (const auto& [spoil, message] : cases) {
    HfFolder folder("relu_tied");
    folder.EditWeights(spoil);
    EXPECT_THAT(folder.Error(), HasSubstr(message));
  }
}

TEST(ImportHf, RefusesAnEmbeddingWithoutRowsForTheCodes) {
  HfFolder folder("relu_tied");
  folder.EditWeights([](auto& tensors) {
    tensors["shared.weight"].shape[0] = 30;
    tensors["shared.weight"].values.resize(30 * 16);
  });
  folder.EditJson("config.json", [](json& c) { c["vocab_size"] = 30; });
  EXPECT_THAT(folder.Error(), HasSubstr("the embedding has 30 rows; resize_token_embeddings was not called"));
}

TEST(ImportHf, RefusesPicklesAndBrokenShards) {
  HfFolder pickle("relu_tied");
  fs::rename(pickle.path("model.safetensors"), pickle.path("pytorch_model.bin"));
  EXPECT_THAT(pickle.Error(), HasSubstr("is a pickle, which is never read"));

  for (const auto& [file, message] : {std::pair{"../x.safetensors", "must name a .safetensors file beside it"},
                                      std::pair{"model.bin", "must name a .safetensors file beside it"},
                                      std::pair{"gone.safetensors", "gone.safetensors"}}) {
    HfFolder shards("gated_untied_end");
    shards.EditJson("model.safetensors.index.json", [&](json& index) { index["weight_map"]["shared.weight"] = file; });
    EXPECT_THAT(shards.Error(), HasSubstr(message));
  }
  HfFolder none("gated_untied_end");
  fs::remove(none.path("model.safetensors.index.json"));
  EXPECT_THAT(none.Error(), HasSubstr("has neither model.safetensors nor model.safetensors.index.json"));
}

TEST(ImportHf, RefusesTokenizersThatDoNotFit) {
  const auto with_added = [](const std::function<void(json&)>& edit) {
    HfFolder folder("relu_tied");
    folder.EditJson("tokenizer.json", [&](json& t) { edit(t["added_tokens"]); });
    return folder.Error();
  };
  EXPECT_THAT(with_added([](json& added) { added.erase(added.size() - 1); }),
              AllOf(HasSubstr("the tokenizer has no token '<d_"), HasSubstr("which item ")));
  EXPECT_THAT(with_added([](json& added) { added.back()["id"] = added[added.size() - 2]["id"]; }),
              HasSubstr(", as another SID token has"));
  EXPECT_THAT(with_added([](json& added) { added.back().erase("id"); }), HasSubstr("must have id and content"));
  EXPECT_THAT(with_added([](json& added) { added.back()["id"] = -4; }), HasSubstr("the id must be a whole number"));
  EXPECT_THAT(with_added([](json& added) { added[0]["id"] = 9; }), HasSubstr("elsewhere in the folder"));

  // What the template inserts is what its own table says, whatever the vocabulary calls it.
  HfFolder specials("relu_tied");
  specials.options.overwrite = true;
  const auto set_ids = [&](const json& ids) {
    specials.EditJson("tokenizer.json", [&](json& t) { t["post_processor"]["special_tokens"]["</s>"]["ids"] = ids; });
  };
  set_ids({4, 1});
  const auto two = specials.Import();
  ASSERT_TRUE(two.ok()) << two.status();
  EXPECT_EQ(two->config.t5.input.suffix.size(), 2u);
  EXPECT_EQ(two->config.t5.input.suffix[1], two->config.t5.end);
  for (const json& ids : {json::array(), json(1), json({1, -1}), json({1, 1 << 24})}) {
    set_ids(ids);
    EXPECT_THAT(specials.Error(), HasSubstr("post_processor.special_tokens.</s>.ids: must be token ids up to")) << ids;
  }

  HfFolder processor("relu_tied");
  processor.EditJson("tokenizer.json", [](json& t) { t["post_processor"] = {{"type", "BertProcessing"}}; });
  EXPECT_THAT(processor.Error(), HasSubstr("say with --prefix and --suffix"));
  processor.options.prefix = std::vector<std::string>{"word1"};
  processor.options.suffix = std::vector<std::string>{"</s>", "word2"};
  const auto result = processor.Import();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->config.t5.input.prefix.size(), 1u);
  EXPECT_EQ(result->config.t5.input.suffix.size(), 2u);
  processor.options.overwrite = true;
  processor.options.prefix = std::vector<std::string>{"nothing"};
  EXPECT_THAT(processor.Error(), HasSubstr("the tokenizer has no token 'nothing'"));

  HfFolder none("relu_tied");
  for (const char* file : {"tokenizer.json", "tokenizer_config.json"}) fs::remove(none.path(file));
  EXPECT_THAT(none.Error(), HasSubstr("has none of tokenizer.json"));
}

// The older layouts: a sentencepiece model that we never read, and the added tokens in a file of their own.
TEST(HfTokenizer, ATemplateNamesItsIdsItself) {
  HfFolder folder("relu_tied");
  folder.EditJson("tokenizer.json", [](json& c) {
    json& processor = c["post_processor"];
    processor["single"] = {{{"SpecialToken", {{"id", "start"}, {"type_id", 0}}}},
                           {{"Sequence", {{"id", "A"}, {"type_id", 0}}}},
                           {{"SpecialToken", {{"id", "end"}, {"type_id", 0}}}}};
    processor["special_tokens"] = {{"start", {{"id", "start"}, {"ids", {0}}, {"tokens", {"<pad>"}}}},
                                   {"end", {{"id", "end"}, {"ids", {1, 2}}, {"tokens", {"</s>", "<unk>"}}}}};
  });
  const auto tokenizer = ReadHfTokenizer(folder.options.folder, 1);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(tokenizer->prefix, std::vector<int64_t>{0});
  EXPECT_EQ(tokenizer->suffix, (std::vector<int64_t>{1, 2}));
  folder.EditJson("tokenizer.json", [](json& c) { c["post_processor"]["special_tokens"].erase("end"); });
  EXPECT_THAT(std::string(ReadHfTokenizer(folder.options.folder, 1).status().message()),
              HasSubstr("special_tokens.end.ids: must be token ids up to"));
  folder.EditJson("tokenizer.json", [](json& c) { c["post_processor"]["special_tokens"]["end"] = {{"ids", {-1}}}; });
  EXPECT_THAT(std::string(ReadHfTokenizer(folder.options.folder, 1).status().message()), HasSubstr("is [-1]"));
}

TEST(HfTokenizer, ReadsAddedTokensWithoutTokenizerJson) {
  const fs::path folder = fs::path(::testing::TempDir()) / "hf_tokenizer";
  fs::create_directories(folder);
  std::ofstream(folder / "added_tokens.json") << R"({"<a_1>": 32101, "<a_0>": 32100})";
  std::ofstream(folder / "tokenizer_config.json") << R"({"tokenizer_class": "T5Tokenizer", "eos_token": "</s>",
             "added_tokens_decoder": {"1": {"content": "</s>"}, "32100": {"content": "<a_0>"}}})";
  auto tokenizer = ReadHfTokenizer(folder, 1);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(*tokenizer->Id("<a_1>"), 32101);
  EXPECT_EQ(tokenizer->suffix, std::vector<int64_t>{1});
  EXPECT_TRUE(tokenizer->prefix.empty());
  std::ofstream(folder / "tokenizer_config.json") << R"({"tokenizer_class": "T5Tokenizer", "eos_token": "</s>"})";
  tokenizer = ReadHfTokenizer(folder, 3);  // only spiece.model and the model's configuration know the end token
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(tokenizer->suffix, std::vector<int64_t>{3});
  EXPECT_EQ(*tokenizer->Id("</s>"), 3);
  EXPECT_THAT(std::string(ReadHfTokenizer(folder, 32101).status().message()),
              HasSubstr("eos_token: the model's eos_token_id 32101 is '<a_1>', not '</s>'"));
  std::ofstream(folder / "tokenizer_config.json") << R"({"added_tokens_decoder": {"32100": {"content": "<a_0>"}}})";
  std::ofstream(folder / "added_tokens.json") << R"({"<a_0>": 7})";
  EXPECT_THAT(std::string(ReadHfTokenizer(folder, 1).status().message()),
              HasSubstr("token '<a_0>' has id 32100 here and 7 elsewhere"));
  std::ofstream(folder / "added_tokens.json") << R"([1])";
  EXPECT_THAT(std::string(ReadHfTokenizer(folder, 1).status().message()), HasSubstr("must be an object, is array"));
}

// Codes without a token take rows of the rest, named tokens keep theirs, and what is left over is padding.
TEST(T5Vocabulary, CodesFirstThenTheRest) {
  HfTokenizer tokenizer{.source = "t", .ids = {{"<a_0>", 9}, {"<a_2>", 4}, {"<b_1>", 5}}};
  sid::SidTable sids{.level_sizes = {3, 2}, .items = {8}, .sids = {{2, 1}}};
  auto vocabulary = ArrangeVocabulary(tokenizer, sids, 10, {0, 1});
  ASSERT_TRUE(vocabulary.ok()) << vocabulary.status();
  EXPECT_EQ(vocabulary->tokens, (std::vector<int64_t>{9, 2, 4, 3, 5, 0, 1, 6, 7, 8}));
  EXPECT_EQ(vocabulary->codes_without_token, 2);
  EXPECT_FALSE(vocabulary->padded);
  EXPECT_EQ(*vocabulary->Row(1, "end"), 6);

  tokenizer.ids = {{"<a_0>", 3}, {"<a_2>", 1}, {"<b_1>", 2}};
  vocabulary = ArrangeVocabulary(tokenizer, sids, 4, {0});
  ASSERT_TRUE(vocabulary.ok()) << vocabulary.status();
  EXPECT_EQ(vocabulary->tokens, (std::vector<int64_t>{3, -1, 1, -1, 2, 0}));
  EXPECT_TRUE(vocabulary->padded);
}

TEST(ImportHf, LeavesNothingBehindAndReplacesOnlyWhenAsked) {
  HfFolder folder("two_levels");
  folder.options.dialect = "minionerec-info";
  folder.options.sid_index = (folder.options.folder.parent_path() / "index.txt").string();
  ASSERT_TRUE(folder.Import().ok()) << folder.Error();
  EXPECT_THAT(folder.Error(), HasSubstr("exists"));
  EXPECT_FALSE(fs::exists(folder.options.out.string() + ".parts"));
  folder.options.overwrite = true;
  folder.options.dialect = "klingon";
  EXPECT_THAT(folder.Error(),
              HasSubstr("dialect: 'klingon' must be letter, minionerec, minionerec-info, openonerec or tsv"));
}

TEST(ImportHf, TheBundlesFolderMayEndInASlash) {
  HfFolder folder("relu_tied");
  folder.options.out += "/";
  ASSERT_TRUE(folder.Import().ok()) << folder.Error();
  EXPECT_TRUE(LoadBundle(folder.options.out).ok());
}

TEST(ImportHf, WhatStandsInModelOutIsReplacedOnlyWhenAsked) {
  HfFolder folder("relu_tied");
  const std::string checkpoint = *ReadFile(folder.path("config.json"), 1 << 20);
  folder.options.model_out = folder.options.folder / "";
  folder.options.overwrite = true;
  EXPECT_THAT(folder.Error(), HasSubstr("is the checkpoint's folder, whose files would be lost"));
  EXPECT_EQ(*ReadFile(folder.path("config.json"), 1 << 20), checkpoint);

  folder.options.model_out = folder.path("parts");
  folder.options.overwrite = false;
  fs::create_directories(folder.options.model_out);
  folder.Write("parts/config.json", "another model's");
  EXPECT_THAT(folder.Error(), HasSubstr("parts/config.json: exists; pass --overwrite"));
  EXPECT_EQ(*ReadFile(folder.path("parts/config.json"), 1 << 20), "another model's");
  EXPECT_FALSE(fs::exists(folder.options.out));
  folder.options.overwrite = true;
  EXPECT_TRUE(folder.Import().ok()) << folder.Error();
}

}  // namespace
}  // namespace beamline::runtime
