// SPDX-License-Identifier: Apache-2.0
//
// Rows of the bad-input catalogue (tests/bad_input.tsv) that are files, through the verbs that read them: exit code 2,
// the file named, one line, no crash. Each format's own test has the rest.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include <nlohmann/json.hpp>
#include <sys/stat.h>

#include "absl/strings/str_cat.h"
#include "cli/binary.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/tiny_bundle.h"
#include "testing/paths.h"

namespace beamline::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class BadFilesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    ASSERT_TRUE(runtime::testing::WriteTinyBundle(File("bundle")).ok());
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string File(const std::string& name) const { return folder_ / name; }
  std::string Write(const std::string& name, const std::string& bytes) const {
    std::ofstream(File(name), std::ios::binary) << bytes;
    return File(name);
  }
  // A copy of the good bundle, changed.
  std::string Bundle(const std::function<void(const fs::path&)>& spoil) const {
    const std::string copy = File("copy");
    fs::remove_all(copy);
    fs::copy(File("bundle"), copy);
    spoil(copy);
    return copy;
  }
  static void Bad(const std::string& row, const std::string& arguments, const std::string& names) {
    SCOPED_TRACE(absl::StrCat(row, ": beamline ", arguments));
    const Outcome outcome = Beamline(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.text;
    // "beamline VERB: ...", behind what a log said.
    const size_t begin = outcome.text.find(absl::StrCat("beamline ", arguments.substr(0, arguments.find(' ')), ": "));
    ASSERT_NE(begin, std::string::npos) << outcome.text;
    const std::string error = outcome.text.substr(begin);
    EXPECT_THAT(error, AllOf(HasSubstr(names), Not(HasSubstr("internal error"))));
    EXPECT_EQ(std::count(error.begin(), error.end(), '\n'), 1) << error;
    EXPECT_LT(error.size(), 2000u);
  }
  std::string Serve(const std::string& bundle, const std::string& more = "") const {
    return absl::StrCat("serve --config ", BEAMLINE_SOURCE_DIR, "/configs/demo.textproto --any-port --port 0 --bundle ",
                        bundle, " ", more);
  }

  const fs::path folder_ =
      fs::path(::testing::TempDir()) / ::testing::UnitTest::GetInstance()->current_test_info()->name();
};

TEST_F(BadFilesTest, Tensors) {
  const std::string good = Slurp(File("bundle/model.safetensors"));
  std::string header_overflows = good;
  for (int i = 0; i < 8; ++i) header_overflows[i] = '\xff';
  for (const size_t bytes : {0, 1, 7, 8}) {
    Bad("C4.1", "inspect " + Write("short.safetensors", good.substr(0, bytes)), "short.safetensors");
  }
  Bad("C4.2", "inspect " + Write("length.safetensors", header_overflows), "header length");
  Bad("C4.13", "inspect " + Write("grown.safetensors", good + "PK\x03\x04"), "4 bytes follow the last tensor");
  Bad("C4.14", "inspect " + Write("model.pt", "PK\x03\x04" + std::string(100, 'x')),
      "model.pt: not a safetensors file but a zip archive");
  Bad("C4.14", "inspect " + Write("model.pkl", "\x80\x02}q\x01." + std::string(100, 'x')),
      "model.pkl: not a safetensors file but a pickle");
  Bad("C4.14", "inspect " + Write("model.gguf", "GGUF" + std::string(100, '\0')),
      "model.gguf: not a safetensors file but a GGUF");
  Bad("C4.14",
      absl::StrCat("tokenize --levels 4 --out ", File("t"), " --vectors ",
                   Write("vectors.safetensors", "\x80\x02}q\x01." + std::string(100, 'x'))),
      "vectors.safetensors");
  ASSERT_EQ(mkfifo(File("pipe.safetensors").c_str(), 0600), 0);
  Write("sparse.safetensors", good);
  fs::resize_file(File("sparse.safetensors"), uint64_t{1} << 40);
  Bad("C4.12 pipe", "inspect " + File("pipe.safetensors"), "pipe.safetensors");
  Bad("C4.12 device", "inspect /dev/zero", "/dev/zero");
  Bad("C4.12 of the system", "inspect /proc/self/environ", "/proc/self/environ");
  Bad("C4.12 a terabyte", "inspect " + File("sparse.safetensors"), "sparse.safetensors");
}

