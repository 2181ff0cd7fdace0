// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/graph_nodes.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <vector>

#include <unistd.h>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"

namespace beamline::backend::cuda {
namespace {

constexpr size_t kMostNameCharacters = 100;  // of the 255 that a file's name may have

void CountNode(cudaGraphNode_t node, GraphNodes& nodes) {
  cudaGraphNodeType type = cudaGraphNodeTypeHost;
  if (cudaGraphNodeGetType(node, &type) != cudaSuccess) type = cudaGraphNodeTypeHost;
  switch (type) {
    case cudaGraphNodeTypeKernel:
      ++nodes.kernels;
      return;
    case cudaGraphNodeTypeMemset:
      ++nodes.memsets;
      return;
    case cudaGraphNodeTypeEmpty:  // an order between others, no work
      return;
    default:
      ++nodes.others;
  }
}

std::string FileName(const std::string& key) {
  static std::atomic<int64_t> made = 0;
  std::string pass = key.substr(0, kMostNameCharacters);
  std::replace_if(
      pass.begin(), pass.end(), [](char c) { return !absl::ascii_isalnum(c); }, '_');
  return absl::StrCat("graph-", getpid(), "-", ++made, "-", pass, ".dot");
}

}  // namespace

void GraphNodes::Add(const GraphNodes& more) {
  kernels += more.kernels;
  memsets += more.memsets;
  others += more.others;
}

GraphNodes CountNodes(cudaGraph_t graph) {
  GraphNodes nodes;
  size_t count = 0;
  if (cudaGraphGetNodes(graph, nullptr, &count) != cudaSuccess) return {.others = 1};
  std::vector<cudaGraphNode_t> all(count);
  if (cudaGraphGetNodes(graph, all.data(), &count) != cudaSuccess) return {.others = 1};
  for (const cudaGraphNode_t node : all) CountNode(node, nodes);
  return nodes;
}

void MaybeWriteGraph(cudaGraph_t graph, const std::string& key, const GraphNodes& nodes) {
  const char* const folder = std::getenv(kGraphFolderSwitch);
  if (folder == nullptr || *folder == '\0') return;
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  const std::string path = std::filesystem::path(folder) / FileName(key);
  const bool good =
      !error && cudaGraphDebugDotPrint(graph, path.c_str(), cudaGraphDebugDotFlagsKernelNodeParams) == cudaSuccess;
  if (!good) cudaGetLastError();  // not the pass's
  LogEvent(good ? spdlog::level::info : spdlog::level::warn, good ? "graph written" : "graph not written",
           {{"path", path},
            {"pass", key},
            {"kernels", nodes.kernels},
            {"memsets", nodes.memsets},
            {"others", nodes.others}});
}

}  // namespace beamline::backend::cuda
