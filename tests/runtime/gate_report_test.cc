// SPDX-License-Identifier: Apache-2.0
//
// The quality gate's report: its limits, its file, and that a bundle without a passed one is not loaded in fp8.
#include "runtime/gate_report.h"

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "runtime/bundle.h"
#include "runtime/bundle_folder.h"
#include "runtime/bundle_writer.h"
#include "runtime/load_model.h"
#include "runtime/tiny_bundle.h"

namespace beamline::runtime {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Code = absl::StatusCode;

// Passes by every limit: each number is just inside.
PrecisionGateReport Report() {
  PrecisionGateReport report;
  report.dtype = "fp8";
  report.weights_sha256 = std::string(64, 'a');
  report.config_sha256 = std::string(64, 'b');
  report.device = "cuda";
  report.backend = "cuda";
  report.split = "test";
  report.beam = 64;
  report.max_users = 10'000;
  report.seed = 7;
  report.requests = 20'000;
  report.top_1 = 0.97;
  report.overlap = 0.92;
  report.bf16_overlap = 0.9699;
  report.recall_10 = 0.0995;
  report.bf16_recall_10 = 0.1;
  report.fp32_recall_10 = 0.1001;
  report.recall_10_difference = {.low = -0.0019, .mean = -0.0005, .high = 0.0009};
  return report;
}

TEST(GateReport, EveryLimitIsHeld) {
  EXPECT_THAT(GateFailures(Report()), IsEmpty());
  PrecisionGateReport report = Report();
  report.top_1 = 0.9699;
  EXPECT_THAT(GateFailures(report),
              ElementsAre("the best item is bf16's for 0.9699 of the requests, less than 0.9700"));
  report = Report();
  report.overlap = 0.9198;
  EXPECT_THAT(GateFailures(report), ElementsAre("the overlap with fp32's 32 best is 0.9198, bf16's is 0.9699: more "
                                                "than 0.0500 over it"));
  report = Report();
  report.recall_10_difference = {.low = -0.004, .mean = -0.003, .high = -0.0021};
  EXPECT_THAT(GateFailures(report), ElementsAre("R@10 differs from bf16's 0.1000 by -0.0030 [-0.0040, -0.0021], which "
                                                "is not within 2 % of it (0.0020)"));
}

// Two per cent of bf16's R@10, not of one: the same interval does for a better model.
TEST(GateReport, RecallIsHeldToAShareOfBf16s) {
  PrecisionGateReport report = Report();
  report.bf16_recall_10 = 0.09;
  EXPECT_EQ(GateFailures(report).size(), 1);
  report.recall_10_difference = {.low = -0.019, .mean = 0, .high = 0.019};
  EXPECT_EQ(GateFailures(report).size(), 1);
  report.bf16_recall_10 = 0.96;
  EXPECT_THAT(GateFailures(report), IsEmpty());
}

TEST(GateReport, TooFewRequestsAreToldFromAWorseModel) {
  PrecisionGateReport report = Report();
  // Twice as wide as there is room beside the mean: four times as many.
  report.recall_10_difference = {.low = -0.0045, .mean = -0.0005, .high = 0.0015};
  EXPECT_THAT(GateFailures(report),
              ElementsAre(HasSubstr("20000 requests are too few to tell; should the difference stay, about 80000 "
                                    "would do")));
  // Without a difference the interval has no width, but a few requests show little.
  report.recall_10_difference = {};
  report.requests = 1501;
  EXPECT_THAT(GateFailures(report), IsEmpty());
  report.requests = 1000;
  const std::string too_few =
      "R@10 differs from bf16's 0.1000 by +0.0000 [+0.0000, +0.0000]: 1000 requests are too few to tell; should the "
      "difference stay, about 1500 would do";
  EXPECT_THAT(GateFailures(report), ElementsAre(too_few + "; --split both asks for two of each user"));
  report.split = "both";
  EXPECT_THAT(GateFailures(report), ElementsAre(too_few));
  EXPECT_THAT(GateTable(report), HasSubstr("1000 requests of split both (at most 10000 users of each, seed 7), "));
  report.max_users = 0;
  EXPECT_THAT(GateTable(report), HasSubstr("1000 requests of split both (seed 7), "));
}

TEST(GateReport, IsReadAsItWasWritten) {
  const std::string json = GateToJson(Report()).dump();
  EXPECT_TRUE(IsGateJson(GateToJson(Report())));
  const auto read = ParseGate(json, "gate.json");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(GateToJson(*read), GateToJson(Report()));
  EXPECT_THAT(GateTable(*read), AllOf(HasSubstr("20000 requests of split test (at most 10000 users of each, seed 7), "),
                                      HasSubstr("\npassed\n")));
}

TEST(GateReport, TheVerdictIsOfTheNumbersAndNotOfTheFile) {
  PrecisionGateReport report = Report();
  report.top_1 = 0.5;
  nlohmann::json json = GateToJson(report);
  json["passed"] = true;
  json["failures"] = nlohmann::json::array();
  json["limits"]["top_1"] = 0.1;
  const auto read = ParseGate(json.dump(), "gate.json");
  ASSERT_TRUE(read.ok()) << read.status();
  BundleManifest manifest;
  manifest.files[kWeightsFile].sha256 = report.weights_sha256;
  manifest.files[kConfigFile].sha256 = report.config_sha256;
  const absl::Status status = CheckGate(*read, manifest);
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_EQ(status.message(),
            "the gate of fp8 was not passed: the best item is bf16's for 0.5000 of the requests, "
            "less than 0.9700");
}

TEST(GateReport, FilesThatAreNoReportAreRefusedByTheField) {
  const auto problem = [](auto change) {
    nlohmann::json json = GateToJson(Report());
    change(json);
    const absl::Status status = ParseGate(json.dump(), "x/gate.json").status();
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("x/gate.json: "));
    return std::string(status.message());
  };
  using Json = nlohmann::json;
  const Json whole = GateToJson(Report());
  for (const auto& [key, value] : whole.items()) {
    if (key == "limits" || key == "passed" || key == "failures") continue;
    EXPECT_THAT(problem([&key = key](Json& json) { json.erase(key); }), HasSubstr(key + ": is missing"));
    EXPECT_THAT(problem([&key = key](Json& json) { json[key] = nullptr; }), HasSubstr(key + ": must be"));
  }
  EXPECT_THAT(problem([](Json& json) { json["schema_version"] = 2; }), HasSubstr("is 2, this program reads 3"));
  EXPECT_THAT(problem([](Json& json) { json["kind"] = "evaluation"; }), HasSubstr("kind: must be 'precision_gate'"));
  EXPECT_THAT(problem([](Json& json) { json["more"] = 1; }), HasSubstr("more: is unknown"));
  for (const std::string& word : std::vector<std::string>{"", "fp8\x1b[2J", std::string(65, 'x')}) {
    EXPECT_THAT(problem([&](Json& json) { json["dtype"] = word; }), HasSubstr("dtype: must have 1..64 letters"));
  }
  EXPECT_THAT(problem([](Json& json) { json["seed"] = -1; }), HasSubstr("seed: must lie in [0, "));
  EXPECT_THAT(problem([](Json& json) { json["seed"] = 0.5; }), HasSubstr("seed: must be an integer"));
  EXPECT_THAT(problem([](Json& json) { json["max_users"] = -1; }), HasSubstr("max_users: must be at least 0"));
  EXPECT_THAT(problem([](Json& json) { json["requests"] = 0; }), HasSubstr("requests: must be at least 1"));
  EXPECT_THAT(problem([](Json& json) { json["top_1"] = 1.5; }), HasSubstr("top_1: must lie in [0, 1], is 1.5"));
  EXPECT_THAT(problem([](Json& json) { json["bf16_recall_10"] = 0; }), HasSubstr("bf16_recall_10: must lie in"));
  EXPECT_THAT(problem([](Json& json) { json["recall_10_difference"].erase("low"); }),
              HasSubstr("recall_10_difference.low: is missing"));
  EXPECT_THAT(problem([](Json& json) { json["dtype"] = "bf16"; }),
              HasSubstr("dtype: must be fp8 or fp8_mixed or int8, is 'bf16'"));
  EXPECT_THAT(problem([](Json& json) { json["split"] = "x"; }),
              HasSubstr("split: must be test or validation or both, is 'x'"));
  EXPECT_THAT(problem([](Json& json) { json["beam"] = 31; }), HasSubstr("beam: must be at least 32"));
  EXPECT_THAT(problem([](Json& json) { json = {}; }), HasSubstr("must be an object"));
  EXPECT_FALSE(ParseGate("{", "x").ok());
}

