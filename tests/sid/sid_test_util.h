// SPDX-License-Identifier: Apache-2.0
//
// Vectors and folders for the tests of src/sid.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>

#include "base/float_matrix.h"

namespace beamline::sid {

// `clusters` round clouds of standard deviation `spread` around standard normal centres.
inline FloatMatrix ClusteredVectors(int64_t rows, int64_t cols, int clusters, float spread, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal;
  FloatMatrix centres(clusters, cols);
  for (float& value : centres.values) value = normal(engine);
  FloatMatrix vectors(rows, cols);
  for (int64_t i = 0; i < rows; ++i) {
    // Uneven clusters: the first are the largest.
    const int64_t cluster = static_cast<int64_t>(engine() % clusters * (engine() % clusters) / clusters);
    for (int64_t d = 0; d < cols; ++d) vectors.row(i)[d] = centres.row(cluster)[d] + spread * normal(engine);
  }
  return vectors;
}

class TempFolder {
 public:
  TempFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "beamline_sid_XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  std::string file(const std::string& name) const { return (path_ / name).string(); }
  std::string Write(const std::string& name, const std::string& contents) const {
    std::ofstream(file(name), std::ios::binary) << contents;
    return file(name);
  }

 private:
  std::filesystem::path path_;
};

inline std::string Slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

}  // namespace beamline::sid
