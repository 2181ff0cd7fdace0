// SPDX-License-Identifier: Apache-2.0
//
// Checkpoints whose tensors are F16 or BF16, as most that are published: `beamline import hf` gives every value as it
// is.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "base/safetensors.h"
#include "runtime/hf_t5_weights.h"
#include "runtime/import_hf.h"
#include "testing/paths.h"

namespace beamline::runtime {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

struct Format {
  const char* name;
  DType dtype;
  int exponent_bits, fraction_bits;
};

void PrintTo(const Format& format, std::ostream* out) { *out << format.name; }

// By the definition of IEEE's binary formats, for a finite one.
double ValueOf(uint16_t bits, const Format& format) {
  const int fraction = bits & ((1 << format.fraction_bits) - 1);
  const int exponent = (bits >> format.fraction_bits) & ((1 << format.exponent_bits) - 1);
  const int bias = (1 << (format.exponent_bits - 1)) - 1;
  const double significand = fraction + (exponent == 0 ? 0 : 1 << format.fraction_bits);
  return (bits & 0x8000 ? -1 : 1) * std::ldexp(significand, std::max(exponent, 1) - bias - format.fraction_bits);
}

class ImportHfDtypes : public ::testing::TestWithParam<Format> {
 protected:
  using Bits = std::map<std::string, std::vector<uint16_t>>;

  // A golden checkpoint with its tensors as `GetParam` has them, of bits that count through all there are but those of
  // NaN and the infinities.
  void SetUp() override {
    root_ = fs::path(::testing::TempDir()) / absl::StrCat("import_hf_dtypes_", GetParam().name);
    fs::remove_all(root_);
    fs::create_directories(root_);
    fs::copy(fs::path(BEAMLINE_SOURCE_DIR) / "tests/golden/t5/relu_tied", root_, fs::copy_options::recursive);
    options_.folder = root_ / "hf";
    options_.sid_index = (root_ / "index.json").string();
    options_.index.id_offset = 1;
    options_.out = root_ / "bundle";
    options_.model_out = root_ / "parts";
    const SafetensorsFile file = *SafetensorsFile::Read(weights());
    uint16_t next = 0;
    const int special = ((1 << GetParam().exponent_bits) - 1) << GetParam().fraction_bits;
    for (const auto& [name, view] : file.tensors()) {
      shapes_[name] = view.shape;
      std::vector<uint16_t>& bits = bits_[name];
      while (static_cast<int64_t>(bits.size()) < view.elements()) {
        next += 7;  // prime to 2^16
        if ((next & special) != special) bits.push_back(next);
      }
    }
    Write();
  }

  std::string weights() const { return (root_ / "hf/model.safetensors").string(); }

  void Write() {
    SafetensorsWriter writer;
    for (const auto& [name, bits] : bits_) {
      const auto bytes = absl::MakeConstSpan(reinterpret_cast<const std::byte*>(bits.data()), 2 * bits.size());
      ASSERT_TRUE(writer.Add(name, GetParam().dtype, shapes_[name], bytes).ok());
    }
    ASSERT_TRUE(writer.Write(weights()).ok());
  }

  fs::path root_;
  ImportHfOptions options_;
  std::map<std::string, std::vector<int64_t>> shapes_;
  Bits bits_;
};

TEST_P(ImportHfDtypes, EveryValueArrives) {
  const auto imported = ImportHf(options_);
  ASSERT_TRUE(imported.ok()) << imported.status();
  const SafetensorsFile file = *SafetensorsFile::Read((options_.model_out / "model.safetensors").string());
  int compared = 0;
  for (const auto& [name, view] : file.tensors()) {
    std::vector<uint16_t> bits;
    for (const std::string& source : HfT5TensorNames(name, false)) {
      bits.insert(bits.end(), bits_[source].begin(), bits_[source].end());
    }
    if (bits.empty()) continue;  // the vocabulary's rows are chosen
    const absl::Span<const float> values = view.as<float>();
    ASSERT_EQ(values.size(), bits.size()) << name;
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(values[i], ValueOf(bits[i], GetParam())) << name << ": bits " << bits[i];
      ASSERT_EQ(std::signbit(values[i]), (bits[i] & 0x8000) != 0) << name;
    }
    ++compared;
  }
  EXPECT_GT(compared, 10);
}

TEST_P(ImportHfDtypes, RefusesWhatIsNotFinite) {
  const int infinity = ((1 << GetParam().exponent_bits) - 1) << GetParam().fraction_bits;
  for (const int bits : {infinity, infinity | 0x8000, infinity | 1}) {
    uint16_t& value = bits_["encoder.block.0.layer.0.SelfAttention.o.weight"][3];
    const uint16_t before = std::exchange(value, static_cast<uint16_t>(bits));
    Write();
    EXPECT_THAT(std::string(ImportHf(options_).status().message()),
                HasSubstr("encoder.block.0.layer.0.SelfAttention.o.weight: 1 values are NaN or infinite"));
    value = before;
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, ImportHfDtypes,
                         ::testing::Values(Format{"F16", DType::kF16, 5, 10}, Format{"BF16", DType::kBF16, 8, 7}),
                         ::testing::PrintToStringParamName());

}  // namespace
}  // namespace beamline::runtime
