# SPDX-License-Identifier: Apache-2.0
"""The parts of bench/peers that judge: comparison of lists, arithmetic, load, report. They need no peer.

  python3 tests/bench/peers_test.py
"""

import io
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench" / "peers"))

import cells
import machine
import measure
import progress
import registry
import report
import run
import run_gpu
from compare import compare, compare_any, illegal_rate, require_items

REFERENCE = [[[[1, 1], -1.0], [[1, 2], -2.0], [[3, 0], -2.00005], [[2, 2], -3.0]]]
MODEL = {
    "A": dict(d_model=128, num_heads=6, d_kv=64, d_ff=1024, num_layers=4, num_decoder_layers=4,
              feed_forward_proj="relu", tokens=80, vocabulary=1100, levels=[256] * 4, prefixes=[256, 9000, 10000, 10000]),
    "B": dict(d_model=256, num_heads=8, d_kv=32, d_ff=1024, num_layers=4, num_decoder_layers=4,
              feed_forward_proj="gated-gelu", tokens=80, vocabulary=24676, levels=[8192] * 3,
              prefixes=[5700, 10000, 10000]),
}


def changed(change, constrained=True, precision="fp32"):
    lists = json.loads(json.dumps(REFERENCE))
    change(lists[0])
    return compare(REFERENCE, lists, constrained, precision)


class Compare(unittest.TestCase):
    def test_equal_lists_pass(self):
        found = changed(lambda entries: None)
        self.assertEqual((found.failures, found.reordered, found.other_members, found.overlap), ([], 0, 0, 1.0))

    def test_a_score_beyond_the_tolerance_fails(self):
        self.assertFalse(changed(lambda entries: entries[3].__setitem__(1, -3.00004)).failures)
        self.assertIn("a score differs", changed(lambda entries: entries[3].__setitem__(1, -3.0001)).failures[0])
        self.assertTrue(changed(lambda entries: entries[3].__setitem__(1, float("nan"))).failures)

    def test_order_may_differ_among_near_ties_alone(self):
        def swap(i, j):
            return lambda entries: entries.insert(j, entries.pop(i))
        found = changed(swap(2, 1))
        self.assertEqual((found.failures, found.reordered), ([], 1))
        self.assertIn("order differs", changed(swap(3, 0)).failures[0])

    def test_members(self):
        self.assertIn("3 hypotheses", changed(lambda entries: entries.pop()).failures[0])
        twice = changed(lambda entries: entries.__setitem__(1, entries[0]))
        self.assertEqual(twice.other_members, 1)
        lists = [[[[9, 9], -1.5]] + REFERENCE[0][:3]] * 3
        self.assertIn("other members", compare(REFERENCE * 3, lists, True, "fp32").failures[-1])
        tail = changed(lambda entries: entries.__setitem__(3, [[7, 7], -3.00005]))
        self.assertEqual((tail.failures, tail.other_members), ([], 0))

    def test_a_single_list_may_not_be_wholly_different(self):
        reference = [[[[i, j], -1.0 * j] for j in range(20)] for i in range(2)]
        lists = [reference[0], [[[7, j], score] for (_, j), score in reference[1]]]
        found = compare(reference, lists, True, "fp32")
        self.assertEqual((found.other_members, found.lost), (1, 19))
        self.assertIn("19 of 40 hypotheses are missing", found.failures[0])
        lists[1] = [*reference[1][:9], [[7, 9], -9.0], *reference[1][10:]]  # a beam cut between near ties
        self.assertEqual(compare(reference, lists, True, "fp32").failures, [])

    def test_a_list_that_was_not_returned_fails(self):
        for constrained, precision in ((True, "fp32"), (True, "int8"), (False, "int8")):
            self.assertIn("0 lists, the reference has 1",
                          compare(REFERENCE, [], constrained, precision).failures[0])

    def test_open_vocabulary_is_judged_by_overlap(self):
        other = [[[[9, 9], -1.5]] + REFERENCE[0][:3]]
        self.assertTrue(compare(REFERENCE, other, False, "fp32").failures)
        self.assertFalse(compare(REFERENCE, other, False, "int8").failures)
        self.assertEqual(compare(REFERENCE, other, False, "int8").overlap, 0.75)

    def test_double_precision_may_be_the_one_that_agrees(self):
        lists = [[[tokens, score - 8e-5] for tokens, score in REFERENCE[0]]]
        exact = [[[tokens, score - 6e-5] for tokens, score in REFERENCE[0]]]
        found = compare_any({"fp32": REFERENCE, "double": exact}, lists, True, "fp32")
        self.assertEqual((found.failures, found.reference), ([], "double"))
        found = compare_any({"fp32": REFERENCE, "double": REFERENCE}, lists, True, "fp32")
        self.assertTrue(found.failures)
        self.assertEqual(compare_any({"fp32": REFERENCE}, REFERENCE, True, "fp32").reference, "fp32")

    def test_narrow_precisions_are_judged_by_overlap(self):
        lists = [[[[1, 1], -1.2], [[1, 2], -2.3], [[3, 0], -2.4], [[9, 9], -3.0]]]
        self.assertIn("finds 75.0%", compare(REFERENCE, lists, True, "int8").failures[0])
        lists[0][3][0] = [2, 2]
        self.assertFalse(compare(REFERENCE, lists, True, "int8").failures)

    def test_who_searches_the_catalogue_answers_with_items_alone(self):
        lists = [[*REFERENCE[0][:3], [[9, 9], -3.0]]]
        rate = illegal_rate(lists, [[1, 1], [1, 2], [3, 0], [2, 2]])
        found = compare(REFERENCE * 2, lists + REFERENCE, True, "bf16")
        self.assertFalse(found.failures)  # overlap alone would let it pass
        require_items(found, rate, constrained=False)
        self.assertFalse(found.failures)
        require_items(found, rate, constrained=True)
        self.assertIn("25.0% of its answers are no items", found.failures[0])

    def test_illegal_rate(self):
        self.assertEqual(illegal_rate(REFERENCE, [[1, 1], [3, 0]]), 0.5)


