// SPDX-License-Identifier: Apache-2.0
#include "loadgen/report.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <regex>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "loadgen/plot.h"

namespace beamline::loadgen {
namespace {

using ::testing::AllOf;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::Le;
using ::testing::Not;

Measurement Measured(double rate, int beam) {
  Measurement measured;
  measured.cell = {.load = {.rate = rate}, .beam = beam, .history = 50};
  measured.requests = measured.answered = 2000;
  measured.throughput = measured.goodput = rate;
  std::vector<double> values(2000);
  for (int i = 0; i < 2000; ++i) values[i] = 1 + 0.01 * i;
  measured.latency = Summarize(values);
  measured.lag = Summarize({0.01, 0.02});
  return measured;
}

TEST(ReportTest, TextSaysWhatWasMeasured) {
  Measurement measured = Measured(200, 32);
  const std::string text = Describe(measured);
  EXPECT_THAT(text, HasSubstr("open loop 200/s, beam 32, history 50"));
  EXPECT_THAT(text, HasSubstr("answered 2000, refused 0, expired 0, failed 0"));
  EXPECT_THAT(text, HasSubstr("P50 10.99 ["));
  EXPECT_THAT(text, Not(HasSubstr("WARNING")));
  measured.lag = Summarize(std::vector<double>(100, 7.0));
  EXPECT_THAT(Describe(measured), HasSubstr("WARNING")) << "the generator was the bottleneck";
  measured.narrowing = {{0, 5}, {2, 7}};
  EXPECT_THAT(Describe(measured), HasSubstr("7 answers by step 2"));
  measured.failed = 1;
  measured.failure = "INTERNAL: broken";
  EXPECT_THAT(Describe(measured), HasSubstr("INTERNAL: broken"));
}

TEST(ReportTest, JsonHoldsValuesAndBounds) {
  const nlohmann::json object = ToJson(Measured(200, 32));
  EXPECT_EQ(object["loop"], "open");
  EXPECT_EQ(object["rate"], 200);
  EXPECT_EQ(object["latency_ms"]["p50"]["value"], 10.99);
  EXPECT_LT(object["latency_ms"]["p50"]["low"], 10.99);
  EXPECT_GT(object["latency_ms"]["p50"]["high"], 10.99);
  EXPECT_TRUE(object["latency_ms"]["p99.9"]["high"].is_null()) << "2000 values do not bound it";
  EXPECT_EQ(object["latency_ms"]["max"], 20.99);
  EXPECT_EQ(object["refusal_ms"]["count"], 0);
  EXPECT_FALSE(object.contains("server_cpu_ms"));
}

TEST(ReportTest, SamplesAreOneLineEach) {
  RunResult run;
  run.samples.resize(4);
  run.begin = absl::Milliseconds(0);
  run.end = absl::Milliseconds(6);
  run.samples[1].due = absl::Milliseconds(5);
  run.samples[2].due = absl::Milliseconds(-1);  // the warm-up's
  run.samples[3].due = absl::Milliseconds(6);
  run.samples[1].answer.status = absl::ResourceExhaustedError("full");
  run.samples[0].answer.beams = 8;
  run.samples[0].answer.narrowing = 2;
  const std::string text = SamplesToText({.load = {.rate = 1}, .beam = 0, .history = 0}, run);
  EXPECT_THAT(text, HasSubstr("\n0.000\t0.000\t0.000\tOK\t8\t2\n"));
  EXPECT_THAT(text, HasSubstr("\n5.000\t0.000\t0.000\tRESOURCE_EXHAUSTED\t0\t0\n"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 4);  // with what it is of, and the columns
}

TEST(PlotTest, SweepsAndSingleCellsAreDrawn) {
  const std::vector<Measurement> sweep = {Measured(100, 32), Measured(200, 32), Measured(400, 32)};
  const std::string svg = PlotSvg(sweep, "a < b");
  EXPECT_THAT(svg, HasSubstr("a &lt; b"));
  for (const char* label : {"100/s", "200/s", "400/s", "P99.9", "within deadline"}) EXPECT_THAT(svg, HasSubstr(label));
  EXPECT_THAT(svg, Not(HasSubstr("beam 32"))) << "what all have in common is no label";
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  const std::string one = PlotSvg({sweep.data(), 1}, "one");
  EXPECT_THAT(one, HasSubstr("P99.9"));
  Measurement nothing;
  EXPECT_THAT(PlotSvg({&nothing, 1}, "none"), HasSubstr("nothing was answered"));
  const std::vector<Measurement> with_nothing = {nothing, sweep[0]};
  EXPECT_THAT(PlotSvg(with_nothing, "both"), Not(HasSubstr("nan")));
}

// Where lines of that width end, in pixels from the top.
std::vector<double> EndsOf(const std::string& svg, const std::string& width) {
  std::vector<double> ends;
  const std::regex line("y1=\"([-0-9.]+)\" x2=\"[-0-9.]+\" y2=\"([-0-9.]+)\" stroke=\"#[0-9a-f]+\" stroke-width=\"" +
                        width + "\"");
  for (std::sregex_iterator at(svg.begin(), svg.end(), line), end; at != end; ++at) {
    ends.push_back(std::stod((*at)[1]));
    ends.push_back(std::stod((*at)[2]));
  }
  return ends;
}

TEST(PlotTest, IntervalsEndInThePanelAndUnknownBoundsAreDashes) {
  // Fast ones and slow ones: P50 is slow, its lower bound is fast.
  std::vector<double> values(201, 100.0);
  std::fill_n(values.begin(), 99, 1.0);
  Measurement measured = Measured(100, 32);
  measured.latency = Summarize(values);
  ASSERT_EQ(measured.latency.at(0.5).low, 1.0);
  ASSERT_EQ(measured.latency.at(0.999).high, std::nullopt);
  const std::vector<Measurement> sweep = {measured, measured};
  for (const std::string& svg : {PlotSvg(sweep, "two"), PlotSvg({sweep.data(), 1}, "one")}) {
    const std::vector<double> ends = EndsOf(svg, "4");
    ASSERT_FALSE(ends.empty());
    for (const double y : ends) EXPECT_THAT(y, AllOf(Ge(50), Le(310))) << "of the panel";
    EXPECT_THAT(svg, HasSubstr("stroke-dasharray")) << "P99.9 of 201 calls has no upper bound";
    EXPECT_THAT(svg, HasSubstr("dashes: too few calls to say"));
  }
  values.resize(201 * 30, 100.0);
  measured.latency = Summarize(values);
  EXPECT_THAT(PlotSvg({&measured, 1}, "many"), Not(HasSubstr("stroke-dasharray"))) << "all bounds are known";
}

TEST(PlotTest, AnAxisHasValuesHoweverShortItIs) {
  Measurement measured = Measured(100, 32);
  measured.latency = Summarize({3.4, 3.4, 3.4, 4.0});  // between 2 and 5: no power of ten, no half, no fifth
  const std::string svg = PlotSvg({&measured, 1}, "steady");
  const std::regex value("text-anchor=\"end\" fill=\"black\">[0-9.]+<");
  EXPECT_GE(std::distance(std::sregex_iterator(svg.begin(), svg.end(), value), {}), 3) << svg;
}

}  // namespace
}  // namespace beamline::loadgen