TEST_F(BadFilesTest, BundlesThatAreNotWhole) {
  const auto overwrite = [](const char* name, const std::string& bytes) {
    return [=](const fs::path& bundle) { std::ofstream(bundle / name, std::ios::binary) << bytes; };
  };
  Bad("C4.11", Serve(Bundle([](const fs::path& bundle) { fs::resize_file(bundle / "model.safetensors", 100); })),
      "model.safetensors: has 100 bytes");
  Bad("C4.12", Serve(Bundle([&](const fs::path& bundle) {
        fs::remove(bundle / "items");
        fs::create_symlink(File("bundle/items"), bundle / "items");
      })),
      "items: is a symbolic link");
  Bad("C4.15 missing", Serve(Bundle([](const fs::path& bundle) { fs::remove(bundle / "vocabulary.safetensors"); })),
      "vocabulary.safetensors missing");
  Bad("C4.15 extra", Serve(Bundle(overwrite("extra.json", "{}"))), "extra.json: is not listed");
  Bad("C4.14 pickle beside", Serve(Bundle(overwrite("model.pt", "PK"))), "pickle and its like are never read");
  Bad("C4.16 not ours", Serve(Bundle(overwrite("bundle.json", "{\"schema_version\": 2}"))),
      "schema_version: is 2, this program reads 1");
  Bad("C4.16 comment", Serve(Bundle(overwrite("bundle.json", "// none\n{}"))), "bundle.json");
  Bad("C4.16 empty", Serve(Bundle(overwrite("bundle.json", ""))), "bundle.json");
  Bad("C4.15 no manifest", Serve(Bundle([](const fs::path& bundle) { fs::remove(bundle / "bundle.json"); })),
      "has no bundle.json");
  Bad("C4.15 unreadable", "inspect " + Bundle(overwrite("config.json", std::string(1 << 20, '['))), "config.json");
}

TEST_F(BadFilesTest, PairsThatDoNotBelongTogether) {  // C5.2, C5.13
  runtime::testing::TinyBundleOptions other;
  other.seed = 9;
  ASSERT_TRUE(runtime::testing::WriteTinyBundle(File("other"), other).ok());
  const std::string config = absl::StrCat("engine { catalogue: '", File("other/items"), "' bundle: '", File("bundle"),
                                          "' }\nlisten { port: 50051 }\n");
  Bad("C5.2", absl::StrCat("serve --any-port --port 0 --config ", Write("c.textproto", config)),
      "other/items: the catalogue was made with codebook");
  Bad("C5.13", Serve(Bundle([&](const fs::path& bundle) {
        fs::copy_file(File("other/codebook.safetensors"), bundle / "codebook.safetensors",
                      fs::copy_options::overwrite_existing);
      })),
      "codebook.safetensors");
}

TEST_F(BadFilesTest, CataloguesAndTables) {
  const std::string items = Slurp(File("bundle/items"));
  Bad("C5.6", "inspect " + Write("cut", items.substr(0, items.size() / 2)), "cut: section 'header'");
  std::string flipped = items;
  flipped[flipped.size() - 1] ^= 1;
  Bad("C5.6", "inspect " + Write("flipped", flipped), "flipped: section ");
  const std::string tokenize = absl::StrCat("tokenize --levels 4,4 --out ", File("t"), " ");
  Bad("C5.3", tokenize + "--from-index " + Write("i.json", R"({"1": ["<a_1>", "<b_4>"]})"), "code 4 of level 2");
  Bad("C5.3", tokenize + "--from-index " + Write("j.json", R"({"1": ["<a_1>"]})"), "j.json: key \"1\"");
  Bad("C5.3", tokenize + "--from-index " + Write("k.json", R"({"-1": ["<a_1>", "<b_1>"]})"), "not an item id");
  Bad("C5.5", tokenize + "--from-index " + Write("l.json", "{}"), "holds no item");
}