class Cells(unittest.TestCase):
    def test_work_of_the_published_sizes(self):
        for size, beams, giga in (("A", 20, 0.72), ("A", 512, 7.1), ("B", 20, 1.7), ("B", 512, 23.7)):
            self.assertAlmostEqual(cells.flops(MODEL[size], beams, True) / 1e9 / giga, 1, delta=0.03)

    def test_an_open_search_has_more_rows_where_the_trie_is_narrow(self):
        self.assertGreater(cells.flops(MODEL["A"], 512, False), cells.flops(MODEL["A"], 512, True))

    def test_shapes(self):
        self.assertEqual(cells.parse_shapes("A:20,B:512"), [("A", 20), ("B", 512)])
        for bad in ("C:20", "A", "A:0", "A:20;B:20", "A:2000"):
            with self.assertRaisesRegex(ValueError, "is no cell"):
                cells.parse_shapes(bad)

    def test_cells_that_share_peers_follow_each_other(self):
        made = cells.make_cells(cells.parse_shapes("A:20,B:20,A:512"), [1, 16], [1, 2])
        self.assertEqual(len(set(made)), 12)
        teams = [(cell.size, cell.threads) for cell in made]
        self.assertEqual(len(set(teams)), sum(a != b for a, b in zip(teams, [None, *teams])))


