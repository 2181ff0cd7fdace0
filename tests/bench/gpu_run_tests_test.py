#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""bench/gpu/run_tests.py over a binary whose tests fail, fault, crash and hang as they are told to."""
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "bench/gpu/run_tests.py"

# As GoogleTest: a fault in one test fails those behind it that ask the device anything.
BINARY = """#!{python}
import fnmatch, os, subprocess, sys, time
tests = {tests}
options = dict(word[2:].split("=", 1) if "=" in word else (word[2:], "") for word in sys.argv[1:])
patterns = options["gtest_filter"].split(":")
chosen = [name for name in tests if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
if "gtest_list_tests" in options:
    print("Running main()")
    suite = None
    for name in chosen:
        if name.split(".")[0] != suite:
            suite = name.split(".")[0]
            print(suite + ".  # TypeParam = float")
        print("  " + name.split(".")[1] + "  # GetParam() = 3")
    sys.exit()
with open({log!r}, "a") as log:
    log.write(" ".join(chosen) + chr(10))
lost = failed = False
for name in chosen:
    print(f"[ RUN      ] {{name}}", flush=True)
    kind = tests[name]
    if kind == "crash":
        os.abort()
    if kind == "hang":
        child = subprocess.Popen(["sleep", "600"])
        with open({log!r} + ".child", "w") as file:
            file.write(str(child.pid))
        time.sleep(600)
    if kind == "noisy":
        print("without a newline", end="")
    if kind == "fault":
        lost = True
    if kind == "mismatch":
        print("expected 1, got 2 of " + name)
    if lost and kind != "host":
        print("an illegal memory access was encountered")
    if kind == "skip":
        print(f"[  SKIPPED ] {{name}} (0 ms)")
    elif kind == "mismatch" or (lost and kind != "host"):
        failed = True
        print(f"[  FAILED  ] {{name}}, where GetParam() = 3 (12 ms)")
    else:
        print(f"[       OK ] {{name}} (0 ms)", flush=True)
    if kind == "last":
        os.abort()
print("[==========] ran.")
for name in chosen:
    if tests[name] in ("mismatch", "fault"):
        print(f"[  FAILED  ] {{name}}, where GetParam() = 3")
sys.exit(failed or {trouble})
"""


class RunTestsTest(unittest.TestCase):
    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)

    def run_tests(self, tests, pattern="*", seconds="60", trouble=0):
        """Exit status, what is said last, all that is said, and the tests that every process was asked for."""
        binary, log = self.root / "binary", self.root / "log"
        binary.write_text(BINARY.format(python=sys.executable, tests=tests, log=str(log), trouble=trouble))
        binary.chmod(0o755)
        log.write_text("")
        run = subprocess.run([sys.executable, SCRIPT, binary, pattern, seconds], capture_output=True, text=True,
                             timeout=120, check=False)
        self.assertEqual(run.stderr, "")
        processes = [line.split() for line in log.read_text().splitlines()]
        return run.returncode, run.stdout.splitlines()[-1], run.stdout, processes

    @staticmethod
    def ends(pid):
        """Whether that process, which was killed, ends; nobody may have waited for it yet."""
        for _ in range(200):
            try:
                if pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                    return True
            except OSError:
                return True
            time.sleep(0.05)
        return False

    def test_what_passes_runs_once(self):
        tests = {"A.One": "pass", "A.Two/0": "pass", "B/0.Three": "skip"}
        status, said, _, processes = self.run_tests(tests)
        self.assertEqual((status, said), (0, "2 passed, 0 failed, 1 skipped"))
        self.assertEqual(processes, [list(tests)])
        self.assertEqual(self.run_tests(tests, "A.*")[1], "2 passed, 0 failed, 0 skipped")

    def test_a_mismatch_is_no_reason_to_run_again(self):
        tests = {"A.One": "mismatch", "A.Two": "pass", "A.Three": "mismatch"}
        status, said, all_said, processes = self.run_tests(tests)
        self.assertEqual((status, said), (1, "1 passed, 2 failed, 0 skipped: A.One A.Three"))
        self.assertIn("A.Three: failed\nexpected 1, got 2 of A.Three\n", all_said)
        self.assertEqual(len(processes), 1)
        status, said, _, _ = self.run_tests({f"A.T{i}": "mismatch" for i in range(14)})
        self.assertTrue(said.startswith("0 passed, 14 failed, 0 skipped: A.T0 A.T1 ") and said.endswith(" A.T11 and 2 more"), said)

    def test_what_failed_behind_a_fault_runs_again_and_nothing_else(self):
        tests = {"A.One": "pass", "A.Bad": "mismatch", "A.Two/0": "fault", "A.Three": "pass", "A.Host": "host", "B/0.Four": "fault",
                 "C.Five": "mismatch", "C.Six": "skip"}
        status, said, all_said, processes = self.run_tests(tests)
        self.assertEqual((status, said), (1, "3 passed, 4 failed, 1 skipped: A.Bad A.Two/0 B/0.Four C.Five"))
        self.assertEqual(processes, [list(tests), ["A.Three", "B/0.Four", "C.Five"], ["C.Five"]])
        self.assertIn("A.Two/0: failed\nan illegal memory access was encountered\n", all_said)
        self.assertNotIn("A.Three: ", all_said)

    def test_a_crash_and_a_hang_fail_alone(self):
        tests = {"A.One": "pass", "A.Crash": "crash", "A.Two": "pass", "A.Hang": "hang", "A.Three": "pass"}
        status, said, all_said, processes = self.run_tests(tests, seconds="18")
        self.assertEqual((status, said), (1, "3 passed, 2 failed, 0 skipped: A.Crash A.Hang"))
        self.assertIn("A.Crash: exit status -6", all_said)
        self.assertIn("A.Hang: nothing printed for 6 s", all_said)
        self.assertEqual(len(processes), 3)
        self.assertTrue(self.ends((self.root / "log.child").read_text()), "its child lives")

    def test_a_crash_between_tests_hides_none(self):
        status, said, _, processes = self.run_tests({"A.One": "last", "B.Two": "pass", "B.DISABLED_Three": "pass"}, "[AB].[OT]*")
        self.assertEqual((status, said), (1, "2 passed, 0 failed, 0 skipped (exit status -6)"))
        self.assertEqual(processes, [["A.One", "B.Two"], ["B.Two"]])

    def test_what_a_test_prints_hides_nothing(self):
        self.assertEqual(self.run_tests({"A.One": "noisy", "A.Two": "pass"})[:2], (0, "2 passed, 0 failed, 0 skipped"))

    def test_what_no_time_is_left_for_is_told(self):
        status, said, _, _ = self.run_tests({"A.One": "pass", "A.Hang": "hang", "A.Two": "pass"}, seconds="4")
        self.assertEqual((status, said),
                         (1, "1 passed, 1 failed, 0 skipped, 1 not run, or behind a fault alone: A.Hang"))

    def test_no_test_and_an_exit_that_is_none_of_a_tests_fail(self):
        self.assertEqual(self.run_tests({"A.One": "pass"}, "B.*")[:2], (1, "0 passed, 0 failed, 0 skipped"))
        self.assertEqual(self.run_tests({"A.One": "pass"}, trouble=86)[:2],
                         (1, "1 passed, 0 failed, 0 skipped (exit status 86)"))
        run = subprocess.run([sys.executable, SCRIPT, self.root / "none", "*", "1"], capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 1)
        self.assertIn("0 passed: ", run.stdout)


if __name__ == "__main__":
    unittest.main()
