// SPDX-License-Identifier: Apache-2.0
#include "runtime/pack.h"

#include <cmath>
#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/digest.h"
#include "base/safetensors.h"
#include "runtime/bundle.h"
#include "runtime/tiny_bundle.h"
#include "sid/codebook.h"
#include "sid/sid_index.h"

namespace beamline::runtime {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

class PackTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(::testing::TempDir()) / "pack_test";
    fs::remove_all(root_);
    ASSERT_TRUE(testing::WriteTinyParts(root_ / "model").ok());
    fs::create_directories(root_ / "tokenizer");
    fs::rename(root_ / "model" / kCodebookFile, root_ / "tokenizer" / kCodebookFile);
    const sid::Codebook codebook = *sid::Codebook::Load((root_ / "tokenizer" / kCodebookFile).string());
    table_.level_sizes = codebook.level_sizes();
    table_.codebook_fingerprint = codebook.fingerprint();
    table_.items = {1000, 1001, 1002, 7};
    table_.sids = {Sid{0, 0, 0}, Sid{7, 5, 9}, Sid{0, 0, 0}, Sid{1, 2, 3}};
    WriteSids();
    std::ofstream(root_ / "items.tsv") << "item_id\tauthor_id\trelevance\ttags\n"
                                          "1000\t4\t0.5\ttag=x\n"
                                          "1002\t5\t2\t\n"
                                          "1001\t6\t1\tregion=DE;tag=y\n"
                                          "99\t1\t1\t\n";
  }
  void TearDown() override { fs::remove_all(root_); }
  void WriteSids() { ASSERT_TRUE(sid::WriteSidTsv((root_ / "tokenizer" / "sids.tsv").string(), table_).ok()); }
  PackOptions Options() {
    PackOptions options;
    options.model = root_ / "model";
    options.catalogue = {root_ / "tokenizer", root_ / "items.tsv", ""};
    options.out = root_ / "bundle";
    return options;
  }

  fs::path root_;
  sid::SidTable table_;
};

TEST_F(PackTest, JoinsModelTokenizerAndItems) {
  const absl::StatusOr<PackResult> result = Pack(Options());
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->catalogue.without_sid, 1);
  EXPECT_EQ(result->catalogue.without_attributes, 1);
  const absl::StatusOr<Bundle> bundle = LoadBundle(root_ / "bundle");
  ASSERT_TRUE(bundle.ok()) << bundle.status();
  EXPECT_EQ(bundle->manifest, result->manifest);
  EXPECT_EQ(bundle->catalogue->num_items(), 4);
  EXPECT_EQ(bundle->catalogue->num_sids(), 3);
  EXPECT_THAT(bundle->catalogue->Resolve(Sid{0, 0, 0}), ::testing::ElementsAre(1002, 1000)) << "by relevance";
  EXPECT_EQ(bundle->catalogue->GetItem(1001)->attributes.author, 6);
  EXPECT_EQ(bundle->catalogue->GetItem(1001)->attributes.tags.size(), 2);
  EXPECT_EQ(bundle->catalogue->Encode(7), (Sid{1, 2, 3})) << "without attributes";
  EXPECT_EQ(bundle->catalogue->Encode(99), std::nullopt);
}

TEST_F(PackTest, WithoutAnItemTable) {
  PackOptions options = Options();
  options.catalogue.items.clear();
  options.catalogue.version = "2026-01";
  const absl::StatusOr<CatalogueJoin> join = JoinCatalogue(options.catalogue);
  ASSERT_TRUE(join.ok()) << join.status();
  EXPECT_EQ(join->snapshot->num_items(), 4);
  EXPECT_EQ(join->snapshot->version(), "2026-01");
  EXPECT_EQ(join->without_attributes, 4);
}

TEST_F(PackTest, SidsOfAnotherTokenizerAreRefused) {
  table_.codebook_fingerprint = Sha256Hex("another");
  WriteSids();
  EXPECT_THAT(std::string(Pack(Options()).status().message()), HasSubstr("sids.tsv: made with codebook"));
  EXPECT_FALSE(fs::exists(root_ / "bundle"));
}

TEST_F(PackTest, AModelOfAnotherCodebookIsRefused) {
  std::ofstream(root_ / "model" / "training.json") << R"({"codebook_fingerprint": "another"})";
  EXPECT_THAT(std::string(Pack(Options()).status().message()), HasSubstr("trained with codebook \"another\""));
  EXPECT_FALSE(fs::exists(root_ / "bundle"));
  std::ofstream(root_ / "model" / "training.json")
      << R"({"codebook_fingerprint": ")" << table_.codebook_fingerprint << "\"}";
  EXPECT_TRUE(Pack(Options()).ok());
}

TEST_F(PackTest, PopularityInTrainingOrdersItemsWithoutRelevance) {
  Vocabulary vocabulary({1000, 1001, 1002}, {});
  vocabulary.SetPopularity({1000, 1001, 1002}, {9, 1, 3});
  PackOptions options = Options();
  options.catalogue.items.clear();
  options.catalogue.vocabulary = &vocabulary;
  const absl::StatusOr<CatalogueJoin> join = JoinCatalogue(options.catalogue);
  ASSERT_TRUE(join.ok()) << join.status();
  EXPECT_THAT(join->snapshot->Resolve(Sid{0, 0, 0}), ::testing::ElementsAre(1000, 1002));
  options.catalogue.items = root_ / "items.tsv";
  EXPECT_THAT(JoinCatalogue(options.catalogue).value().snapshot->Resolve(Sid{0, 0, 0}),
              ::testing::ElementsAre(1002, 1000))
      << "the table's relevance goes first";
}