class Arguments(unittest.TestCase):
    def parse(self, *arguments):
        with mock.patch("sys.argv", ["run.py", "--beamline", "b", "--peer-binary", "p", *arguments]), \
                mock.patch("sys.stderr", io.StringIO()) as errors, \
                mock.patch("os.sched_getaffinity", lambda _: {0, 1}):
            try:
                return run.parse_arguments()
            except SystemExit:
                return errors.getvalue()

    def test_defaults(self):
        self.assertEqual(self.parse().threads, [1, 2])
        self.assertEqual(self.parse("--threads", "2", "--max-load", "0").max_load, 0)

    def test_more_threads_than_cores_are_refused(self):
        self.assertIn("4 threads would share the 2 cores", self.parse("--threads", "1,4"))

    def test_limits_that_would_measure_nothing_or_not_limit(self):
        for name, value in (("--rounds", "0"), ("--seconds", "-1"), ("--max-load", "nan"), ("--seconds", "inf")):
            self.assertIn("must be at least", self.parse(name, value), name)
        self.assertIn("invalid number value", self.parse("--rounds", "many"))

    def test_a_forced_cell_is_no_result_for_who_does_not_force(self):
        cell = cells.Cell("A", 20, 1, 1)
        with tempfile.TemporaryDirectory() as name, mock.patch("builtins.print"):
            folder = pathlib.Path(name) / "cells"
            folder.mkdir()
            self.assertEqual(run.missing([cell], folder, "k", False), [cell])
            (folder / cell.file_name).write_text(json.dumps(document(forced=True)))
            self.assertEqual(run.missing([cell], folder, "k", False), [cell])
            self.assertEqual(run.missing([cell], folder, "k", False, force=True), [])
            (folder / cell.file_name).write_text(json.dumps(document()))
            self.assertEqual(run.missing([cell], folder, "k", False), [])
            self.assertEqual(run.missing([cell], folder, "other", False), [cell])


class Machine(unittest.TestCase):
    STAT = "cpu  100 10 50 1000 40 1 2 3 7 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n"

    def test_busy_ticks(self):
        self.assertEqual(machine.busy_ticks(self.STAT), 100 + 10 + 50 + 1 + 2 + 3)

    def test_own_work_is_not_foreign(self):
        tick = machine.TICK
        self.assertEqual(machine.foreign_cores((10, 500, 70), (12, 500 + 3 * tick, 70 + 2 * tick)), 0.5)
        self.assertEqual(machine.foreign_cores((10, 500, 70), (12, 500, 75)), 0)  # ticks are counted at different moments

    def test_a_process_that_has_ended_counts_nothing(self):
        self.assertEqual(machine.process_ticks(1 << 30), 0)

    def test_a_busy_machine_is_refused_with_load_and_limit(self):
        limits = measure.Limits(rounds=1, seconds=1, max_load=-1, force=False)
        with self.assertRaisesRegex(measure.BusyMachine, r"cores busy, the limit is -1\.00 \(load average"):
            measure.require_quiet(limits, seconds=0.05)
        limits.force = True
        measure.require_quiet(limits, seconds=0.05)


def document(beams=20, forced=False, **milliseconds):
    cell = cells.Cell("A", beams, 1, 1)
    peers = {name: {"ms": values, "foreign_cores": 0.01, "requests_per_run": 1} for name, values in milliseconds.items()}
    return {"fingerprint": "k", "cell": vars(cell).copy(), "forced": forced, "max_load": 0.2, "rounds": 5, "time": 0,
            "commit": "c", "machine": {"cpu": "x", "cores": 2, "features": []}, "model": MODEL["A"],
            "logits_deviation": 1.5, "versions": {}, "peers": peers}