// Whoever edits one number of a report must find the others that go with it.
TEST(GateReport, NumbersAgree) {
  PrecisionGateReport report = Report();
  const auto problem = [&] { return std::string(ParseGate(GateToJson(report).dump(), "x").status().message()); };
  EXPECT_EQ(problem(), "");
  report.recall_10 = 0.05;
  EXPECT_THAT(problem(), HasSubstr("recall_10_difference.mean: is -0.0005, recall_10 - bf16_recall_10 -0.05"));
  report = Report();
  report.recall_10_difference.low = -0.0004;
  EXPECT_THAT(problem(), HasSubstr("its mean, -0.0005, is not in [-0.0004, 0.0009]"));
  report = Report();
  report.recall_10_difference.high = -0.0006;
  EXPECT_THAT(problem(), HasSubstr("its mean, -0.0005, is not in [-0.0019, -0.0006]"));
}

class GatedBundle : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::remove_all(root_);
    const auto manifest = testing::WriteTinyBundle(plain_);
    ASSERT_TRUE(manifest.ok()) << manifest.status();
    manifest_ = *manifest;
    ASSERT_TRUE(testing::WriteTinyParts(root_ / "parts").ok());
  }
  void TearDown() override { fs::remove_all(root_); }

  PrecisionGateReport OwnReport() const {
    PrecisionGateReport report = Report();
    report.weights_sha256 = manifest_.files.at(kWeightsFile).sha256;
    report.config_sha256 = manifest_.files.at(kConfigFile).sha256;
    return report;
  }
  absl::Status Pack(const std::string& gate) const {
    EXPECT_TRUE(WriteFileAtomically(root_ / "report.json", gate).ok());
    const fs::path folder = root_ / "parts";
    BundleParts parts = {folder / kConfigFile, folder / kWeightsFile, folder / kVocabularyFile, folder / kCodebookFile,
                         LoadBundle(plain_)->catalogue};
    parts.gate = root_ / "report.json";
    return WriteBundle(parts, gated_, {.overwrite = true}).status();
  }
  absl::Status Pack(const PrecisionGateReport& report) const { return Pack(GateToJson(report).dump()); }
  // As an engine loads, whose device here is the CPU.
  static absl::Status Load(const fs::path& bundle, const std::string& dtype, bool allow_ungated = false) {
    ModelRunner::Parts parts;
    parts.context = *backend::MakeContext("cpu", "fp32", "cpu");
    return LoadRunnerOn({.bundle = bundle, .dtype = dtype, .allow_ungated_dtype = allow_ungated, .threads = 1},
                        std::move(parts))
        .status();
  }

  const fs::path root_ = fs::path(::testing::TempDir()) / "gated_bundle_test";
  const fs::path plain_ = root_ / "plain", gated_ = root_ / "gated";
  BundleManifest manifest_;
};

