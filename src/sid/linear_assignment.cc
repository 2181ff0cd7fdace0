// SPDX-License-Identifier: Apache-2.0
#include "sid/linear_assignment.h"

#include <algorithm>
#include <limits>

namespace beamline::sid {
namespace {

// Column 0 stands for "no column" and row 0 for "no row"; real ones count from 1.
struct Augmenter {
  Augmenter(absl::Span<const float> costs, int64_t rows, int64_t columns)
      : costs(costs),
        columns(columns),
        row_potential(rows + 1, 0.0),
        column_potential(columns + 1, 0.0),
        row_of(columns + 1, 0),
        previous(columns + 1, 0),
        slack(columns + 1),
        done(columns + 1) {}

  // Dijkstra over reduced costs from a row to the nearest column without row, then shifts the rows along that path.
  void AddRow(int64_t row) {
    std::fill(slack.begin(), slack.end(), std::numeric_limits<double>::infinity());
    std::fill(done.begin(), done.end(), false);
    row_of[0] = row;
    int64_t column = 0;
    while (row_of[column] != 0) column = Step(column);
    while (column != 0) {
      row_of[column] = row_of[previous[column]];
      column = previous[column];
    }
  }

  int64_t Step(int64_t column) {
    done[column] = true;
    const int64_t row = row_of[column];
    const float* row_costs = costs.data() + (row - 1) * columns;
    double delta = std::numeric_limits<double>::infinity();
    int64_t nearest = 0;
    for (int64_t c = 1; c <= columns; ++c) {
      if (done[c]) continue;
      const double reduced = row_costs[c - 1] - row_potential[row] - column_potential[c];
      if (reduced < slack[c]) {
        slack[c] = reduced;
        previous[c] = column;
      }
      if (slack[c] < delta) {
        delta = slack[c];
        nearest = c;
      }
    }
    for (int64_t c = 0; c <= columns; ++c) {
      if (done[c]) {
        row_potential[row_of[c]] += delta;
        column_potential[c] -= delta;
      } else {
        slack[c] -= delta;
      }
    }
    return nearest;
  }

  absl::Span<const float> costs;
  int64_t columns;
  std::vector<double> row_potential;
  std::vector<double> column_potential;
  std::vector<int64_t> row_of;    // of a column; 0 = none
  std::vector<int64_t> previous;  // column before this one on the path
  std::vector<double> slack;
  std::vector<char> done;
};

}  // namespace

std::vector<int64_t> SolveAssignment(absl::Span<const float> costs, int64_t rows, int64_t columns) {
  Augmenter augmenter(costs, rows, columns);
  for (int64_t row = 1; row <= rows; ++row) augmenter.AddRow(row);
  std::vector<int64_t> column_of(rows);
  for (int64_t column = 1; column <= columns; ++column) {
    if (augmenter.row_of[column] != 0) column_of[augmenter.row_of[column] - 1] = column - 1;
  }
  return column_of;
}

}  // namespace beamline::sid
