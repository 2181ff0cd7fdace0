// SPDX-License-Identifier: Apache-2.0
#include "loadgen/plot.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "loadgen/report.h"

namespace beamline::loadgen {
namespace {

constexpr char kLatency[] = "latency, ms, with 95 % intervals (dashes: too few calls to say)";
constexpr double kWidth = 860, kLeft = 70, kRight = 120, kTop = 50, kPanel = 260, kGap = 50;
// Of a palette that the colour-blind can tell apart.
constexpr const char* kColours[] = {"#0072b2", "#009e73", "#e69f00", "#d55e00", "#cc79a7"};

std::string Escaped(const std::string& text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

struct Point {
  double x, y;
};

// A panel with a logarithmic or linear vertical axis.
class Panel {
 public:
  Panel(std::string* svg, double top, std::pair<double, double> range, bool logarithmic)
      : svg_(*svg), top_(top), logarithmic_(logarithmic), low_(Scale(range.first)), high_(Scale(range.second)) {
    if (high_ <= low_) high_ = low_ + 1;
  }

  double Y(double value) const { return top_ + kPanel * (1 - (Scale(value) - low_) / (high_ - low_)); }

  void Text(const Point& at, const std::string& text, const char* anchor = "start", const char* colour = "black") {
    absl::StrAppendFormat(&svg_, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" fill=\"%s\">%s</text>\n", at.x, at.y,
                          anchor, colour, Escaped(text));
  }
  struct Stroke {
    const char* colour;
    double width = 1;
    bool dashed = false;
  };
  void Line(const Point& from, const Point& to, const Stroke& stroke) {
    absl::StrAppendFormat(
        &svg_, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" stroke-width=\"%g\"%s/>\n", from.x,
        from.y, to.x, to.y, stroke.colour, stroke.width, stroke.dashed ? " stroke-dasharray=\"2 3\"" : "");
  }
  // Where a bound is unknown the interval goes on, in dashes, to the panel's edge.
  void Interval(double x, const Quantile& quantile, const char* colour) {
    const double at = Y(quantile.value), edges[] = {top_ + kPanel, top_};
    const std::optional<double> bounds[] = {quantile.low, quantile.high};
    for (int side : {0, 1}) {
      if (bounds[side].has_value()) {
        Line({x, at}, {x, Y(*bounds[side])}, {colour, 4});
      } else {
        Line({x, at}, {x, edges[side]}, {.colour = colour, .dashed = true});
      }
    }
  }
  void Curve(const std::vector<std::pair<double, double>>& points, const char* colour) {
    absl::StrAppend(&svg_, "<polyline fill=\"none\" stroke-width=\"2\" stroke=\"", colour, "\" points=\"",
                    absl::StrJoin(points, " ",
                                  [](std::string* out, const std::pair<double, double>& point) {
                                    absl::StrAppendFormat(out, "%.1f,%.1f", point.first, point.second);
                                  }),
                    "\"/>\n");
    for (const auto& [x, y] : points) {
      absl::StrAppendFormat(&svg_, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", x, y, colour);
    }
  }
  // Lines with values: powers of ten with their halves and fifths; where the axis is linear, or so short that it has
  // hardly any of them, six even steps.
  void Grid(const std::string& what) {
    Text({kLeft - 8, top_ - 10}, what, "start");
    std::vector<double> ticks;
    if (logarithmic_) {
      const int first = static_cast<int>(std::floor(low_)), last = static_cast<int>(std::floor(high_));
      for (int power = first; power <= last; ++power) {
        for (const double step : {1, 2, 5}) {
          const double tick = step * std::pow(10, power);
          if (Scale(tick) >= low_ - 1e-9 && Scale(tick) <= high_ + 1e-9) ticks.push_back(tick);
        }
      }
    }
    if (ticks.size() < 3) {
      ticks.clear();
      const double from = logarithmic_ ? std::pow(10, low_) : low_, to = logarithmic_ ? std::pow(10, high_) : high_;
      for (int i = 0; i <= 5; ++i) ticks.push_back(from + (to - from) * i / 5);
    }
    for (const double tick : ticks) {
      Line({kLeft, Y(tick)}, {kWidth - kRight, Y(tick)}, {"#ddd"});
      Text({kLeft - 8, Y(tick) + 4}, absl::StrFormat("%.4g", tick), "end");
    }
  }

 private:
  double Scale(double value) const { return logarithmic_ ? std::log10(std::max(value, 1e-3)) : value; }

  std::string& svg_;
  const double top_;
  const bool logarithmic_;
  double low_, high_;
};

std::string Begin(double height, const std::string& title) {
  std::string svg = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%g\" height=\"%g\" font-family=\"sans-serif\" "
      "font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
      kWidth, height);
  absl::StrAppendFormat(&svg, "<text x=\"%g\" y=\"20\" font-size=\"14\">%s</text>\n", kLeft, Escaped(title));
  return svg;
}

// From the least to the most that is drawn of quantiles: their bounds, too.
std::pair<double, double> RangeOf(const Summary& latency) {
  double low = latency.quantiles.front().value, high = low;
  for (const Quantile& quantile : latency.quantiles) {
    low = std::min({low, quantile.value, quantile.low.value_or(quantile.value)});
    high = std::max({high, quantile.value, quantile.high.value_or(quantile.value)});
  }
  return {low, high};
}

// Where all cells agree nothing is said.
std::string LabelOf(const Measurement& measured, absl::Span<const Measurement> all) {
  std::vector<std::string> parts;
  const auto add = [&](auto field, const std::string& text) {
    const auto differs = [&](const Measurement& other) { return field(other) != field(measured); };
    if (std::any_of(all.begin(), all.end(), differs)) parts.push_back(text);
  };
  const LoadOptions& load = measured.cell.load;
  add([](const Measurement& m) { return m.cell.load.rate; },
      load.rate ? absl::StrFormat("%.4g/s", *load.rate) : "closed");
  add([](const Measurement& m) { return m.cell.load.concurrency; }, absl::StrCat(load.concurrency, " at once"));
  add([](const Measurement& m) { return m.cell.load.batch; }, absl::StrCat("batch ", load.batch));
  add([](const Measurement& m) { return m.cell.beam; }, absl::StrCat("beam ", measured.cell.beam));
  add([](const Measurement& m) { return m.cell.history; }, absl::StrCat("history ", measured.cell.history));
  return absl::StrJoin(parts, ", ");
}

std::string PlotCells(absl::Span<const Measurement> cells, const std::string& title) {
  const double second = kTop + kPanel + kGap, height = second + kPanel + 110;
  std::string svg = Begin(height, title);
  double low = 1e9, high = 1e-3, most = 1e-9;
  for (const Measurement& cell : cells) {
    most = std::max({most, cell.throughput, cell.cell.load.rate.value_or(0) * cell.cell.load.batch});
    if (cell.latency.count == 0) continue;
    const auto [least, largest] = RangeOf(cell.latency);
    low = std::min(low, least);
    high = std::max(high, largest);
  }
  Panel latency(&svg, kTop, {std::min(low, high) / 1.5, high * 1.5}, true);
  Panel rates(&svg, second, {0, most * 1.05}, false);
  latency.Grid(kLatency);
  rates.Grid("requests a second");
  const auto x = [&](size_t index) {
    return kLeft + (kWidth - kLeft - kRight) * (static_cast<double>(index) + 0.5) / static_cast<double>(cells.size());
  };
  for (size_t q = 0; q < std::size(kQuantiles); ++q) {
    std::vector<std::pair<double, double>> points;
    for (size_t i = 0; i < cells.size(); ++i) {
      if (cells[i].latency.count == 0) continue;
      const Quantile& quantile = cells[i].latency.quantiles[q];
      points.push_back({x(i), latency.Y(quantile.value)});
      latency.Interval(x(i), quantile, kColours[q]);
    }
    latency.Curve(points, kColours[q]);
    latency.Text({kWidth - kRight + 12, kTop + 14 + 18 * static_cast<double>(q)},
                 absl::StrFormat("P%g", kQuantiles[q] * 100), "start", kColours[q]);
  }
  const std::pair<const char*, double (*)(const Measurement&)> series[] = {
      {"throughput", [](const Measurement& m) { return m.throughput; }},
      {"within deadline", [](const Measurement& m) { return m.goodput; }}};
  for (size_t s = 0; s < std::size(series); ++s) {
    std::vector<std::pair<double, double>> points;
    points.reserve(cells.size());
    for (size_t i = 0; i < cells.size(); ++i) points.push_back({x(i), rates.Y(series[s].second(cells[i]))});
    rates.Curve(points, kColours[s * 3]);
    rates.Text({kWidth - kRight + 12, second + 14 + 18 * static_cast<double>(s)}, series[s].first, "start",
               kColours[s * 3]);
  }
  for (size_t i = 0; i < cells.size(); ++i) {
    const double y = second + kPanel + 16;
    absl::StrAppendFormat(&svg, "<text transform=\"translate(%.1f,%.1f) rotate(25)\">%s</text>\n", x(i) - 6, y,
                          Escaped(LabelOf(cells[i], cells)));
  }
  return svg + "</svg>\n";
}

// Over the nines: 50 % at 0.3, 90 % at 1, 99.9 % at 3.
std::string PlotOne(const Measurement& measured, const std::string& title) {
  std::string svg = Begin(kTop + kPanel + 60, title);
  const Summary& latency = measured.latency;
  if (latency.count == 0) return svg + "<text x=\"70\" y=\"60\">nothing was answered</text></svg>\n";
  Panel panel(&svg, kTop, {RangeOf(latency).first / 1.5, latency.max * 1.2}, true);
  panel.Grid(absl::StrCat(kLatency, ": ", NameOf(measured.cell)));
  const double most = std::max(3.5, std::log10(static_cast<double>(latency.count)));
  const auto x = [&](double q) { return kLeft + (kWidth - kLeft - kRight) * -std::log10(1 - q) / most; };
  std::vector<std::pair<double, double>> points;
  for (const Quantile& quantile : latency.quantiles) {
    const double at = x(quantile.q);
    points.push_back({at, panel.Y(quantile.value)});
    panel.Interval(at, quantile, kColours[0]);
    panel.Text({at, kTop + kPanel + 18}, absl::StrFormat("P%g", quantile.q * 100), "middle");
  }
  panel.Curve(points, kColours[0]);
  panel.Text({kWidth - kRight + 12, panel.Y(latency.max)}, absl::StrFormat("max %.4g", latency.max));
  return svg + "</svg>\n";
}

}  // namespace

std::string PlotSvg(absl::Span<const Measurement> measurements, const std::string& title) {
  return measurements.size() == 1 ? PlotOne(measurements[0], title) : PlotCells(measurements, title);
}

}  // namespace beamline::loadgen