TEST_F(GatedBundle, HoldsAReportOfItsWeightsThatPassed) {
  ASSERT_TRUE(Pack(OwnReport()).ok()) << Pack(OwnReport());
  const auto bundle = LoadBundle(gated_, {.gated_dtype = "fp8"});
  ASSERT_TRUE(bundle.ok()) << bundle.status();
  EXPECT_TRUE(bundle->manifest.files.contains(kGateFile));
  EXPECT_EQ(bundle->manifest.model_version, manifest_.model_version) << "the same model";
  EXPECT_NE(*IdentifyBundle(gated_), *IdentifyBundle(plain_)) << "another bundle: a reload takes it";
  EXPECT_TRUE(Pack(OwnReport()).ok()) << "written over, report and all";

  std::string bytes = *ReadFile(gated_ / kGateFile, 1 << 20);
  bytes[bytes.find("97") + 1] = '8';
  ASSERT_TRUE(WriteFileAtomically(gated_ / kGateFile, bytes).ok());
  for (const char* dtype : {"", "fp8"}) {
    EXPECT_EQ(LoadBundle(gated_, {.gated_dtype = dtype}).status().code(), Code::kDataLoss) << "an edited report";
  }
}

TEST_F(GatedBundle, OtherReportsAreNotPacked) {
  EXPECT_THAT(std::string(Pack(Report()).message()),
              AllOf(HasSubstr((root_ / "report.json").string()), HasSubstr("the gate is of other weights"),
                    HasSubstr(manifest_.files.at(kWeightsFile).sha256)));
  PrecisionGateReport other = OwnReport();
  other.config_sha256 = std::string(64, 'c');
  EXPECT_THAT(std::string(Pack(other).message()), AllOf(HasSubstr("the gate is of other configuration"),
                                                        HasSubstr(manifest_.files.at(kConfigFile).sha256)));
  PrecisionGateReport worse = OwnReport();
  worse.top_1 = 0.9;
  EXPECT_THAT(std::string(Pack(worse).message()),
              AllOf(HasSubstr("report.json: the gate of fp8 was not passed"), HasSubstr("0.9000")));
  EXPECT_THAT(std::string(Pack("{}").message()), HasSubstr("report.json: not written by `beamline evaluate"));
  EXPECT_THAT(std::string(Pack(std::string(kMaxGateBytes + 1, ' ')).message()),
              AllOf(HasSubstr((root_ / "report.json").string()), HasSubstr("has 65537 bytes, may have 65536")));
  EXPECT_FALSE(fs::exists(gated_));
}