class Report(unittest.TestCase):
    def made(self, *documents):
        return report.Report(list(documents))

    def test_ratios_percentiles_and_share_of_the_ceiling(self):
        made = self.made(document(beamline=[10, 9, 11], ctranslate2_fp32=[20, 18, 99], gemm=[200, 200]))
        cell = cells.Cell("A", 20, 1, 1)
        row = made.rows[cell]["beamline"]
        self.assertEqual((row.p50, row.tail, row.least), (10, ("max", 11), 9))
        self.assertIn("| Beamline | 10.00 | max 11.00 | 9.00 | 3 |", made.markdown())
        many = self.made(document(beamline=range(1, 201), gemm=[200]))
        self.assertIn("| Beamline | 100.50 | 199.00 | 1.00 | 200 |", many.markdown())
        self.assertEqual(made.ratio(cell, "ctranslate2_fp32"), 2)
        rate, ceiling = cells.flops(MODEL["A"], 20, True) / 10e-3, 2 * 2048**3 / 200e-3
        self.assertAlmostEqual(row.gemm_share, rate / ceiling)
        self.assertIn("| over CTranslate2 fp32 (open), batch 1, one core: A, 20 | 1.6x | 2.00x | met |", made.markdown())
        slow = self.made(document(beamline=[15], ctranslate2_fp32=[20], gemm=[200]))
        self.assertIn("1.33x | missed |", slow.markdown())

    def test_best_precisions_are_judged_where_there_is_amx(self):
        best = document(beamline=[10], beamline_int8=[4], ctranslate2_fp32=[20], ctranslate2_int8=[12], gemm=[200])
        self.assertNotIn("best precision", self.made(best).markdown())
        best["machine"]["features"] = ["amx_int8"]
        self.assertIn("best precision over CTranslate2's best (open), batch 1, one core: A, 20 | 2.5x | 3.00x | met |",
                      self.made(best).markdown())

    def test_the_checkout_is_not_taken_for_what_the_binaries_are_of(self):
        plain = document(beamline=[1], gemm=[1])
        self.assertIn("; checkout c  \n", self.made(plain).markdown())
        plain |= {"commit": "c-dirty", "build": "/elsewhere"}
        self.assertIn("; checkout c-dirty (edited since its commit); the binaries are those of /elsewhere, which",
                      self.made(plain).markdown())

    def test_forced_results_are_marked(self):
        self.assertNotIn("FORCED", self.made(document(beamline=[1], gemm=[1])).markdown())
        self.assertIn("FORCED", self.made(document(forced=True, beamline=[1], gemm=[1])).markdown())

    def test_changed_priorities_are_told(self):
        niced = document(beamline=[1], gemm=[1])
        self.assertNotIn("nice", self.made(niced).markdown())
        niced["peers"]["gemm"]["nice"] = 15
        self.assertIn("at nice 0, 15", self.made(niced).markdown())

    def test_failures_are_told_and_count(self):
        broken = document(beamline=[1], gemm=[1], optimum=[])
        broken["peers"]["optimum"]["error"] = "ended with status 1"
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder)
            (out / "cells").mkdir()
            (out / "cells" / "a.json").write_text(json.dumps(broken))
            self.assertEqual(report.write(out, "k"), 1)
            self.assertEqual(report.write(out, "another program"), 1)
            (out / "cells" / "a.json").write_text(json.dumps(document(beamline=[1], gemm=[1])))
            self.assertEqual(report.write(out, "k"), 0)
            self.assertTrue(json.loads((out / "report.json").read_text())["cells"])
        self.assertIn("ended with status 1", self.made(broken).markdown())


class Estimate(unittest.TestCase):
    def test_the_time_left_shrinks_and_ends_at_nothing(self):
        limits = measure.Limits(rounds=5, seconds=1, max_load=0.2, force=False)
        wanted = cells.make_cells([("A", 20), ("B", 512)], [1], [1])
        told = progress.Progress(wanted, registry.ENTRIES, limits)
        lengths = []
        for cell in wanted:
            told.begin(cell)
            lengths.append(told.left())
            told.end(cell)
        lengths.append(told.left())
        self.assertEqual(sorted(lengths, reverse=True), lengths)
        self.assertEqual(lengths[-1], 0)

    def test_a_plan_needs_nothing_built_and_leaves_nothing(self):
        script = pathlib.Path(registry.__file__).parent / "run.sh"
        with tempfile.TemporaryDirectory() as folder:
            result = subprocess.run(
                ["bash", script, "--plan", "--cells", "A:20", "--batch", "1", "--threads", "1", "--out", f"{folder}/out"],
                capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "HOME": folder})
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn("A 20 beams, batch 1, 1 thread: about ", result.stdout)
            self.assertEqual(list(pathlib.Path(folder).iterdir()), [])


