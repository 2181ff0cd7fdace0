# SPDX-License-Identifier: Apache-2.0
"""bench/server/verdict.py: good numbers pass, and each claim fails where its number is bad."""
import copy
import json
import pathlib
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench" / "server"))
import verdict  # noqa: E402


def summary(p50, p99, maximum):
    return {"count": 1000, "max": maximum, "p50": {"value": p50}, "p99": {"value": p99}}


def cell(**changes):
    base = {"rate": 100.0, "seconds": 10, "deadline_ms": 200.0, "beam": 64, "requests": 1000, "answered": 1000, "late": 0, "refused": 0,
            "refused_without_hint": 0, "expired": 0, "failed": 0, "goodput": 100.0, "context_cached": 0,
            "latency_ms": summary(10, 50, 90), "refusal_ms": {"count": 0}, "narrowing": {"0": 1000}, "beams": {"64": 1000},
            "lag_ms": summary(0.01, 0.1, 1), "stages_ms": {"overhead": summary(0.2, 0.9, 2)}, "server_cpu_ms": 1.1,
            "server_cpu_overhead_ms": 0.1}
    return {**base, **changes}


def search(rate):
    return {"capacity": {"rate": rate, "goodput_percent": 99, "deadline_ms": 200}, "cells": [cell(rate=2 * rate), cell(rate=rate)]}


GOOD = {
    "capacity": [search(rate) for rate in (100.0, 100.0, 90.0, 100.0)],
    "light": {"cells": [cell(rate=80.0)]},
    "heavy": [{"cells": [cell(rate=rate, requests=2000, answered=1000, refused=990, expired=10, goodput=97.0,
                              refusal_ms=summary(0.5, 2, 9))]} for rate in (200.0, 180.0)],
    "classes": {"cells": [{**cell(rate=200.0, requests=2000), "classes": {"critical": cell(), "default": cell(answered=400),
                                                           "sheddable": cell(answered=10)}}]},
    "narrowing": {"cells": [cell(rate=200.0, requests=2000, goodput=150.0, narrowing={"0": 5, "1": 900},
                                 beams={"64": 5, "32": 900})]},
}
BEFORE = """
beamline_request_duration_seconds_bucket{code="RESOURCE_EXHAUSTED",le="0.005"} 100
beamline_request_duration_seconds_count{code="RESOURCE_EXHAUSTED"} 200
"""
AFTER = """
beamline_request_duration_seconds_count{code="OK"} 1000
beamline_request_duration_seconds_bucket{code="RESOURCE_EXHAUSTED",le="0.0025"} 900
beamline_request_duration_seconds_bucket{code="RESOURCE_EXHAUSTED",le="0.005"} 1089
beamline_request_duration_seconds_count{code="RESOURCE_EXHAUSTED"} 1190
"""


def failing(runs=GOOD, metrics=AFTER, rss=(300.0, 310.0)):
    pages = [("", ""), (BEFORE, metrics)]  # before the first refusal there is no histogram
    return [claim.text for claim in verdict.overload(runs, pages, rss) if not claim.holds]