TEST_F(PackTest, AZeroOfATableThatRatesItemsIsARating) {
  Vocabulary vocabulary({7, 1000, 1001, 1002}, {});
  vocabulary.SetPopularity({7, 1000, 1001, 1002}, {50, 9, 1, 3});
  table_.sids[3] = Sid{0, 0, 0};  // item 7, which the table does not name
  WriteSids();
  std::ofstream(root_ / "items.tsv") << "item_id\trelevance\n1000\t0\n1001\t0\n1002\t0.1\n";
  PackOptions options = Options();
  options.catalogue.vocabulary = &vocabulary;
  EXPECT_THAT(JoinCatalogue(options.catalogue).value().snapshot->Resolve(Sid{0, 0, 0}),
              ::testing::ElementsAre(1002, 7, 1000))
      << "0.1 first, then the zeros by id";
  std::ofstream(root_ / "items.tsv") << "item_id\trelevance\n1000\t0\n1001\t\n1002\t0\n";
  EXPECT_THAT(JoinCatalogue(options.catalogue).value().snapshot->Resolve(Sid{0, 0, 0}),
              ::testing::ElementsAre(7, 1000, 1002))
      << "no rating at all: by popularity";
}

// A catalogue that travels beside its model orders a SID's items as the bundle's own does.
TEST_F(PackTest, TheCatalogueAloneIsThatOfTheBundle) {
  Vocabulary vocabulary = *Vocabulary::Load((root_ / "model" / kVocabularyFile).string());
  vocabulary.SetPopularity({1000, 1002}, {3, 9});
  ASSERT_TRUE(vocabulary.Save((root_ / "model" / kVocabularyFile).string()).ok());
  PackOptions options = Options();
  options.catalogue.items.clear();
  const absl::StatusOr<PackResult> bundle = Pack(options);
  ASSERT_TRUE(bundle.ok()) << bundle.status();
  const absl::StatusOr<CatalogueJoin> alone = PackCatalogue(options);
  ASSERT_TRUE(alone.ok()) << alone.status();
  EXPECT_EQ(alone->snapshot->version(), bundle->catalogue.snapshot->version()) << "made from all contents";
  EXPECT_THAT(alone->snapshot->Resolve(Sid{0, 0, 0}), ::testing::ElementsAre(1002, 1000));
  std::ofstream(root_ / "model" / "training.json") << R"({"codebook_fingerprint": "another"})";
  EXPECT_THAT(std::string(PackCatalogue(options).status().message()), HasSubstr("trained with codebook"));
  options.model.clear();
  EXPECT_THAT(PackCatalogue(options)->snapshot->Resolve(Sid{0, 0, 0}), ::testing::ElementsAre(1000, 1002))
      << "of no model: by id";
}

TEST_F(PackTest, AFolderNameMayEndInASlash) {
  PackOptions options = Options();
  options.out = (root_ / "bundle").string() + "/";
  ASSERT_TRUE(Pack(options).ok());
  EXPECT_TRUE(LoadBundle(root_ / "bundle").ok());
}

TEST_F(PackTest, MissingPartsAreNamed) {
  for (const char* part : {"model/config.json", "model/model.safetensors", "model/vocabulary.safetensors",
                           "tokenizer/codebook.safetensors", "tokenizer/sids.tsv", "items.tsv"}) {
    fs::rename(root_ / part, root_ / "away");
    const absl::Status status = Pack(Options()).status();
    EXPECT_FALSE(status.ok()) << part;
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
    EXPECT_FALSE(fs::exists(root_ / "bundle")) << part;
    fs::rename(root_ / "away", root_ / part);
  }
  EXPECT_TRUE(Pack(Options()).ok());
}

TEST_F(PackTest, ATrainingRecordThatALinkLostIsNotAbsent) {
  fs::create_symlink(root_ / "gone", root_ / "model" / "training.json");
  EXPECT_THAT(std::string(Pack(Options()).status().message()), HasSubstr("training.json"));
}

// Row C4.10: no server would take such a bundle, so none is made.
TEST_F(PackTest, WeightsThatAreNoNumbersAreRefused) {
  const std::string path = (root_ / "model" / kWeightsFile).string();
  const SafetensorsFile file = *SafetensorsFile::Read(path);
  SafetensorsWriter writer;
  const std::vector<float> broken(static_cast<size_t>(file.tensors().begin()->second.elements()), std::nanf(""));
  for (const auto& [name, tensor] : file.tensors()) {
    const bool first = name == file.tensors().begin()->first;
    ASSERT_TRUE((first ? writer.Add<float>(name, tensor.shape, broken)
                       : writer.Add(name, tensor.dtype, tensor.shape, tensor.bytes))
                    .ok());
  }
  ASSERT_TRUE(writer.Write(path).ok());
  const absl::Status status = Pack(Options()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("model/model.safetensors:\n"), HasSubstr("values are NaN or infinite")));
  EXPECT_FALSE(fs::exists(root_ / "bundle"));
}

}  // namespace
}  // namespace beamline::runtime