LISTS = [[[[1, 1], -1.0], [[2, 2], -2.0]]] * 16


class FakeTime:
    """A clock that only those who sleep move."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class FakeProcess:
    """A peer that answers at once, by its name: how fast, and what is wrong with it."""

    broken = None
    slow = {}

    def __init__(self, command, threads, log_path):
        self.name, self.stopped = log_path.stem, False
        FakeProcess.all.append(self)

    def ask(self, question, timeout):
        what = question["do"]
        if takes := self.slow.get((self.name, what)):
            self.time.sleep(min(takes, timeout))
            if takes > timeout:
                raise run_gpu.PeerError("in time")
        if what == "load":
            if self.name == self.broken:
                raise run_gpu.PeerError("out of memory")
            self.device, self.dtype = question["options"]["device"], question["options"]["dtype"]
            return {"versions": {self.name: "1"}}
        if what == "cell":
            if self.name == "transformers_compiled" or self.late:
                self.time.sleep(0.02 if self.late else 0)
                raise run_gpu.PeerError("no answer to 'cell' in time")
            return {"setting": {}, "tried": [], "requests_per_run": question["batch"]}
        if what == "answer":
            lists = LISTS[: len(question["requests"])]
            return {"lists": [entries[:1] for entries in lists] if self.name == "torch_graph" and self.wrong else lists}
        return {"ms": [{"beamline": 1.0, "torch_graph": 1.4, "transformers": 30.0}.get(self.name, 19.0)] * 2}

    def stop(self):
        self.stopped = True


class RunGpu(unittest.TestCase):
    def run_it(self, wrong, *options, late=False):
        FakeProcess.all, FakeProcess.wrong, FakeProcess.late, FakeProcess.time = [], wrong, late, FakeTime()
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        folder = pathlib.Path(made.name)
        (folder / "workload.json").write_text(json.dumps({"sids": [[1, 1], [2, 2]]}))
        out = io.StringIO()
        arguments = ["run_gpu.py", "--beamline", "b", "--peer-binary", "p", "--rounds", "2",
                     "--logs", f"{folder}/logs", *options]
        with mock.patch.object(sys, "argv", arguments), mock.patch.object(run_gpu, "PeerProcess", FakeProcess), \
             mock.patch.object(run_gpu, "time", FakeProcess.time), \
             mock.patch.object(run_gpu.Preparation, "folder", lambda *_: folder), mock.patch("sys.stdout", out):
            status = run_gpu.Bench(run_gpu.parse_arguments()).run()
        self.assertTrue(all(process.stopped for process in FakeProcess.all))
        return status, [json.loads(line) for line in out.getvalue().splitlines()]

    def test_ratios_and_goals(self):
        peers = ["beamline", "beamline_fp32", "torch_graph", "transformers", "transformers_open"]
        status, lines = self.run_it(False, "--peers", ",".join(peers), "--batches", "1,16")
        self.assertEqual(status, 0)
        measured = [line for line in lines if "ms_per_request" in line]
        self.assertEqual([(line["size"], line["batch"], line["peer"]) for line in measured],
                         [(size, batch, peer) for size in ("E0", "E1") for batch in (1, 16) for peer in peers
                          if (size, peer) != ("E1", "beamline_fp32")])
        self.assertEqual({line["dtype"] for line in measured if line["peer"] != "beamline_fp32"}, {"bf16"})
        self.assertEqual({process.dtype for process in FakeProcess.all if process.name == "beamline_fp32"}, {"fp32"})
        self.assertEqual({process.device for process in FakeProcess.all}, {"cuda"})
        self.assertEqual((measured[2]["runs"], measured[2]["requests_per_s"]), (4, 1e3 / 1.4))
        met = {(line["size"], line["batch"], line["peer"]): line["met"] for line in lines if "goal" in line}
        self.assertEqual({key: value for key, value in met.items() if key[2] == "torch_graph"},
                         {("E1", 1, "torch_graph"): False, ("E1", 16, "torch_graph"): True,
                          ("E0", 1, "torch_graph"): False, ("E0", 16, "torch_graph"): False})
        self.assertTrue(met["E1", 1, "transformers"])
        self.assertFalse(met["E1", 1, "transformers_open"])

    def test_other_settings_are_no_measure_of_a_goal(self):
        for options in (["--beams", "32"], ["--dtype", "fp32"], ["--device", "cpu"]):
            _, lines = self.run_it(False, "--peers", "beamline,torch_graph", "--sizes", "E0", "--batches", "1", *options)
            self.assertEqual([line["peer"] for line in lines], ["beamline", "torch_graph"], options)

    def test_what_there_is_no_time_for_is_skipped(self):
        status, lines = self.run_it(False, "--peers", "beamline,torch_graph", "--limit", "0.01", late=True)
        self.assertEqual(status, 0)
        self.assertEqual(lines, [{"skipped": size, "reason": "--limit 0.01 s has passed"} for size in ("E0", "E1")])

    def test_what_was_measured_counts_though_time_runs_out(self):
        slow = {("transformers_compiled", "cell"): 60, ("beamline", "run"): 0.05, ("torch_graph", "run"): 0.05}
        with mock.patch.object(FakeProcess, "slow", slow):
            status, lines = self.run_it(False, "--peers", "beamline,torch_graph,transformers_compiled", "--sizes", "E0", "--rounds",
                                        "1000", "--limit", "2", "--batches", "1,16")
        self.assertEqual(status, 0)
        self.assertEqual([(line["skipped"], line["batch"]) for line in lines if "skipped" in line],
                         [("transformers_compiled", 1), ("beamline", 16), ("torch_graph", 16)])
        measured = [line for line in lines if "ms_per_request" in line]
        self.assertEqual([(line["peer"], line["batch"]) for line in measured], [("beamline", 1), ("torch_graph", 1)])
        self.assertGreater(measured[0]["runs"], 2)
        self.assertEqual([line["peer"] for line in lines if "goal" in line], ["torch_graph"])

    def test_double_precision_is_asked_for_where_fp32_is_compared_and_may_fail(self):
        def names(*options):
            status, lines = self.run_it(False, "--sizes", "E0", "--batches", "1", *options)
            return status, [process.name for process in FakeProcess.all if process.name.startswith("transformers")], lines
        self.assertEqual(names("--peers", "beamline")[:2], (0, ["transformers"]))
        self.assertEqual(names("--peers", "beamline,beamline_fp32")[:2], (0, ["transformers", "transformers_double"]))
        with mock.patch.object(FakeProcess, "broken", "transformers_double"):
            status, _, lines = names("--peers", "beamline,beamline_fp32")
        self.assertEqual((status, lines[0]["reference"]), (1, "transformers in double precision"))
        self.assertEqual([line["peer"] for line in lines if "ms_per_request" in line], ["beamline", "beamline_fp32"])

    def test_wrong_answers_and_late_peers_are_not_measured(self):
        status, lines = self.run_it(True, "--sizes", "E0", "--batches", "1",
                                    "--peers", "beamline,torch_graph,transformers_compiled")
        self.assertEqual(status, 1)
        errors = {line["peer"]: line["error"] for line in lines if "error" in line}
        self.assertIn("finds 50.0% of the reference's lists", errors["torch_graph"])
        self.assertIn("in time", errors["transformers_compiled"])
        self.assertEqual([line["peer"] for line in lines if "ms_per_request" in line], ["beamline"])
        self.assertFalse([line for line in lines if "goal" in line])


if __name__ == "__main__":
    unittest.main()
