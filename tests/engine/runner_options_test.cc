// SPDX-License-Identifier: Apache-2.0
#include "engine/runner_options.h"

#include <string>

#include <gtest/gtest.h>

namespace beamline::engine {
namespace {

// Nothing is asked of a device that is named until a model is loaded there, so that this holds on every machine.
TEST(RunnerOptions, TwoWorkersOnAGpuAndOneOnTheCpuUnlessToldOtherwise) {
  const auto workers = [](const std::string& device, int wanted) {
    return RunnerOptionsOf({.bundle = "b", .device = device, .workers = wanted})->workers;
  };
  EXPECT_EQ(workers("cuda", 0), 2);
  EXPECT_EQ(workers("cuda:3", 0), 2);
  EXPECT_EQ(workers("cpu", 0), 1);
  for (const char* device : {"cpu", "cuda"}) {
    EXPECT_EQ(workers(device, 1), 1) << device;
    EXPECT_EQ(workers(device, 5), 5) << device;
  }
  // What only the CPU has is one worker on the CPU, whatever the machine.
  const auto chosen = RunnerOptionsOf({.bundle = "b", .device = "auto", .dtype = "int8"});
  ASSERT_TRUE(chosen.ok()) << chosen.status();
  EXPECT_EQ(chosen->device, "cpu");
  EXPECT_EQ(chosen->workers, 1);
}

TEST(RunnerOptions, EveryFieldArrives) {
  const auto options = RunnerOptionsOf({.bundle = "b",
                                        .catalogue = "c",
                                        .device = "cuda:1",
                                        .dtype = "fp8",
                                        .allow_ungated_dtype = true,
                                        .backend = "cuda",
                                        .tuning_folder = "t",
                                        .threads = 3,
                                        .context_cache_bytes = 5});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->bundle, "b");
  EXPECT_EQ(options->catalogue, "c");
  EXPECT_EQ(options->device, "cuda:1");
  EXPECT_EQ(options->dtype, "fp8");
  EXPECT_TRUE(options->allow_ungated_dtype);
  EXPECT_EQ(options->backend, "cuda");
  EXPECT_EQ(options->tuning_folder, "t");
  EXPECT_EQ(options->threads, 3);
  EXPECT_EQ(options->context_cache_bytes, 5);
}

}  // namespace
}  // namespace beamline::engine