TEST_F(BadFilesTest, ConfigurationsAndCommandLines) {
  const auto config = [&](const std::string& text) { return "serve --config " + Write("s.textproto", text); };
  Bad("C6.2", config("engine { bundel: 'b' }") + " --bundle " + File("bundle"), "did you mean bundle?");
  Bad("C6.3", config("listen { port: 50051x }") + " --bundle " + File("bundle"), "s.textproto:1");
  Bad("C6.4", "serve --config a --port 99999", "--port: '99999'");
  Bad("C6.4", "serve --config a --port -1", "--port");
  Bad("C6.5", config("listen { address: 'unix:/tmp/x' }") + " --bundle " + File("bundle"),
      "\"unix:/tmp/x\" is not an address");
  Bad("C6.5", config("admin { address: '0.0.0.0' }") + " --bundle " + File("bundle"), "admin.allow_remote: true");
  Bad("C6.7", config(std::string(1000, '{')) + " --bundle " + File("bundle"), "s.textproto:1");
  Bad("C6.11", config("engine { device: 'cuda:99' }") + " --any-port --port 0 --bundle " + File("bundle"), "cuda:99");
  // Who reads objects alone hears of it, too.
  const Outcome told = Beamline(config("log { format: 'json' } engine { bundle: '/nowhere' }\nlisten { port: -1 }"));
  EXPECT_EQ(told.exit_code, 2);
  const nlohmann::json object = nlohmann::json::parse(told.text.substr(0, told.text.find('\n')), nullptr, false);
  ASSERT_TRUE(object.is_object()) << told.text;
  EXPECT_EQ(object["event"], "server failed");
  EXPECT_THAT(object["error"].get<std::string>(), AllOf(HasSubstr("/nowhere"), HasSubstr("listen.port")));
  Bad("C6.8", absl::StrCat("serve --config a --config b --bundle ", File("bundle")), "--config");
}

TEST_F(BadFilesTest, TooFewOpenFilesAreRefusedWithNumbers) {  // C6.12, C1.7
  const Outcome outcome = Shell(absl::StrCat("ulimit -n 64; ", BEAMLINE_BINARY, " ", Serve(File("bundle"))));
  EXPECT_EQ(outcome.exit_code, 2) << outcome.text;
  EXPECT_THAT(outcome.text, AllOf(HasSubstr("64"), HasSubstr("1024"), HasSubstr("limits.min_open_files")));
}

TEST_F(BadFilesTest, LocalesAndTimeZonesChangeNothing) {  // C6.14
  const auto make = [&](const std::string& environment, const std::string& name) {
    const Outcome outcome = Shell(absl::StrCat(environment, " ", BEAMLINE_BINARY,
                                               " generate-data vectors --items 50 --dim 4 --out ", File(name)));
    EXPECT_EQ(outcome.exit_code, 0) << outcome.text;
    return Slurp(File(name));
  };
  const std::string expected = make("LC_ALL=C TZ=UTC", "a.safetensors");
  EXPECT_EQ(make("LC_ALL=de_DE.UTF-8 LC_NUMERIC=de_DE.UTF-8 TZ=Asia/Kathmandu", "b.safetensors"), expected);
  EXPECT_EQ(make("LC_ALL=nonsense TZ=nowhere", "c.safetensors"), expected);
  for (const char* environment : {"LC_ALL=de_DE.UTF-8", "LC_ALL=C"}) {
    const Outcome comma = Shell(absl::StrCat(environment, " ", BEAMLINE_BINARY, " train --dropout=0,5"));
    EXPECT_EQ(comma.exit_code, 2);
    EXPECT_THAT(comma.text, HasSubstr("--dropout: '0,5' must be a number"));
  }
}

TEST_F(BadFilesTest, ASecondServerOnThePortIsRefused) {  // C1.15, C7.3
  const std::string address = absl::StrCat("127.", 100 + getpid() % 100, ".", 1 + getpid() / 100 % 250, ".9");
  const std::string arguments = absl::StrCat(
      "serve --config ",
      Write("p.textproto", absl::StrCat("listen { address: '", address, "' }\nlifecycle { drain_delay_ms: 4000 }\n")),
      " --bundle ", File("bundle"));
  Background first(arguments, File("first.log"));
  ASSERT_TRUE(first.Await([&] { return first.text().find("server started: ") != std::string::npos; })) << first.text();
  Bad("C1.15", arguments, absl::StrCat("cannot listen on ", address, ":50051: another process listens there"));
  first.Signal(SIGTERM);
  Bad("C7.3, while it drains", arguments, "another process listens there");
  EXPECT_EQ(first.Wait(), 0) << first.text();
}

}  // namespace
}  // namespace beamline::cli
