// SPDX-License-Identifier: Apache-2.0
#include "base/progress.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include <sys/ioctl.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace beamline {
namespace {

constexpr size_t kBarWidth = 24, kAroundBar = 3;

absl::Time MonotonicNow() {
  return absl::UnixEpoch() + absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

Progress::Options WithDefaults(Progress::Options options) {
  if (!options.now) options.now = MonotonicNow;
  return options;
}

bool WantsBar(const Progress::Options& options) {
  if (options.style != Progress::Options::Style::kAuto) return options.style == Progress::Options::Style::kBar;
  return isatty(fileno(options.out)) != 0;
}

// Asked each time, as a window changes its size. One less: a terminal may begin a line behind its last column.
size_t ColumnsOf(const Progress::Options& options) {
  winsize size = {};
  int columns = options.columns;
  if (columns == 0 && ioctl(fileno(options.out), TIOCGWINSZ, &size) == 0) columns = size.ws_col;
  return columns > 1 ? static_cast<size_t>(columns) - 1 : std::numeric_limits<size_t>::max();
}

// Empty where there is no room.
std::string Bar(double part, size_t room) {
  const size_t width = std::min(kBarWidth, room - std::min(room, kAroundBar));
  if (width == 0) return "";
  const auto filled = static_cast<size_t>(part * static_cast<double>(width));
  return absl::StrCat("[", std::string(filled, '#'), std::string(width - filled, '.'), "] ");
}

// 950, 12.3 k, 4.56 M: short enough for a bar.
std::string Short(double value) {
  if (value < 1e4) return value < 10 ? absl::StrFormat("%.1f", value) : absl::StrFormat("%.0f", value);
  return value < 1e6 ? absl::StrFormat("%.1f k", value / 1e3) : absl::StrFormat("%.2f M", value / 1e6);
}

std::string Count(int64_t value) { return value < 10000 ? absl::StrCat(value) : Short(static_cast<double>(value)); }

std::string Minutes(absl::Duration duration) {
  const int64_t seconds = absl::ToInt64Seconds(duration + absl::Milliseconds(500));
  if (seconds < 3600) return absl::StrFormat("%d:%02d", seconds / 60, seconds % 60);
  return absl::StrFormat("%d:%02d:%02d", seconds / 3600, seconds / 60 % 60, seconds % 60);
}

}  // namespace

Progress::Progress(Options options) : options_(WithDefaults(std::move(options))), bar_(WantsBar(options_)) {}

Progress::~Progress() { Finish(); }

void Progress::Start(std::string_view label, int64_t total, std::string_view unit) {
  Finish();
  std::lock_guard lock(mu_);
  label_ = std::string(label);
  unit_ = std::string(unit);
  note_.clear();
  total_ = total;
  done_ = 0;
  open_ = true;
  started_ = drawn_ = options_.now();
  if (bar_) Draw(started_, false);
}

void Progress::Update(int64_t done, std::string_view note) {
  std::lock_guard lock(mu_);
  if (!open_) return;
  done_ = std::max(done_, done);
  note_ = note;  // though it may not be drawn: the last line tells the newest
  const absl::Time now = options_.now();
  if (now - drawn_ < (bar_ ? options_.bar_interval : options_.line_interval)) return;
  Draw(now, false);
}

void Progress::Note(std::string_view line) {
  std::lock_guard lock(mu_);
  std::string text(line);
  if (text.size() < drawn_width_) text.append(drawn_width_ - text.size(), ' ');
  drawn_width_ = 0;
  absl::FPrintF(options_.out, "%s%s\n", bar_ && open_ ? "\r" : "", text);
  std::fflush(options_.out);
}

void Progress::Finish(std::string_view note) {
  std::lock_guard lock(mu_);
  if (!open_) return;
  if (!note.empty()) note_ = std::string(note);
  Draw(options_.now(), true);
  open_ = false;
}

void Progress::Draw(absl::Time now, bool last) {
  drawn_ = now;
  const absl::Duration elapsed = now - started_;
  const double seconds = std::max(absl::ToDoubleSeconds(elapsed), 1e-9);
  const double rate = static_cast<double>(done_) / seconds;
  const std::string label = label_ + " ";
  const double part = total_ > 0 ? std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_)) : 0;
  std::string numbers = absl::StrCat(Count(done_), " ", unit_);
  if (total_ > 0) {
    numbers = absl::StrCat(absl::StrFormat("%3.0f%% ", part * 100), Count(done_), "/", Count(total_), " ", unit_);
  }
  // Of a phase that is as long as its time, a rate would say nothing.
  if (done_ > 0 && seconds > 1e-3 && unit_ != kTimeUnit) absl::StrAppend(&numbers, ", ", Short(rate), "/s");
  if (last) {
    absl::StrAppend(&numbers, ", ", absl::StrFormat("%.1f s", seconds));
  } else if (total_ > 0 && done_ > 0) {
    absl::StrAppend(&numbers, ", ",
                    Minutes(absl::Seconds(static_cast<double>(std::max<int64_t>(0, total_ - done_)) / rate)), " left");
  }
  if (!note_.empty()) absl::StrAppend(&numbers, ", ", note_);
  if (!bar_) {
    absl::FPrintF(options_.out, "%s%s\n", label, numbers);
  } else {
    const size_t columns = ColumnsOf(options_), taken = label.size() + numbers.size();
    std::string line =
        absl::StrCat(label, last || total_ <= 0 ? "" : Bar(part, columns - std::min(columns, taken)), numbers);
    if (!last) line.resize(std::min(line.size(), columns));
    const size_t width = line.size();
    line.append(std::max(width, std::min(drawn_width_, columns)) - width, ' ');  // a window may have become smaller
    drawn_width_ = last ? 0 : width;
    absl::FPrintF(options_.out, "\r%s%s", line, last ? "\n" : "");
  }
  std::fflush(options_.out);
}

}  // namespace beamline
