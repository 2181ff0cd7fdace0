# SPDX-License-Identifier: Apache-2.0
"""The scripts of bench/quality with a binary that only writes what it should, and what every script says to --help.

  python3 tests/bench/quality_test.py
"""

import gzip
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[2]
QUALITY = ROOT / "bench" / "quality"

FAKE = r"""#!/usr/bin/env python3
import json, pathlib, sys
verb, options = sys.argv[1], dict(zip(sys.argv[2:], sys.argv[3:]))
with open(LOG, "a") as log:
    print(verb, file=log)
if "--nosuch" in sys.argv:
    sys.exit(2)
if verb == "evaluate":
    print("the table")
out = pathlib.Path(options.get("--out", "unused"))
if "--show" not in options:
    (out.parent if verb == "evaluate" else out).mkdir(parents=True, exist_ok=True)
value = {"mean": 0.1, "low": 0.05, "high": 0.2}
metrics = {name: value for name in ("recall_5", "ndcg_5", "recall_10", "ndcg_10")}
systems = [{"name": name, "metrics": metrics} for name in ("model", "popularity", "markov", "item-knn")]
if verb == "import":
    (out / "events.tsv.gz").touch()
elif verb == "tokenize":
    (out / "sids.tsv").touch()
elif verb == "train":
    if "--config" in options:  # what a model's configuration must not leave out
        config = json.load(open(options["--config"]))
        config["level_sizes"], config["d_model"], config["heads"], config["norm_epsilon"], config["positive"]["fusion"]
        config["encoder"]["causal"], config["encoder"]["ffn"]["gated"], config["decoder"]["tied_heads"]
    print("validation R@5 .1000  N@5 .1000  R@10 .1000  N@10 .1000  best")
    curve = [{"epoch": 1, "step": 9, "loss": 1.0, "validation": metrics | {"recall_10": 0.1, "ndcg_10": 0.1}}]
    (out / "training.json").write_text(json.dumps({"options": {}, "parameters": 1, "stopped_early": False, "curve": curve}))
    (out / "model.safetensors").touch()
elif "--show" not in options:
    out.write_text(json.dumps({"users": 3, "catalogue_items": 2, "catalogue_sids": 2,
        "rankings": [{"seen_items": seen, "systems": systems} for seen in ("kept", "removed")]}))
"""


