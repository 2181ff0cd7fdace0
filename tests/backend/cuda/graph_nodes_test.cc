// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/graph_nodes.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "backend/cuda/cuda_test.h"
#include "beamline/kernels/state_cuda.h"
#include "gtest/gtest.h"

namespace beamline::backend::cuda {
namespace {

namespace fs = std::filesystem;

class GraphNodesTest : public CudaBackendTest {
 protected:
  void SetUp() override {
    CudaBackendTest::SetUp();
    if (IsSkipped()) return;
    ASSERT_EQ(cudaMalloc(&from_, kBytes), cudaSuccess);
    ASSERT_EQ(cudaMalloc(&to_, kBytes), cudaSuccess);
    ASSERT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess);
    std::string pattern = (fs::path(testing::TempDir()) / "beamline_graphs_XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  void TearDown() override {
    if (folder_.empty()) return;
    unsetenv(kGraphFolderSwitch);
    fs::remove_all(folder_);
    cudaStreamDestroy(stream_);
    cudaFree(from_);
    cudaFree(to_);
  }

  void AddKernel() {
    kernels::CopyAllArgs args{.count = 1};
    args.from[0] = from_, args.to[0] = to_, args.bytes[0] = kBytes;
    ASSERT_EQ(kernels::CopyAllCuda(args, stream_), kernels::LaunchError::kOk);
  }
  void AddMemset() { ASSERT_EQ(cudaMemsetAsync(to_, 0, kBytes, stream_), cudaSuccess); }
  void AddCopy() { ASSERT_EQ(cudaMemcpyAsync(to_, from_, kBytes, cudaMemcpyDeviceToDevice, stream_), cudaSuccess); }

  // Of what `work` enqueues. Written, too, if there is a folder.
  GraphNodes Captured(const std::string& key, const std::function<void()>& work) {
    cudaGraph_t graph = nullptr;
    EXPECT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    work();
    EXPECT_EQ(cudaStreamEndCapture(stream_, &graph), cudaSuccess);
    const absl::Cleanup destroy = [&] { cudaGraphDestroy(graph); };
    const GraphNodes nodes = CountNodes(graph);
    MaybeWriteGraph(graph, key, nodes);
    return nodes;
  }

  static constexpr size_t kBytes = 256;
  void *from_ = nullptr, *to_ = nullptr;
  cudaStream_t stream_ = nullptr;
  fs::path folder_;
};

TEST_F(GraphNodesTest, AreCountedByWhatTheyDo) {
  GraphNodes nodes = Captured("encode", [&] { AddKernel(), AddMemset(), AddKernel(), AddKernel(), AddCopy(); });
  EXPECT_EQ(nodes.kernels, 3);
  EXPECT_EQ(nodes.memsets, 1);
  EXPECT_EQ(nodes.others, 1);
  nodes.Add(Captured("search", [&] { AddKernel(), AddCopy(), AddCopy(); }));
  EXPECT_EQ(nodes.kernels, 4);
  EXPECT_EQ(nodes.memsets, 1);
  EXPECT_EQ(nodes.others, 3);
}

TEST_F(GraphNodesTest, AreWrittenWhereAFolderIsNamed) {
  const fs::path folder = folder_ / "made for/it";
  setenv(kGraphFolderSwitch, folder.c_str(), 1);
  Captured("encode/4 3x5", [&] { AddKernel(), AddCopy(); });
  Captured(std::string(1000, 'x'), [&] { AddKernel(); });
  unsetenv(kGraphFolderSwitch);
  Captured("nobody asked", [&] { AddKernel(); });
  std::string written, names;
  for (const auto& file : fs::directory_iterator(folder)) {
    names += file.path().filename().string() + "\n";
    std::ifstream in(file.path());
    written.append(std::istreambuf_iterator<char>(in), {});
  }
  EXPECT_TRUE(absl::StrContains(names, "-encode_4_3x5.dot")) << names;
  EXPECT_TRUE(absl::StrContains(names, "-xxxxx")) << names;
  EXPECT_FALSE(absl::StrContains(names, "nobody")) << names;
  EXPECT_TRUE(absl::StrContains(written, "digraph")) << written;
}

TEST_F(GraphNodesTest, WhatCannotBeWrittenIsNoError) {
  ASSERT_TRUE(std::ofstream(folder_ / "file").good());
  setenv(kGraphFolderSwitch, (folder_ / "file").c_str(), 1);
  EXPECT_EQ(Captured("encode", [&] { AddKernel(); }).kernels, 1);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

}  // namespace
}  // namespace beamline::backend::cuda