TEST_F(GatedBundle, Fp8IsLoadedWithAPassedGateAlone) {
  const absl::Status refused = Load(plain_, "fp8");
  EXPECT_EQ(refused.code(), Code::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()),
              AllOf(HasSubstr(plain_.string()), HasSubstr("it has none"), HasSubstr("beamline evaluate --gate fp8"),
                    HasSubstr("beamline pack --gate"), HasSubstr("engine.allow_ungated_dtype")));
  for (const char* dtype : {"fp32", "bf16", "int8"}) EXPECT_TRUE(Load(plain_, dtype).ok()) << dtype;

  ::testing::internal::CaptureStderr();
  EXPECT_TRUE(Load(plain_, "fp8", true).ok());
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              AllOf(HasSubstr("allow_ungated_dtype is set"), HasSubstr(plain_.string())));

  ASSERT_TRUE(Pack(OwnReport()).ok());
  EXPECT_TRUE(Load(gated_, "fp8").ok()) << Load(gated_, "fp8");
  PrecisionGateReport of_int8 = OwnReport();
  of_int8.dtype = "int8";
  ASSERT_TRUE(Pack(of_int8).ok());
  EXPECT_THAT(std::string(Load(gated_, "fp8").message()), HasSubstr("the one it has is of int8"));

  // Nor does a gate of one kind of FP8 let the other in.
  PrecisionGateReport of_mixed = OwnReport();
  of_mixed.dtype = "fp8_mixed";
  ASSERT_TRUE(Pack(of_mixed).ok());
  EXPECT_THAT(std::string(Load(gated_, "fp8").message()), HasSubstr("the one it has is of fp8_mixed"));
  EXPECT_TRUE(Load(gated_, "fp8_mixed").ok()) << Load(gated_, "fp8_mixed");
  EXPECT_FALSE(Load(plain_, "fp8_mixed").ok());
}

// Whoever edits a bundle by hand, digests and all.
TEST_F(GatedBundle, WhatWasNotPackedByUsIsCheckedWhenLoaded) {
  ASSERT_TRUE(Pack(OwnReport()).ok());
  const auto put = [&](const PrecisionGateReport& report) {
    EXPECT_TRUE(WriteFileAtomically(gated_ / kGateFile, GateToJson(report).dump()).ok());
    BundleManifest manifest = *ParseManifest(*ReadFile(gated_ / kManifestFile, kMaxManifestBytes), "m");
    manifest.files[kGateFile] = *DescribeFile(gated_ / kGateFile);
    EXPECT_TRUE(WriteFileAtomically(gated_ / kManifestFile, ManifestToJson(manifest)).ok());
    return std::string(LoadBundle(gated_, {.gated_dtype = "fp8"}).status().message());
  };
  EXPECT_EQ(put(OwnReport()), "");
  EXPECT_THAT(put(Report()), HasSubstr("the gate is of other weights"));
  PrecisionGateReport worse = OwnReport();
  worse.top_1 = 0.9;
  EXPECT_THAT(put(worse), HasSubstr("the gate of fp8 was not passed"));
  EXPECT_TRUE(LoadBundle(gated_).ok()) << "another dtype does not ask";
}

// By the manifest: nothing of it is read.
TEST_F(GatedBundle, FilesAreNoLargerThanTheirKind) {
  ASSERT_TRUE(Pack(OwnReport()).ok());
  for (const auto& [name, limit] :
       {std::pair(kGateFile, kMaxGateBytes), std::pair(kConfigFile, model::kMaxConfigBytes)}) {
    const fs::path file = gated_ / name;
    const std::string kept = *ReadFile(file, 1 << 20),
                      manifest_text = *ReadFile(gated_ / kManifestFile, kMaxManifestBytes);
    fs::resize_file(file, limit + 1);
    BundleManifest manifest = *ParseManifest(manifest_text, "m");
    manifest.files[name].bytes = limit + 1;
    ASSERT_TRUE(WriteFileAtomically(gated_ / kManifestFile, ManifestToJson(manifest)).ok());
    const absl::Status status = LoadBundle(gated_).status();
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(absl::StrCat(file.string(), ": has ", limit + 1, " bytes, may have ", limit)));
    ASSERT_TRUE(WriteFileAtomically(file, kept).ok() &&
                WriteFileAtomically(gated_ / kManifestFile, manifest_text).ok());
  }
}

}  // namespace
}  // namespace beamline::runtime
