// SPDX-License-Identifier: Apache-2.0
//
// Progress of long work for people: a bar with rate and remaining time that redraws in place on a terminal, a plain
// line every few seconds in a log. Libraries take a `Progress*` and report phases; nullptr means silent, see the free
// functions at the end. Update is cheap (a clock reading) and thread-safe; Start and Finish belong to the thread that
// runs the phase.
#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>

#include "absl/time/time.h"

namespace beamline {

class Progress {
 public:
  static constexpr char kTimeUnit[] = "ms";  // the unit of a phase that ends with its time: shown without a rate
  struct Options {
    std::FILE* out = stderr;
    enum class Style { kAuto, kBar, kLines } style = Style::kAuto;  // kAuto: a bar iff `out` is a terminal
    int columns = 0;  // that a bar may take, or it could not be redrawn in place; 0: the terminal's
    absl::Duration bar_interval = absl::Milliseconds(100);
    absl::Duration line_interval = absl::Seconds(5);
    std::function<absl::Time()> now;  // empty: a monotonic clock
  };

  Progress() : Progress(Options{}) {}
  explicit Progress(Options options);
  Progress(std::string label, int64_t total, std::string unit) : Progress() { Start(label, total, unit); }
  ~Progress();  // finishes an open phase

  // Opens a phase, finishing one still open. `total` <= 0: unknown, so neither percentage nor remaining time.
  void Start(std::string_view label, int64_t total, std::string_view unit);
  // `done` units of the open phase are finished; `note` is shown behind, e.g. "loss 3.21", the newest on the last line.
  void Update(int64_t done, std::string_view note = {});
  // A line of its own that stays, e.g. how many rows were skipped; a bar goes on below it.
  void Note(std::string_view line);
  // Closes the phase with a last line that says how long it took.
  void Finish(std::string_view note = {});

 private:
  void Draw(absl::Time now, bool last);  // with the mutex held

  const Options options_;
  const bool bar_;
  std::mutex mu_;  // guards what follows
  std::string label_;
  std::string unit_;
  std::string note_;
  int64_t total_ = 0;
  int64_t done_ = 0;
  size_t drawn_width_ = 0;
  bool open_ = false;
  absl::Time started_;
  absl::Time drawn_;
};

// nullptr-safe forms for library code.
inline void StartProgress(Progress* progress, std::string_view label, int64_t total, std::string_view unit) {
  if (progress != nullptr) progress->Start(label, total, unit);
}
inline void UpdateProgress(Progress* progress, int64_t done, std::string_view note = {}) {
  if (progress != nullptr) progress->Update(done, note);
}
inline void NoteProgress(Progress* progress, std::string_view line) {
  if (progress != nullptr) progress->Note(line);
}
inline void FinishProgress(Progress* progress, std::string_view note = {}) {
  if (progress != nullptr) progress->Finish(note);
}

}  // namespace beamline