class Quality(unittest.TestCase):
    def setUp(self):
        self.made = tempfile.TemporaryDirectory()
        self.addCleanup(self.made.cleanup)
        self.folder = pathlib.Path(self.made.name)
        self.log = self.folder / "verbs.txt"
        binary = self.folder / "beamline"
        binary.write_text(FAKE.replace("LOG", repr(str(self.log))))
        binary.chmod(0o755)
        self.environment = {"PATH": "/usr/bin:/bin", "HOME": self.made.name, "BEAMLINE": str(binary)}
        (self.folder / "log.tsv").write_text("u1\t1 2 3\n")

    def call(self, script, *arguments, **environment):
        self.log.write_text("")
        done = subprocess.run(["bash", QUALITY / script, *arguments], cwd=self.folder, capture_output=True, text=True,
                              env=self.environment | environment)
        self.verbs = self.log.read_text().split()
        return done

    def refused(self, done, *texts):
        self.assertEqual(done.returncode, 2, done.stderr)
        for text in texts:
            self.assertIn(text, done.stderr)

    def test_a_result_is_reused_for_the_same_data_and_options_alone(self):
        first = self.call("kuairand.sh", "log.tsv", "out", "--epochs", "2", LEVELS="8,8")
        self.assertEqual((first.returncode, self.verbs), (0, ["import", "tokenize", "train", "evaluate"]), first.stderr)
        self.assertEqual(first.stdout.count("the table"), 1)
        again = self.call("kuairand.sh", "log.tsv", f"{self.folder}/out", "--epochs", "2", LEVELS="8,8", THREADS="3")
        self.assertEqual((again.returncode, self.verbs), (0, ["evaluate"]), again.stderr)
        for epochs, environment, then, now in (
                ("3", {}, "< --epochs 2", "> --epochs 3"), ("2", {"SEED": "2"}, "< --seed 1", "> --seed 2"),
                ("2", {"LEVELS": "9"}, "< --levels 8,8", "> --levels 9"), ("2", {"BEAM": "9"}, "< --beam 128", "> --beam 9")):
            other = self.call("kuairand.sh", "log.tsv", "out", "--epochs", epochs, **{"LEVELS": "8,8"} | environment)
            self.refused(other, then, now, "another OUT")
            self.assertEqual(self.verbs, [])
        (self.folder / "log.tsv").write_text("u1\t1 2 4\n")
        self.refused(self.call("kuairand.sh", "log.tsv", "out", "--epochs", "2", LEVELS="8,8"), "import sequences log.tsv ")

    def test_what_was_made_of_another_step_is_no_result_when_that_one_is_remade(self):
        self.assertEqual(self.call("kuairand.sh", "log.tsv", "out").returncode, 0)
        (self.folder / "log.tsv").write_text("u1\t1 2 4\n")
        for gone, now in (("data", "tokenizer/sids.tsv was made otherwise"), ("tokenizer", "model.safetensors was made otherwise"),
                          ("model", "test.json was made otherwise")):
            shutil.rmtree(self.folder / "out" / gone)
            self.refused(self.call("kuairand.sh", "log.tsv", "out"), now)
        (self.folder / "out/test.json").unlink()
        self.assertEqual(self.call("kuairand.sh", "log.tsv", "out").returncode, 0)
        self.assertEqual(self.verbs, ["evaluate"])

    def test_given_folders_count_by_their_bytes_and_threads_not_at_all(self):
        parts = self.folder / "parts"
        parts.mkdir()
        (parts / "config.json").write_text("{}")
        given = ("kuairand.sh", "log.tsv", "out", "--from", "parts")
        self.assertEqual(self.call(*given, "--threads=2").returncode, 0)
        self.assertEqual(self.call(*given, "--threads=3").returncode, 0)
        (parts / "config.json").write_text("{ }")
        self.refused(self.call(*given), "--from parts ")

    def test_a_value_that_is_some_folders_name_is_a_value(self):
        for _ in range(2):  # OUT is called as the seed is
            self.assertEqual(self.call("kuairand.sh", "log.tsv", "1", "--epochs", "1").returncode, 0)
        self.assertEqual(self.verbs, ["evaluate"])

    def test_an_input_below_out_counts_by_its_bytes(self):
        out = self.folder / "w"
        out.mkdir()
        (out / "log.tsv").write_text("u1\t1 2 3\n")
        self.assertEqual(self.call("kuairand.sh", "w/log.tsv", "w").returncode, 0)
        (out / "log.tsv").write_text("u1\t1 2 4\n")
        self.refused(self.call("kuairand.sh", "w/log.tsv", "w"), "import sequences log.tsv ")

    def test_what_a_failed_step_left_is_no_result(self):
        self.refused(self.call("kuairand.sh", "log.tsv", "out", "--nosuch"))
        self.assertEqual(self.call("kuairand.sh", "log.tsv", "out").returncode, 0)
        (self.folder / "out/model/model.safetensors.made-by").unlink()
        self.refused(self.call("kuairand.sh", "log.tsv", "out"), "but not what made it")

    def test_the_binary_and_the_arguments_are_asked_for(self):
        unbuilt = self.call("kuairand.sh", "log.tsv", "out", BEAMLINE="/no/beamline")
        self.refused(unbuilt, "no program '/no/beamline'", "BEAMLINE=build")
        self.refused(self.call("kuairand.sh", "nowhere.tsv", "out"), "nowhere.tsv is not there")
        self.refused(self.call("kuairand.sh", "log.tsv"), "SEQUENCES OUT")

    def test_a_variant_there_is_not(self):
        self.refused(self.call("ablations.sh", "log.tsv", "out", "recipe", "nosuch"), "no variant 'nosuch'", "levels-2048-32")
        self.assertEqual(self.verbs, [])
        done = self.call("ablations.sh", "log.tsv", "out", "recipe", "d-128")
        self.assertEqual(self.verbs, ["import", "tokenize", "train", "train"], done.stderr)
        self.assertEqual([line.split()[0] for line in done.stdout.splitlines()], ["recipe", "d-128"])
        again = self.call("ablations.sh", "log.tsv", "out", "recipe")
        self.assertEqual((again.stdout, self.verbs), (done.stdout.splitlines(True)[0], []))
        self.refused(self.call("ablations.sh", "log.tsv", "out", "recipe", EPOCHS="2"), "> --epochs 2")

    def test_a_report_is_of_this_call_and_stays_in_its_folder(self):
        beauty = self.folder / "beauty"
        beauty.mkdir()
        (beauty / "Beauty.index.json").write_text("{}")
        (beauty / "Beauty.txt").write_text("1 1 2\n")
        (beauty / "item_titles.tsv.gz").write_bytes(gzip.compress(b"1\tA\n2\tB\n"))
        for seeds in ("1,2", "2"):
            done = self.call("beauty.sh", "beauty", "out", "--seeds", seeds, "--shuffled-seeds", "", "--epochs", "1")
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            report = (self.folder / "out/beauty-cpu.md").read_text()
            runs = json.loads((self.folder / "out/beauty-cpu.json").read_text())
            self.assertEqual([str(run["seed"]) for run in runs], seeds.split(","))
            self.assertEqual([f"seed {seed} |" in report for seed in "12"], [seed in seeds for seed in "12"])
            self.assertIn("`beamline train --preset t5-d128 --targets any --device cpu --epochs 1`. Models: ", report)
            self.assertIn("epochs trained: 1. ", report)
            self.assertIn("checkout ", report)
        self.assertEqual(self.verbs, [])
        self.refused(self.call("beauty.sh", "beauty", "out", "--seeds", "1", "--epochs", "2"), "> --epochs 2")
        self.assertEqual(self.call("beauty.sh", "beauty", "out", "--seeds", "1", "--epochs", "1").returncode, 0)
        self.assertEqual(self.verbs, ["train", "evaluate"])
        self.assertIn("## Each day in random order", (self.folder / "out/beauty-cpu.md").read_text())