class Overload(unittest.TestCase):
    def test_good_numbers_pass(self):
        self.assertEqual(failing(), [])

    def one_fails(self, words, **arguments):
        texts = failing(**arguments)
        self.assertEqual(len(texts), 1, texts)
        self.assertIn(words, texts[0])

    def changed(self, run, **changes):
        runs = copy.deepcopy(GOOD)
        (runs[run][-1] if isinstance(runs[run], list) else runs[run])["cells"][0].update(changes)
        return runs

    def test_goodput_is_held_against_the_searches_around_its_turn(self):
        runs = copy.deepcopy(GOOD)
        runs["capacity"][0] = search(1000.0)  # before light: an earlier hour
        runs["light"] = {"cells": [cell(rate=800.0, requests=8000, answered=8000)]}
        self.assertEqual(failing(runs=runs), [])
        runs["capacity"][2] = search(110.0)  # between the turns: the larger one for either
        runs["heavy"][1]["cells"][0].update(rate=220.0, requests=2200)
        self.assertIn("97.0/s answered in time, 88% of the larger searches around, 110.0", "".join(failing(runs=runs)))
        del runs["capacity"][3]
        with self.assertRaisesRegex(ValueError, "2 turns of heavy need a search before and behind each, not 2 searches"):
            failing(runs=runs)

    def test_a_search_that_did_not_end_in_its_capacity_is_none(self):
        for changes in ({"rate": 101.0}, {"refused": 1}, {"failed": 1}, {"late": 11}, {"answered": 989}, {"requests": 0}):
            runs = copy.deepcopy(GOOD)
            runs["capacity"][1]["cells"][-1].update(changes)
            self.one_fails("around the turns", runs=runs)

    def test_another_load_than_the_claims_speak_of_fails(self):
        for run in ("light", "heavy", "classes", "narrowing"):
            rate = (GOOD[run][-1] if run == "heavy" else GOOD[run])["cells"][0]["rate"]
            self.one_fails(f"NOT {'heavy 2' if run == 'heavy' else run}", runs=self.changed(run, rate=0.9 * rate))
        self.one_fails("NOT light 0", runs=self.changed("light", requests=0, answered=0))
        self.one_fails("late by 2.10 ms at P99 (at most 2)", runs=self.changed("narrowing", lag_ms=summary(0.1, 2.1, 9)))

    def test_each_claim_can_fail(self):
        self.one_fails("80.0/s for 10 s", runs=self.changed("light", answered=999, refused=1))
        self.one_fails("80.0/s for 10 s", runs=self.changed("light", late=1))
        self.one_fails("200.0 + 180.0/s for 20 s", runs=self.changed("heavy", goodput=82.0))
        self.one_fails("refused at the door", runs=self.changed("heavy", refused=890, expired=110))
        self.one_fails("refused at the door", runs=self.changed("heavy", failed=1))
        self.one_fails("hint", runs=self.changed("heavy", refused_without_hint=1))
        self.one_fails("as the caller sees it", runs=self.changed("heavy", refusal_ms=summary(0.5, 5.1, 9)))
        self.one_fails("as the caller sees it", runs=self.changed("heavy", refusal_ms={"count": 0}))
        self.one_fails("inside the server", metrics=AFTER.replace(" 1089", " 1080"))
        self.one_fails("inside the server", metrics=BEFORE)
        self.one_fails("memory", rss=(300.0, 400.0))
        self.one_fails("without a ladder", runs=self.changed("heavy", narrowing={"0": 990, "1": 10}))
        self.one_fails("without a ladder", runs=self.changed("heavy", beams={"8": 1000}))
        self.one_fails("with a ladder", runs=self.changed("narrowing", beams={"0": 905}))
        self.one_fails("with a ladder", runs=self.changed("narrowing", narrowing={"0": 1000}))
        self.one_fails("with a ladder", runs=self.changed("narrowing", goodput=90.0))
        for name, changes in (("critical", {"answered": 980}), ("critical", {"late": 11}), ("sheddable", {"answered": 60}),
                              ("default", {"answered": 10})):
            runs = copy.deepcopy(GOOD)
            runs["classes"]["cells"][0]["classes"][name].update(changes)
            self.one_fails("by class", runs=runs)

    def test_the_folder_is_read_as_the_script_fills_it(self):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            for run in ("capacity-0", "light", "capacity-1", "heavy-1", "capacity-2", "heavy-2", "capacity-3", "classes", "narrowing"):
                (folder / f"{run}.json").write_text(json.dumps({"name": run, "target": {"server": "127.0.0.1:1"}}))
                (folder / f"{run}.metrics").write_text(run)
                (folder / f"{run}.rss").write_text(f"{1024 * len(run)}\n")
            runs, pages, rss = verdict.overload_of(folder)
        names = {key: [run["name"] for run in value] if isinstance(value, list) else value["name"] for key, value in runs.items()}
        self.assertEqual(names, {"capacity": ["capacity-0", "capacity-1", "capacity-2", "capacity-3"], "light": "light",
                                 "heavy": ["heavy-1", "heavy-2"], "classes": "classes", "narrowing": "narrowing"})
        self.assertEqual(pages, [("capacity-1", "heavy-1"), ("capacity-2", "heavy-2")])
        self.assertEqual(rss, (5, 7))
        self.assertNotIn("server", runs["light"]["target"])


class Overhead(unittest.TestCase):
    def holds(self, **changes):
        return [claim.holds for claim in verdict.overhead({"cells": [cell(**changes)]})]

    def test_both_numbers_are_judged(self):
        self.assertEqual(self.holds(), [True, True])
        self.assertEqual(self.holds(server_cpu_overhead_ms=0.16), [False, True])
        self.assertEqual(self.holds(stages_ms={"overhead": summary(0.31, 1, 2)}), [True, False])

    def test_nothing_measured_is_no_pass(self):
        self.assertEqual(self.holds(answered=999), [False])
        self.assertEqual(self.holds(context_cached=1), [False])
        self.assertEqual(self.holds(server_cpu_overhead_ms=-0.1), [False])
        unknown = cell()
        del unknown["server_cpu_overhead_ms"]
        self.assertEqual([claim.holds for claim in verdict.overhead({"cells": [unknown]})], [False])
        self.assertEqual(self.holds(lag_ms=summary(0.5, 1.5, 3)), [False])


class Reload(unittest.TestCase):
    QUIET = [(float(i % 10), "OK") for i in range(1000)]

    def holds(self, turns=None, reloads=((0, 700), (0, 3))):
        turns = {"quiet": self.QUIET, "reload": self.QUIET, **(turns or {})}
        return [claim.holds for claim in verdict.reload(turns, reloads, 50.0)[1]]

    def test_each_claim_is_judged(self):
        self.assertEqual(self.holds(), [True, True, True])
        self.assertEqual(self.holds({"reload": [*self.QUIET, (1.0, "UNAVAILABLE")]}), [False, True, True])
        self.assertEqual(self.holds({"quiet": [*self.QUIET, (1.0, "DEADLINE_EXCEEDED")]}), [False, True, True])
        self.assertEqual(self.holds({"reload": [(1.21 * ms, status) for ms, status in self.QUIET]}), [True, True, False])
        self.assertEqual(self.holds(reloads=((0, 700), (1, 3))), [True, False, True])

    def test_nothing_measured_is_no_pass(self):
        self.assertEqual(self.holds({"reload": []}), [False, True, False])
        self.assertEqual(self.holds(reloads=()), [True, False, True])

    def test_samples_are_read(self):
        text = "# 50/s\ndue_ms\tsent_ms\tanswered_ms\tstatus\tbeams\tnarrowing\n1.000\t1.1\t3.500\tOK\t64\t0\n"
        self.assertEqual(verdict.samples(text), [(2.5, "OK")])


if __name__ == "__main__":
    unittest.main()
