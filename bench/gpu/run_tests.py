#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs a GoogleTest binary on a GPU, in as many processes as it takes.

  run_tests.py BINARY FILTER SECONDS

A kernel that faults takes its process's CUDA context along: whatever comes behind it fails, too, and says nothing of
itself. So what failed, or was not reached, behind a fault runs again in a process of its own, until nothing is left that
failed behind another. A test that prints nothing for long is killed with its process, and counts as one that faults.

Prints what the processes printed of the tests that failed, and in its last line how many passed, failed, were skipped and
were not run, and the names of the first that failed. Exit status: 0 some passed and all that were to run did, 1 otherwise.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time

LINES_OF_A_FAILURE = 25
STALL_SECONDS = (5, 60)  # at least and at most; a third of the time between
LIST_SECONDS = 10  # for a binary to say its tests, also where no time is left
MOST_NAMES = 12

# Of cudaGetErrorString: the errors that last as long as their process.
FAULT = re.compile("an illegal|misaligned address|unspecified launch failure|launch timed out|device-side assert|"
                   "invalid program counter|global/shared address space|hardware stack error|uncorrectable|unknown error|"
                   "CUBLAS_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR)|"
                   "cudaError(Contained|ContextIsDestroyed|TensorMemoryLeak|ExternalDevice|LaunchFailure)")
STARTED = re.compile(r"\[ RUN {6}\] (\S+)")
ENDED = re.compile(r"\[( {7}OK|  FAILED |  SKIPPED) \] ([^\s,]+).*\(\d+ ms\)$")


def end(process):
    """And its children: a death test's may hold the device."""
    os.killpg(process.pid, signal.SIGKILL)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:  # in the driver: whatever is left must not wait for it
        print(f"process {process.pid} does not end", flush=True)


class Process:
    """What one process did: how its tests ended in their order, "" for one that did not, and what they printed."""

    def __init__(self, command, seconds, stall_seconds):
        self.ends = {}
        self.printed = {}
        with tempfile.TemporaryFile() as log:
            self.trouble = self.run(command, log, seconds, stall_seconds)
            log.seek(0)
            self.read(log.read().decode(errors="replace"))

    @staticmethod
    def run(command, log, seconds, stall_seconds):
        """None, or how it ended if not by exit status 0."""
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                   start_new_session=True)
        try:
            return Process.watch(process, log, seconds, stall_seconds)
        except BaseException:  # who ends us wants the device free
            end(process)
            raise

    @staticmethod
    def watch(process, log, seconds, stall_seconds):
        deadline = time.monotonic() + seconds
        size, grown = 0, time.monotonic()
        while True:
            try:
                status = process.wait(0.1)
                return f"exit status {status}" if status else None
            except subprocess.TimeoutExpired:
                pass
            now, written = time.monotonic(), log.seek(0, 2)
            if written != size:
                size, grown = written, now
            if now > deadline or now > grown + stall_seconds:
                end(process)
                return "no time left" if now > deadline else f"nothing printed for {stall_seconds:.0f} s"

    def read(self, text):
        name = None
        for line in text.splitlines():
            started, ended = STARTED.search(line), ENDED.search(line)  # behind what a test printed last, too
            if started:
                name = started[1]
                self.ends[name], self.printed[name] = "", []
            elif ended and name == ended[2]:
                self.ends[name] = ended[1].strip()
                name = None
            elif name:
                self.printed[name].append(line)
        self.last = text.splitlines()[-LINES_OF_A_FAILURE:]

    def failures(self):
        """Those that failed of themselves, none of them behind a fault."""
        found = []
        for name, end in self.ends.items():
            if end not in ("", "FAILED"):
                continue
            found.append(name)
            if end == "" or any(FAULT.search(line) for line in self.printed[name]):
                break
        return found


def names(listing):
    """Of `--gtest_list_tests`."""
    found, suite = [], ""
    for line in listing.splitlines():
        word = line.split("#")[0].rstrip()
        if word and not word.startswith(" ") and word.endswith("."):
            suite = word
        elif word.startswith("  ") and suite:
            found.append(suite + word.strip())
    return [name for name in found if "DISABLED_" not in name]


class Run:
    def __init__(self, binary, seconds):
        self.binary = binary
        self.deadline = time.monotonic() + seconds
        self.stall_seconds = min(max(seconds / 3, STALL_SECONDS[0]), STALL_SECONDS[1])
        self.passed, self.failed, self.skipped = [], [], []
        self.troubles = []

    def left(self):
        return self.deadline - time.monotonic()

    def all(self, pattern):
        """Runs them; returns those that it did not come to."""
        pending, wanted = None, pattern
        while True:
            process = Process([self.binary, "--gtest_color=no", f"--gtest_filter={wanted}"], self.left(),
                              self.stall_seconds)
            self.passed += [name for name, end in process.ends.items() if end == "OK"]
            self.skipped += [name for name, end in process.ends.items() if end == "SKIPPED"]
            failures = process.failures()
            for name in failures:
                self.report(name, process)
            if process.trouble and not failures:  # between tests
                self.troubles.append(process.trouble)
                print(*process.last, sep="\n")
            if pending is None:
                pending = self.list(pattern) if failures or process.trouble else []
            done = {*self.passed, *self.skipped, *self.failed}
            pending = [name for name in pending if name not in done]
            if not pending or not process.ends or self.left() <= 0:
                return pending
            wanted = ":".join(pending)

    def list(self, pattern):
        listed = subprocess.run([self.binary, "--gtest_list_tests", f"--gtest_filter={pattern}"], capture_output=True,
                                text=True, check=False, timeout=max(self.left(), LIST_SECONDS))
        return names(listed.stdout)

    def report(self, name, process):
        self.failed.append(name)
        # A process whose tests all ended has an exit status of 1 for them.
        how = process.trouble if process.ends[name] == "" else "failed"
        print(f"{name}: {how}", *(process.printed[name][-LINES_OF_A_FAILURE:]), sep="\n")


def main(arguments):
    if len(arguments) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    binary, pattern, seconds = arguments
    if float(seconds) <= 0:
        print("0 passed: no time left")
        return 1
    run = Run(binary, float(seconds))
    try:
        unreached = run.all(pattern)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"{len(run.passed)} passed: {error}")
        return 1
    said = f"{len(run.passed)} passed, {len(run.failed)} failed, {len(run.skipped)} skipped"
    if unreached:
        said += f", {len(unreached)} not run, or behind a fault alone"
    if run.failed:
        said += ": " + " ".join(run.failed[:MOST_NAMES])
    if len(run.failed) > MOST_NAMES:
        said += f" and {len(run.failed) - MOST_NAMES} more"
    print(said + "".join(f" ({trouble})" for trouble in run.troubles))
    return 0 if run.passed and not (run.failed or unreached or run.troubles) else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(main(sys.argv[1:]))