class Arguments(unittest.TestCase):
    def test_help_is_the_header_and_what_there_is_not_is_refused_by_name(self):
        folders = ("scripts", "bench/quality", "bench/server", "bench/peers", "bench/gpu", "docker")
        scripts = [script for folder in folders for script in (ROOT / folder).glob("*.sh")
                   if script.read_text().startswith("#!") and script.name != "healthcheck.sh"]  # the image's
        self.assertGreaterEqual(len(scripts), 16)
        with tempfile.TemporaryDirectory() as home:
            environment = {"PATH": "/usr/bin:/bin", "HOME": home}  # no build, no cache
            for script in scripts:
                with self.subTest(script.name):
                    asked = [subprocess.run(["bash", os.path.relpath(script, home), option], cwd=home, env=environment,
                                            capture_output=True, text=True) for option in ("-h", "--help", "--nosuch")]
                    self.assertEqual([done.returncode for done in asked], [0, 0, 2], asked[2].stderr)
                    self.assertEqual([asked[0].stderr, asked[1].stderr], ["", ""])
                    self.assertEqual(asked[0].stdout, asked[1].stdout)
                    # Of what is a Python program behind its script, the header is the program's.
                    header = "Beamline beside its peers" if script.name == "run.sh" else script.read_text().splitlines()[2][2:]
                    self.assertIn(header, asked[0].stdout)
                    self.assertIn("--nosuch", asked[2].stderr)
                    self.assertEqual(os.listdir(home), [])


if __name__ == "__main__":
    unittest.main()
