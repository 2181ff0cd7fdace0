# SPDX-License-Identifier: Apache-2.0
"""What is being done, for how long, and how long it will take: by an estimate per cell that the cells done correct."""

import sys
import time

import registry


def estimate(cell, entries, limits):
    """Seconds: starting settings and answers, then rounds."""
    total = 0.0
    for entry in entries:
        if not registry.takes_part(entry, cell):
            continue
        request = registry.estimated_ms(entry, cell) / 1e3
        run = request * min(cell.batch, max(1, 2048 // cell.beams))
        settings = 1 if cell.batch == 1 else 4
        total += 2 * run * settings + request * max(2, min(16, 512 // cell.beams))
        total += min(limits.rounds * max(limits.seconds + 0.3, run), max(20.0, 2 * run))
    return total + limits.rounds * 0.8


def duration(seconds):
    seconds = int(seconds + 0.5)
    return f"{seconds // 60}:{seconds % 60:02d}"


class Progress:
    def __init__(self, cells, entries, limits, load_seconds=20.0):
        self.estimates = {cell: estimate(cell, entries, limits) for cell in cells}
        teams = {(cell.size, cell.threads) for cell in cells}
        self.loading = load_seconds * len(teams)
        self.count, self.begun, self.done_estimate = len(cells), time.monotonic(), 0.0
        self.number, self.cell, self.part = 0, None, 0.0
        self.live, self.told = sys.stderr.isatty(), self.begun

    def total(self):
        return sum(self.estimates.values()) + self.loading

    def begin(self, cell):
        self.number, self.cell, self.part = self.number + 1, cell, 0.0

    def left(self):
        """Seconds: the estimates of what is to come, scaled by how the past came out."""
        spent = time.monotonic() - self.begun
        done = self.done_estimate + self.part * self.estimates.get(self.cell, 0.0)
        rest = sum(self.estimates.values()) - done
        scale = spent / done if done > 15 else 1.0
        return rest * min(5.0, max(0.2, scale))

    def line(self, text):
        where = f"[{self.number}/{self.count}] {self.cell}" if self.cell else "[start]"
        return f"{where}: {text}; {duration(time.monotonic() - self.begun)} gone, about {duration(self.left())} left"

    def tell(self, text):
        """On a terminal at once, in a log every quarter of a minute."""
        if self.live:
            print(f"\r\x1b[K{self.line(text)}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self.told > 15:
            self.told = time.monotonic()
            print(self.line(text), file=sys.stderr, flush=True)

    def round_done(self, number, rounds):
        self.part = 0.3 + 0.7 * number / rounds
        print(("\r\x1b[K" if self.live else "") + self.line(f"round {number} of {rounds}"), file=sys.stderr, flush=True)

    def end(self, cell):
        self.done_estimate += self.estimates[cell]
        self.part, self.cell = 0.0, None
