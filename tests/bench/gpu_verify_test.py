#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""bench/gpu/verify.sh over binaries that only say what real ones would: what it runs, counts, skips and writes."""
import http.server
import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def gtest(passed, failed=0):
    """What a binary says of so many tests; asked for those that failed, it fails again."""
    ends = ["      OK"] * passed + [" FAILED "] * failed
    lines = "\n".join(f"[ RUN      ] S.T{i}\n[ {end} ] S.T{i} (1 ms)" for i, end in enumerate(ends))
    lines += f"\n[  PASSED  ] {passed} tests." + (f"\n[  FAILED  ] {failed} test, listed below:" if failed else "")
    return f"cat <<'LOG'\n{lines}\nLOG\nexit {min(failed, 1)}"


PASSES = gtest(7)
FAILS = gtest(2, 1)
STAGES = ["build", "tests", "sanitize", "bench", "engine", "peers", "serial", "portable", "unfenced", "quality", "server",
          "sanitize_engine", "peers_large"]


def until(condition):
    """Whether it becomes true within a minute."""
    for _ in range(1200):
        if condition():
            return True
        time.sleep(0.05)
    return False


class VerifyTest(unittest.TestCase):
    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        (self.root / "bench/gpu").mkdir(parents=True)
        for name in ("verify.sh", "sanitize.sh", "result.py", "run_tests.py"):
            shutil.copy(REPOSITORY / "bench/gpu" / name, self.root / "bench/gpu")
        for name in ("scripts/usage.sh", "bench/peers/goals.py"):
            (self.root / name).parent.mkdir()
            shutil.copy(REPOSITORY / name, self.root / name)
        self.script("bin/nvidia-smi", 'echo "NVIDIA H200, 580.1, 143771 MiB"')
        self.script("bin/compute-sanitizer", '[[ $1 != --help ]] || exit 0; while [[ $1 != carry/* ]]; do shift; done; exec "$@"')
        self.script("carry/beamline_kernels_cuda_test", PASSES)
        self.script("carry/beamline_kernels_cuda_bench", """[[ "$1 $2" == "--skip 0" ]] && echo '{"kernel": "one", "graph_us": 1}'""")
        (self.root / "carry/COMMIT").write_text("abc\n")

    def script(self, path, body):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("#!/usr/bin/env bash\n" + body + "\n")
        file.chmod(0o755)

    def verify(self, *stages, **variables):
        """Exit status, what every stage said by its name, and the whole result."""
        path = f"{self.root}/bin:{os.environ['PATH']}"
        run = subprocess.run(["bash", "bench/gpu/verify.sh", *stages], cwd=self.root, capture_output=True, text=True, errors="replace",
                             env={**os.environ, "PATH": path, **variables}, timeout=120, check=False)
        files = sorted((self.root / "bench/results").glob("gpu-*.json"))
        result = json.loads(files[-1].read_text()) if files else None
        self.written = sorted(path.suffix for path in (self.root / "bench/results").rglob("*"))
        self.printed = run.stdout.splitlines()
        self.log = "".join(file.read_text(errors="replace") for file in sorted((self.root / "bench/results").glob("gpu-*.log")))
        shutil.rmtree(self.root / "bench/results", ignore_errors=True)
        said = {stage["stage"]: stage for stage in result["stages"]} if result else {}
        return run.returncode, said, result

    def test_kernels_alone(self):
        status, said, result = self.verify()
        self.assertEqual(status, 0)
        self.assertEqual(list(said), STAGES)
        self.assertEqual(result["device"], "NVIDIA H200")
        self.assertEqual(result["commit"], "abc")
        self.assertEqual(result["kernels"], [{"kernel": "one", "graph_us": 1}])
        self.assertEqual(said["tests"]["status"], "passed")
        self.assertIn("kernels: 7 passed, 0 failed, 0 skipped", said["tests"]["detail"])
        self.assertIn("not carried (bench/gpu/carry.sh with BEAMLINE_BUILD): backend model decode train oracle",
                      said["tests"]["detail"])
        self.assertIn("kernels: synccheck clean; backend: not carried; ops: not carried; lists: not carried; ",
                      said["sanitize"]["detail"])
        self.assertEqual({goal["verdict"] for goal in result["goals"]}, {"not measured"})
        self.assertEqual([line for line in self.printed if "0.13 B, batch 1, ms" in line],
                         ["-- not measured  0.13 B, batch 1, ms: at most 0.9"])
        for stage, lacks in [("engine", "carry/beamline carry/bundle"), ("sanitize_engine", "model: not carried; decode: not"),
                             ("quality", "carry/beamline carry/model carry/data carry/tokenizer")]:
            self.assertEqual(said[stage]["status"], "skipped")
            self.assertIn(lacks, said[stage]["detail"])
        self.assertEqual(said["server"]["status"], "skipped")

    def test_help_is_given_from_everywhere_and_a_stage_that_is_none_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            for script in (self.root / "bench/gpu/verify.sh", os.path.relpath(self.root / "bench/gpu/verify.sh", folder)):
                for arguments, status in ((["--help"], 0), (["-h"], 0), (["tests", "--help"], 0), (["tests", "test"], 2)):
                    with self.subTest(script=script, arguments=arguments):
                        run = subprocess.run(["bash", script, *arguments], cwd=folder, capture_output=True, text=True, check=False)
                        self.assertEqual(run.returncode, status, run.stderr)
                        self.assertIn("Everything that a machine with a GPU can show" if status == 0 else "unknown argument 'test'",
                                      run.stdout if status == 0 else run.stderr)
                        self.assertEqual(run.stderr if status == 0 else run.stdout, "")
            self.assertEqual(os.listdir(folder), [])
        self.assertFalse((self.root / "bench/results").exists(), "nothing was run")

    def test_without_googletest_the_build_says_so(self):
        (self.root / "carry/beamline_kernels_cuda_test").unlink()
        for tool in ("nvcc", "ninja"):
            self.script(f"bin/{tool}", "true")
        self.script("bin/cmake", """[[ $1 == --build ]] || exit 0
echo "ninja: error: unknown target 'beamline_kernels_cuda_test'"
exit 1""")
        status, said, _ = self.verify("build")
        self.assertEqual((status, said["build"]["detail"]),
                         (1, "the kernels' tests want GoogleTest: install it, or put its sources into carry/googletest"))

    def without_carry(self, configure, carry):
        """A checkout in which everything has to be built, by tools that do as these two say."""
        shutil.rmtree(self.root / "carry", ignore_errors=True)
        for tool in ("nvcc", "ninja"):
            self.script(f"bin/{tool}", "true")
        self.script("tool", PASSES)
        self.script("bin/cmake", """[[ $1 == --build ]] || exit 0
mkdir -p build/cuda-carry/cuda
for name in test bench; do cp tool build/cuda-carry/cuda/beamline_kernels_cuda_$name; done""")
        (self.root / "scripts/lib.sh").write_text(f"configure() {{\n{configure}\n}}\n")
        self.script("bench/gpu/carry.sh", carry)

    def test_all_is_built_where_it_can_be(self):
        carry = 'mkdir carry; cp tool carry/beamline_kernels_cuda_test; cp tool carry/beamline_model_gpu_test; echo "def $1 $BEAMLINE_BUILD" >carry/COMMIT'
        self.script("bin/nvidia-smi", '[[ $* == *compute_cap* ]] && echo 9.0 || echo "NVIDIA H200, 580.1, 143771 MiB"')
        self.without_carry('echo "$@" >configured', carry)
        status, said, result = self.verify("build", "tests")
        self.assertEqual((status, said["build"]["detail"]), (0, "built carry for sm_90a: with the engine"))
        self.assertEqual((self.root / "configured").read_text(), "cuda-release build/cuda-release -DCMAKE_CUDA_ARCHITECTURES=90a-real\n")
        self.assertEqual(result["commit"], "def 90a-real build/cuda-release")
        self.assertIn("kernels: 7 passed, 0 failed, 0 skipped; model: 7 passed", said["tests"]["detail"])
        self.assertIn("takes carry, commit def", self.verify("build")[1]["build"]["detail"], "a second time nothing is built")

    def test_kernels_are_built_where_the_engine_cannot_be(self):
        for configure, carry, why in [
                ('echo "CMake Error at cmake/X.cmake:3 (message):\n  gRPC was not found." >&2; return 1', "exit 9",
                 "the engine cannot be configured: gRPC was not found."),
                ("true", "mkdir carry; cp tool carry/beamline_kernels_cuda_test; exit 3", "building the engine: exit status 3"),
                ("true", "sleep 600", "the engine's build was not done in time, the next call goes on with it")]:
            with self.subTest(why):
                self.without_carry(configure.replace("echo", "echo -e"), carry)
                status, said, _ = self.verify("build", BEAMLINE_STAGE_SECONDS="4")
                self.assertEqual(status, 0)
                self.assertEqual(said["build"]["detail"].strip(), f"built build/cuda-carry/cuda for sm_90a: {why}")
                self.assertFalse((self.root / "carry").exists())
        # What is run says of which commit it is, whatever has become of the sources.
        (self.root / "build/cuda-carry/cuda/COMMIT").write_text("older\n")
        _, said, result = self.verify("tests")
        self.assertIn("kernels: 7 passed", said["tests"]["detail"])
        self.assertEqual(result["commit"], "older")

    def test_only_initcheck_sees_unwritten_memory(self):
        # What the tests poison counts as written.
        self.script("bin/compute-sanitizer", """[[ $1 != --help ]] || { echo "  --destroy-on-device-error arg"; exit; }
[[ $BEAMLINE_PROGRAMMATIC_LAUNCH == 0 ]] || exit 9
echo "$2 ${BEAMLINE_NO_POISON:-poisoned} $*" >>said
while [[ $1 != carry/* ]]; do shift; done
exec "$@\"""")
        self.assertEqual(self.verify("sanitize")[0], 0)
        said = [line.split(" ", 2) for line in (self.root / "said").read_text().splitlines()]
        self.assertEqual([line[:2] for line in said], [["memcheck", "poisoned"], ["racecheck", "poisoned"],
                                                       ["initcheck", "1"], ["synccheck", "poisoned"]])
        self.assertEqual([" --check-api-memory-access no " in line[2] for line in said], [False, False, True, False])
        self.assertEqual([" --report-api-errors no " in line[2] for line in said], [True, False, False, False])
        self.assertEqual([" --destroy-on-device-error kernel " in line[2] for line in said], [True, False, False, False])

    def sanitized(self, **variables):
        """What was run under which tool, in order, and what the stage said; binaries list Suite.A to Suite.F."""
        tests = [f"Suite.{name}" for name in "ABCDEF"]
        for name in ("kernels_cuda", "backend_gpu", "model_gpu", "decode_gpu", "train_gpu", "oracle_gpu"):
            self.script(f"carry/beamline_{name}_test", f"""
[[ $1 != --gtest_list_tests ]] || {{ printf 'Suite.\\n'; printf '  %s\\n' A 'B  # of two' C D E F DISABLED_G; exit; }}
[[ ! -e carry/slow-{name} ]] || {{ printf '[ RUN      ] %s\\n[       OK ] %s (1 ms)\\n' {tests[0]} {tests[0]}; cat carry/slow-{name}; sleep 60; }}
{PASSES}""")
        self.script("bin/compute-sanitizer", """[[ $1 != --help ]] || exit 0
echo "$2 ${*: -3:1} ${*: -1}" >>said
echo "========= COMPUTE-SANITIZER"
while [[ $1 != carry/* ]]; do shift; done
exec "$@\"""")
        (self.root / "said").write_text("")
        status, said, result = self.verify("sanitize", "sanitize_engine", **variables)
        ran = [line.replace("carry/beamline_", "").replace("_test --gtest_filter=", " ").split(" ", 2)
               for line in (self.root / "said").read_text().splitlines()]
        if "BEAMLINE_SANITIZE" in variables:
            self.assertEqual(said["sanitize_engine"]["status"], "skipped")
        return status, [tuple(line) for line in ran], said["sanitize"]["detail"], said["sanitize_engine"]["detail"], result

    def test_all_tests_of_the_gpu_are_sanitized(self):
        status, ran, first, second, _ = self.sanitized()
        self.assertEqual(status, 0)
        self.assertEqual([line[:2] for line in ran],
                         [(tool, "kernels_cuda") for tool in ("memcheck", "racecheck", "initcheck", "synccheck")] +
                         [("memcheck", f"{name}_gpu") for name in ("backend", "backend", "decode", "model", "decode", "backend",
                                                                   "backend", "train", "oracle", "backend")])
        by_part = dict(zip(["backend", "ops", "lists", "model", "decode", "nccl", "rest", "train", "oracle", "algorithms"],
                           [line[2] for line in ran[4:]]))
        self.assertIn("OpsTest", by_part["ops"])
        self.assertEqual((by_part["model"], by_part["train"], by_part["oracle"]), ("*", "*", "*"))
        self.assertEqual(by_part["decode"], "*-" + by_part["lists"])
        # What no other part names is in `rest`, a suite that is added, too.
        taken, without = by_part["rest"].split("-")
        self.assertEqual(taken, "*")
        self.assertEqual(set(without.split(":")), {name for part in ("backend", "ops", "nccl", "algorithms")
                                                   for name in by_part[part].split(":")})
        self.assertIn("; ops: memcheck clean; lists: memcheck clean; left out by design: racecheck, ", first)
        self.assertTrue(second.startswith("model: memcheck clean; decode: memcheck clean; nccl: "), second)
        self.assertIn("; train: memcheck clean; oracle: memcheck clean; algorithms: memcheck clean; left out by design: racecheck, ", second)
        # The filters name what there is.
        suites = "".join(file.read_text() for file in (REPOSITORY / "tests/backend").rglob("*.cc")) + \
            "".join(file.read_text() for file in (REPOSITORY / "tests/decode").glob("*.cc"))
        for name in (without + ":" + by_part["lists"]).split(":"):
            self.assertRegex(suites, r"TEST(_F|_P)?\(\w*" + name.strip("*").split(".")[0], name)

    def test_parts_say_what_they_had_no_time_for(self):
        (self.root / "carry/slow-model_gpu").write_text("")
        status, ran, detail, _, result = self.sanitized(BEAMLINE_SANITIZE="model train", BEAMLINE_STAGE_SECONDS="3")
        self.assertEqual((status, [line[1] for line in ran]), (1, ["model_gpu"]))
        self.assertTrue(detail.startswith("model: memcheck clean as far as it came, no time for 5 tests: Suite.B Suite.C "
                                          "Suite.D Suite.E ...; train: no time; left out by design: "), detail)
        self.assertEqual(result["settings"]["sanitize"], "model train")
        (self.root / "carry/slow-model_gpu").write_text("========= Invalid __global__ read of size 4 bytes\n")
        status, _, detail, _, _ = self.sanitized(BEAMLINE_SANITIZE="model", BEAMLINE_STAGE_SECONDS="3")
        self.assertTrue(status == 1 and detail.startswith("model: memcheck: exit status 124; "), detail)
        for wanted in ("typo", "model typo"):
            status, ran, detail, _, _ = self.sanitized(BEAMLINE_SANITIZE=wanted)
            self.assertEqual((status, ran, detail), (1, [], "BEAMLINE_SANITIZE: there is no part typo"))
        status, ran, detail, _, _ = self.sanitized(BEAMLINE_SANITIZE=" ")
        self.assertEqual((status, ran, detail), (1, [], "BEAMLINE_SANITIZE names no part"))

    def test_where_nothing_can_be_tested_the_sanitizers_say_so(self):
        self.sanitized()
        self.script("carry/beamline_backend_gpu_test", """[[ $* != *=Nccl* ]] || { echo '[  SKIPPED ] 2 tests, listed below:'; exit; }
[[ $* != *=*OpsTest* || $* == *'*-'* ]] || exit 0\n""" + PASSES)
        status, said, _ = self.verify("sanitize", "sanitize_engine")
        self.assertEqual(status, 1, "a filter that names nothing is no clean run")
        self.assertIn("; ops: memcheck: exit status 0; ", said["sanitize"]["detail"])
        self.assertIn("; nccl: memcheck: exit status 0; rest: memcheck clean; ", said["sanitize_engine"]["detail"])

    def test_carried_tests_run_and_a_failure_is_one(self):
        self.script("carry/beamline_backend_gpu_test", PASSES)
        self.script("carry/beamline_decode_gpu_test", FAILS)
        status, said, _ = self.verify("tests", "sanitize")
        self.assertEqual(status, 1)
        self.assertEqual(said["tests"]["status"], "failed")
        self.assertIn("backend: 7 passed", said["tests"]["detail"])
        self.assertIn("decode: 2 passed, 1 failed, 0 skipped: S.T2", said["tests"]["detail"])
        self.assertIn("not carried (bench/gpu/carry.sh with BEAMLINE_BUILD): model train oracle", said["tests"]["detail"])
        self.assertIn("backend: memcheck clean", said["sanitize"]["detail"])
        self.script("carry/beamline_decode_gpu_test", "exit 0")  # ran no test
        self.assertEqual(self.verify("tests")[0], 1)

    def test_engine_and_quality(self):
        for folder in ("bundle", "model", "data", "tokenizer"):
            (self.root / "carry" / folder).mkdir()
        self.script("carry/beamline", """
case $1 in
  bench)
    while (($#)); do
      [[ $1 == --config ]] && dtype=$(grep -oP '(?<= dtype: ")[a-z0-9]+(?=" allow_ungated_dtype: true )' "$2")
      [[ $1 == --json ]] && printf '{\\n "dtype": "%s"\\n}\\n' "$dtype" >"$2"
      shift
    done ;;
  evaluate) echo "$*"
    dtype=$(grep -oP '(?<=--gate )[a-z0-9_]+' <<<"$*")
    [[ $* == *"--gate $dtype --split both --device cuda"*"--out "*/gate-$dtype-*.json ]] || exit 9
    [[ ! -e carry/broken ]] || exit 139
    top=0.98
    [[ ! -e carry/worse-$dtype ]] || top=0.96
    [[ $* == *"--max-users 8"* ]] || cat >"${*: -1}" <<JSON
{"dtype": "$dtype", "top_1": $top, "overlap": 0.9, "bf16_overlap": 0.94, "bf16_recall_10": 0.1,
 "recall_10_difference": {"mean": 0.0001, "low": -0.003, "high": 0.001}}
JSON
    [[ ! -e carry/worse-$dtype ]] || exit 2 ;;
esac""")
        status, said, result = self.verify("engine", "serial", "quality")
        self.assertEqual(status, 0)
        self.assertEqual(result["engine"], [{"dtype": d, "bench": {"dtype": d}} for d in ("bf16", "fp8")])
        self.assertIn("--max-users 20000", said["quality"]["detail"])
        def goals():
            return [(goal["goal"].split(":")[0], round(goal["measured"], 9), goal["verdict"])
                    for goal in result["goals"] if "of a trained model" in goal["goal"]]
        shares = [(0.98, "met"), (0.04, "met"), (0.03, "missed")]
        self.assertEqual(goals(), [(f"{dtype} of a trained model", *share) for dtype in ("fp8", "fp8_mixed") for share in shares])
        (self.root / "carry/worse-fp8").touch()
        status, said, result = self.verify("quality", BEAMLINE_GATE_USERS="9")
        self.assertEqual((status, said["quality"]["status"]), (0, "passed"), "as good without self-attention in FP8")
        self.assertEqual([goal[2] for goal in goals() if goal[1] in (0.96, 0.98)], ["missed", "met"])
        (self.root / "carry/worse-fp8_mixed").touch()
        status, said, _ = self.verify("quality", BEAMLINE_GATE_USERS="9")
        self.assertEqual((status, said["quality"]["status"]), (1, "failed"))
        self.assertIn("--max-users 9", said["quality"]["detail"])
        status, said, _ = self.verify("quality", BEAMLINE_GATE_USERS="8")
        self.assertEqual(status, 1, "refused for another reason: there is no report")
        self.assertNotIn("fp8_mixed: ", said["quality"]["detail"])
        (self.root / "carry/worse-fp8").unlink()
        status, said, _ = self.verify("quality")
        self.assertEqual((status, said["quality"]["status"]), (0, "passed"), "one is enough")
        (self.root / "carry/worse-fp8_mixed").unlink()
        (self.root / "carry/broken").touch()
        self.assertEqual(self.verify("quality")[0], 1, "a crash is no missed gate")

    def test_server(self):
        self.script("carry/beamline", """
case $1 in
  serve)
    grep -q 'device: "cuda"' "$3" && [[ $5 == */made/bundle && ! -e carry/broken ]] || exit 3
    trap '[[ -e carry/stubborn ]] || exit 0' TERM
    while :; do sleep 0.1; done ;;
  recommend) echo "ready, server 1" ;;
  bench)
    while (($#)); do
      [[ $1 == --json ]] && cat carry/cells >"$2"
      shift
    done ;;
esac""")
        def goal():
            return next(goal for goal in result["goals"] if goal["goal"].startswith("server's CPU"))
        cell = {"concurrency": 1, "requests": 9, "answered": 9, "server_cpu_overhead_ms": 0.2}
        cells = [cell, {**cell, "concurrency": 16, "server_cpu_overhead_ms": 0.01}]
        (self.root / "carry/cells").write_text(json.dumps({"cells": cells}, indent=1))
        status, said, result = self.verify("server")
        self.assertEqual((status, said["server"]["status"]), (0, "passed"))
        self.assertEqual(result["server"], [{"cells": cells}])
        self.assertEqual((goal()["measured"], goal()["met"]), (0.2, False))
        # With the admin page of a server that launched 180 of 200 passes from a graph while it was asked.
        pages = ["9", "189"]
        class Page(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                by = {"graph": pages.pop(0), "capture": "4" if pages else "9", "ops": "20" if pages else "35"}
                self.send_response(200 if self.path == "/metrics" else 404)
                self.end_headers()
                self.wfile.write("".join(f'beamline_device_passes_total{{by="{name}"}} {count}\n'
                                         for name, count in by.items()).encode())
            def log_message(self, *_):
                pass
        with http.server.HTTPServer(("127.0.0.1", 50953), Page) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            result = self.verify("server")[2]
            server.shutdown()
        self.assertEqual(result["server"][1]["passes"], {"graph": 189, "capture": 9, "ops": 35})
        graphs = next(goal for goal in result["goals"] if "launched from a graph" in goal["goal"])
        self.assertEqual((graphs["measured"], graphs["met"]), (0.9, False))
        for wrong in ({"server_cpu_overhead_ms": -5.1}, {"answered": 8}):
            (self.root / "carry/cells").write_text(json.dumps({"cells": [{**cell, **wrong}]}))
            result = self.verify("server")[2]
            self.assertIsNone(goal()["measured"])
        (self.root / "carry/cells").write_text('{"cells": [NaN]}')
        status, _, result = self.verify("server", "bench")
        self.assertEqual((status, result["server"], result["kernels"]), (1, [], [{"kernel": "one", "graph_us": 1}]))
        (self.root / "carry/cells").write_text("{}")
        self.assertIn("bench exit status 0, the server's 0", said["server"]["detail"])
        self.script("carry/stubborn", "")
        status, said, _ = self.verify("server", BEAMLINE_SERVER_GRACE="0.3")
        self.assertEqual((status, said["server"]["detail"].split(": ")[1]), (1, "bench exit status 0, the server's 137"))
        (self.root / "carry/stubborn").unlink()
        (self.root / "carry/broken").touch()
        self.script("carry/beamline", "[[ $1 != serve && $1 != recommend ]]")
        status, said, _ = self.verify("server")
        self.assertEqual((status, said["server"]["detail"]), (1, "the server did not become ready"))

    def test_the_end_of_a_stubborn_server_is_in_its_stages_time(self):
        (self.root / "carry/bundle").mkdir()
        self.script("carry/beamline", """
case $1 in
  serve) trap '' TERM; while :; do sleep 0.1; done ;;
  recommend) echo ready ;;
  bench) exec sleep 60 ;;
esac""")
        status, said, _ = self.verify("server", BEAMLINE_STAGE_SECONDS="6", BEAMLINE_SERVER_GRACE="3")
        self.assertEqual((status, said["server"]["detail"].split(": ")[1]), (1, "bench exit status 124, the server's 137"))
        self.assertLessEqual(said["server"]["seconds"], 7)

    def test_engine_of_random_weights(self):
        self.script("carry/beamline_engine_gpu_bench", '''echo "{\\"engine\\": \\"$*\\"}"''')
        status, said, result = self.verify("engine", BEAMLINE_ENGINE_OPTIONS="--models t5")
        self.assertEqual((status, said["engine"]["status"]), (0, "passed"))
        self.assertEqual(result["engine"], [{"engine": "--models t5"}])
        self.assertIn("1 cases, exit status 0; not carried: carry/beamline carry/bundle", said["engine"]["detail"])
        self.assertEqual([case["engine"] for case in self.verify("engine")[2]["engine"]],
                         ["--models 1.02B --dtypes bf16,fp8,fp8_mixed"] +
                         [f"--models {m} --dtypes bf16,fp8" for m in ("0.13B", "0.935B", "trunk", "t5", "ranked")])
        self.script("carry/beamline_engine_gpu_bench", '[[ $BEAMLINE_WARPGROUPS == 0 ]] && echo "{\\"engine\\": \\"$*\\"}"')
        self.assertEqual(self.verify("portable")[2]["engine"], [
            {"experiment": "portable",
             "engine": "--models 1.02B,0.13B,0.935B --dtypes bf16 --batches 1,8 --clients 1,2"}])
        self.script("carry/beamline_engine_gpu_bench", '[[ $BEAMLINE_PROGRAMMATIC_LAUNCH == 0 ]] && echo "{\\"engine\\": 1}"')
        self.assertEqual(self.verify("serial")[2]["engine"], [{"experiment": "serial", "engine": 1}])
        self.script("carry/beamline_engine_gpu_bench", '[[ $* != *trunk* ]] || kill -SEGV $$; echo "{\\"engine\\": 1}"')
        status, _, result = self.verify("engine")
        self.assertEqual((status, len(result["engine"])), (1, 5), "a fault costs its own model alone")

    def test_unfenced_kernels_stand_beside_the_others(self):
        self.assertEqual(self.verify("unfenced")[1]["unfenced"]["status"], "skipped")
        self.script("carry/beamline_kernels_cuda_unfenced_test", PASSES)
        self.script("carry/beamline_kernels_cuda_unfenced_bench", """echo '{"ceiling": "copy"}'
[[ $3 == dense_product ]] && echo '{"kernel": "one", "graph_us": 2}'""")
        _, said, result = self.verify("bench", "unfenced")
        self.assertEqual(said["bench"]["detail"], "1 cases")
        self.assertEqual(said["unfenced"]["detail"], "unfenced: 7 passed, 0 failed, 0 skipped; 1 cases")
        self.assertEqual(result["kernels"], [{"kernel": "one", "graph_us": 1},
                                             {"experiment": "unfenced", "kernel": "one", "graph_us": 2}])
        self.script("carry/beamline_kernels_cuda_unfenced_test", FAILS)
        self.assertEqual(self.verify("unfenced")[0], 1)

    def test_what_fails_its_trial_is_left_out_of_what_is_measured(self):
        asked = self.root / "carry/asked"
        self.script("carry/beamline_backend_gpu_test", f'''
[[ $* != *Trial* ]] || echo "$2 ${{BEAMLINE_PROGRAMMATIC_LAUNCH:-on}} ${{BEAMLINE_WARPGROUPS:-on}}" >>{asked}
[[ ! -e carry/broken || $* != *$(cat carry/broken)* ]] || kill -SEGV $$''' + "\n" + gtest(1))
        self.script("carry/beamline_engine_gpu_bench",
                    'echo "{\\"engine\\": \\"${BEAMLINE_PROGRAMMATIC_LAUNCH:-on} ${BEAMLINE_WARPGROUPS:-on}\\"}"')

        def measured(*stages, **variables):
            _, said, result = self.verify(*stages, BEAMLINE_ENGINE_OPTIONS="--models t5", **variables)
            self.assertEqual(said["engine"]["status"], "passed")
            return result["engine"][-1]["engine"], result["settings"]["left_out"]

        self.assertEqual(measured("tests", "bench", "engine"), ("on on", ""))
        self.assertEqual(asked.read_text(), "--gtest_filter=*ProgrammaticTrial* on 0\n--gtest_filter=*WarpgroupTrial* on on\n",
                         "once, and not by the tests' stage")
        (self.root / "carry/broken").write_text("Warpgroup")
        self.assertEqual(measured("tests", "engine"), ("on 0", "BEAMLINE_WARPGROUPS=0: 0 passed, 0 failed, 0 skipped (exit status -11)"))
        self.assertEqual(measured("engine", BEAMLINE_WARPGROUPS="1"), ("on 1", ""), "whoever says so is not asked")
        self.script("carry/beamline_kernels_cuda_test", '[[ -z $BEAMLINE_WARPGROUPS ]] || exit 9\n' + PASSES)
        status, said, _ = self.verify("tests", "portable", "unfenced")
        self.assertEqual((status, said["tests"]["status"]), (1, "failed"), "the tests' stage asks, too")
        self.assertEqual({said[stage]["status"] for stage in ("portable", "unfenced")}, {"skipped"})
        asked.unlink()
        (self.root / "carry/broken").write_text("Programmatic")
        self.assertEqual(measured("engine", "serial")[0], "0 on")
        self.assertEqual(asked.read_text().splitlines()[-1], "--gtest_filter=*WarpgroupTrial* 0 on", "without what failed before")

    def test_peers(self):
        self.script("carry/beamline", "true")
        self.assertEqual(self.verify("peers")[1]["peers"]["detail"].split(" (")[0], "not carried: carry/beamline_peer")
        self.script("carry/beamline_peer", "true")
        self.script("bin/python3", f"""
[[ $* == *run_gpu.py* ]] || {{ [[ $2 == *transformers* ]] && exit $([[ -e carry/bare ]] && echo 1 || echo 0); exec {sys.executable} "$@"; }}
[[ $* == "-B bench/peers/run_gpu.py --sizes E"[01]" --beamline carry/beamline --peer-binary carry/beamline_peer --library-path "*/carry/lib:*" \
--logs "*"/peer_logs --limit "*" --rounds 1" ]] || {{ echo "$*"; exit 9; }}
all="$*"; logs=${{all#*--logs }}; logs=${{logs%% *}}; mkdir -p "$logs"; echo "a loop said much" >"$logs/torch_graph.log"
echo preparing
echo '{{"peer": "beamline", "ms_per_request": 1}}'
echo '{{"peer": "torch_graph", "error": "out of memory"}}'
echo '{{"goal": "transformers", "peer": "transformers", "size": "E0", "batch": 32, "at_least": 20, "measured": 21.5, "met": true}}'
echo '{{"goal": "PyTorch in a CUDA graph, 0.13 B", "peer": "torch_graph", "size": "E0", "batch": 1, "at_least": 2, "measured": 1.9, "met": false}}'
echo '{{"skipped": "E0"}}'
exit 1""")
        status, said, result = self.verify("peers", BEAMLINE_PEERS_OPTIONS="--rounds 1")
        self.assertEqual((status, said["peers"]["detail"]),
                         (1, "1 cells, 1 of 2 goals met, 1 failed, 1 skipped for want of time; exit status 1"))
        self.assertEqual([list(line)[0] for line in result["peers"]], ["peer", "peer", "goal", "goal", "skipped"])
        beside = {(goal["peer"], goal["size"], goal["batch"]): goal["verdict"] for goal in result["goals"] if "peer" in goal}
        self.assertEqual(len(beside), 20, "what was not measured is said, too")
        self.assertEqual({place: verdict for place, verdict in beside.items() if verdict != "not measured"},
                         {("transformers", "E0", 32): "met", ("torch_graph", "E0", 1): "missed"})
        self.assertIn("-- met           transformers: transformers, E0, batch 32: 21.5, at least 20", self.printed)
        self.assertIn("-- not measured  PyTorch in a CUDA graph, batched: torch_graph, E1, batch 16: at least 1.3", self.printed)
        self.assertEqual(result["settings"]["peers_options"], "--rounds 1")
        self.assertEqual(self.written, [".json", ".log"], "a machine that is lent brings back few files")
        self.assertIn("== E0: torch_graph.log\na loop said much", self.log)
        _, _, both = self.verify("peers", "peers_large", BEAMLINE_PEERS_OPTIONS="--rounds 1")
        self.assertEqual(len(both["peers"]), 10)
        (self.root / "carry/bare").touch()
        status, said, _ = self.verify("peers")
        self.assertEqual((status, said["peers"]["status"]), (0, "skipped"))

    def test_a_line_that_is_no_json_fails_its_stage_and_leaves_the_others(self):
        for line in ('{"kernel": "two", "gra', '{"kernel": "two", "us": nan}', '{"kernel": "two", "us": NaN}'):
            self.script("carry/beamline_kernels_cuda_bench", f"""echo '{{"kernel": "one"}}'; echo '{line}'""")
            status, said, result = self.verify("bench")
            self.assertEqual((status, said["bench"]["status"]), (1, "failed"), line)
            self.assertEqual(result["kernels"], [{"kernel": "one"}])

    def test_a_case_that_fails_costs_no_other(self):
        self.script("carry/beamline_kernels_cuda_bench", """
for ((i = $2; i < 5; ++i)); do
  ((i != 2 && i != 3)) || { echo "an illegal memory access in $i"; exit 1; }
  echo "{\\"kernel\\": $i}"
done""")
        status, said, result = self.verify("bench")
        self.assertEqual((status, said["bench"]["detail"]), (1, "3 cases"))
        self.assertEqual(result["kernels"], [{"kernel": i} for i in (0, 1, 4)])
        self.assertIn("an illegal memory access in 3\n", self.log)

    def test_the_result_is_there_after_every_stage(self):
        self.script("carry/beamline_kernels_cuda_bench", """echo '{"kernel": "one"}'""")
        self.script("carry/beamline_engine_gpu_bench", "cp bench/results/gpu-*.json carry/meanwhile; exit 1")
        self.verify("bench", "engine")
        meanwhile = json.loads((self.root / "carry/meanwhile").read_text())
        self.assertEqual([stage["stage"] for stage in meanwhile["stages"]], ["bench"])
        self.assertEqual(meanwhile["kernels"], [{"kernel": "one"}])

    def test_what_there_is_no_time_for_is_skipped(self):
        status, said, _ = self.verify("tests", "bench", BEAMLINE_TOTAL_SECONDS="9")
        self.assertEqual(status, 0)
        self.assertEqual({stage["detail"] for stage in said.values()}, {"no time: BEAMLINE_TOTAL_SECONDS is 9"})

    def test_a_newer_archive_replaces_what_was_unpacked(self):
        subprocess.run(["tar", "-czf", "carry.tar.gz", "carry"], cwd=self.root, check=True)
        (self.root / "carry/COMMIT").write_text("old\n")
        os.utime(self.root / "carry/COMMIT", (1, 1))
        self.assertEqual(self.verify("bench")[2]["commit"], "abc")
        (self.root / "carry/COMMIT").write_text("edited\n")
        self.assertEqual(self.verify("bench")[2]["commit"], "edited", "unpacked again though it is no newer")

    def test_a_damaged_archive_is_refused_and_leaves_nothing(self):
        (self.root / "carry/filler").write_bytes(os.urandom(1 << 16))
        subprocess.run(["tar", "-czf", "carry.tar.gz", "carry"], cwd=self.root, check=True)
        whole = (self.root / "carry.tar.gz").read_bytes()
        (self.root / "carry.tar.gz").write_bytes(whole[:len(whole) // 2])
        os.utime(self.root / "carry/COMMIT", (1, 1))
        for _ in range(2):
            self.assertEqual(self.verify("bench")[0], 2)
            self.assertFalse((self.root / "carry").exists())

    def test_goals(self):
        def engine(name, batch, clients, p50, rate, of, cached=1.0, beams=512, others=0):
            return (f'{{"engine": "{name}", "batch": {batch}, "clients": {clients}, "beams": {beams}, "p50_ms": {p50}, '
                    f'"cached_p50_ms": {cached}, "requests_per_s": {rate}, "cached_requests_per_s": {1.5 * rate}, '
                    f'"of_matmul": {of}, "graph_others": {others}}}')
        lines = [engine("1.02B bf16", 1, 1, 4.0, 250, .4, 2.5), engine("1.02B bf16", 1, 2, 9.0, 1, .1),
                 engine("1.02B bf16", 8, 1, 9.0, 900, .7, beams=64), engine("0.13B bf16", 1, 1, .5, 900, .5, beams=64),
                 engine("1.02B bf16", 8, 2, 30.0, 300, .61), engine("1.02B fp8", 8, 1, 20.0, 390, .9),
                 engine("1.02B fp8_mixed", 8, 2, 20.0, 420, .9),
                 engine("trunk bf16", 1, 1, 2.0, 1, .1), engine("0.935B bf16", 8, 2, 7.0, 1400, .1)]
        self.script("carry/beamline_engine_gpu_bench", "\n".join(f"echo '{line}'" for line in lines))
        kernels = [f'{{"kernel": "beam_select level {level}", "shape": "1 requests, {items} items", "graph_us": {us}}}'
                   for level, items, us in [(0, 100000, 30), (0, 10000000, 36), (1, 100000, 41), (1, 10000000, 60),
                                            (2, "100000 items, legal rule, of 9", 1)]]
        self.script("carry/beamline_kernels_cuda_bench", "\n".join(f"echo '{line}'" for line in kernels))
        goals = {goal["goal"]: (goal["measured"], goal.get("met")) for goal in self.verify("bench", "engine")[2]["goals"]}
        self.assertEqual(goals["1.02 B, batch 1, ms"], (4.0, True))
        self.assertEqual(goals["nodes of the engine's graphs that copy, wait or allocate"], (0, True))
        self.assertEqual(goals["1.02 B, throughput, of the 8192^3 product's rate"], (.61, True))
        self.assertEqual(goals["0.13 B, batch 1, ms"], (None, None))
        self.assertEqual(goals["1.02 B, throughput, FP8 over bf16"], (1.3, False))
        self.assertEqual(goals["1.02 B, throughput, FP8 but for self-attention over bf16"], (1.4, True))
        self.assertEqual(goals["1.02 B, batch 1, latency over that of a cached context"], (1.6, True))
        self.assertEqual(goals["1.02 B, throughput of cached contexts over that without"], (1.5, True))
        self.assertEqual(goals["1.02 B, batch 1, over 10 of 14 layers as a trunk"], (2.0, True))
        self.assertEqual(goals["0.935 B MoE preset, batched, requests/s"], (1400, True))
        self.assertEqual(goals["log-sum-exp and selection, level 0, us"], (30, True))
        self.assertEqual(goals["log-sum-exp and selection, level 1, us"], (41, False))
        self.assertEqual(goals["selection, level 0, 10^7 items over 10^5"], (1.2, True))
        self.assertFalse(goals["selection, level 1, 10^7 items over 10^5"][1])
        self.assertEqual(goals["log-sum-exp and selection, level 2, us"], (None, None), "another form is no measure of it")
        self.assertEqual(goals["selection, level 2, 10^7 items over 10^5"], (None, None))
        self.assertIn("-- missed        log-sum-exp and selection, level 1, us: 41, at most 40", self.printed)
        self.script("carry/beamline_engine_gpu_bench",
                    "\n".join(f"echo '{engine('t5 bf16', batch, 1, 1, 1, 1, others=batch)}'" for batch in (0, 1, 2)))
        goals = {goal["goal"]: (goal["measured"], goal.get("met")) for goal in self.verify("engine")[2]["goals"]}
        self.assertEqual(goals["nodes of the engine's graphs that copy, wait or allocate"], (3 * 6, False), "of six runs")

    def test_a_stage_ends_in_time(self):
        self.script("carry/beamline_kernels_cuda_test", '[[ $1 == --gtest_list_tests ]] || exec sleep 600')
        self.script("carry/beamline_backend_gpu_test", PASSES)
        # Of 3 s the first test has at least one, though bash's seconds are whole ones.
        status, said, _ = self.verify("tests", BEAMLINE_STAGE_SECONDS="3")
        self.assertEqual(status, 1)
        self.assertLess(said["tests"]["seconds"], 60)
        self.assertIn("kernels: 0 passed, 0 failed, 0 skipped (no time left)", said["tests"]["detail"])
        self.assertIn("backend: 0 passed: no time left", said["tests"]["detail"])

    def test_no_gpu(self):
        self.script("bin/nvidia-smi", "exit 9")
        self.assertEqual(self.verify()[0], 3)
        for text, status in [("No devices were found", 6), ("Failed to initialize NVML: Driver/library version mismatch", 18)]:
            self.script("bin/nvidia-smi", f'echo "{text}"; exit {status}')
            self.assertEqual(self.verify()[0], 3, "what nvidia-smi complains of is no device")

    def test_a_binary_that_does_not_start_leaves_nothing_out(self):
        self.script("carry/beamline_backend_gpu_test", 'echo "libtorch.so: cannot open shared object file" >&2; exit 127')
        self.script("carry/beamline_kernels_cuda_bench", 'echo "{\\"kernel\\": \\"${BEAMLINE_WARPGROUPS:-on}\\"}"')
        _, said, result = self.verify("bench")
        self.assertEqual((said["bench"]["status"], result["kernels"], result["settings"]["left_out"]),
                         ("passed", [{"kernel": "on"}], ""))
        self.assertEqual(self.verify("tests")[0], 1, "its tests fail")

    def test_without_python_nothing_is_begun(self):
        path = self.root / "few"
        path.mkdir()
        for tool in ("bash", "cat", "date", "dirname", "mkdir", "mktemp", "realpath", "rm", "timeout"):
            (path / tool).symlink_to(shutil.which(tool))
        run = subprocess.run(["bash", "bench/gpu/verify.sh"], cwd=self.root, capture_output=True, text=True, check=False,
                             env={**os.environ, "PATH": str(path)})
        self.assertEqual((run.returncode, run.stdout, run.stderr),
                         (2, "", "python3 is not here: it runs the tests and writes the result\n"))

    def test_nothing_is_measured_that_cannot_be_written(self):
        (self.root / "bench/results").write_text("")
        self.script("carry/beamline_kernels_cuda_bench", "touch carry/ran")
        self.assertEqual(self.verify("bench")[0], 2)
        self.assertFalse((self.root / "carry/ran").exists())
        (self.root / "bench/results").unlink()

    def test_carried_for_another_device(self):
        def taken(architectures, device):
            (self.root / "carry/ARCHITECTURES").write_text(architectures + "\n")
            self.script("bin/nvidia-smi", f'[[ $* == *compute_cap* ]] && echo "{device}" || echo "NVIDIA, 580.1, 1 MiB"')
            return self.verify("bench")[1]["bench"]["status"] == "passed"
        for architectures, device in [("90a-real", "9.0"), ("80-real;90a-real", "8.6"), ("80", "12.0"),
                                      ("90a-real", "[N/A]"), ("native", "8.0")]:
            self.assertTrue(taken(architectures, device), (architectures, device))
        for architectures, device in [("90a-real", "8.0"), ("90a-real", "10.0"), ("80-real;90a-real", "12.0")]:
            self.assertFalse(taken(architectures, device), (architectures, device))

    def test_no_server_outlives_the_script_or_answers_for_another(self):
        (self.root / "carry/bundle").mkdir()
        cells = json.dumps({"cells": [{"concurrency": 1, "requests": 1, "answered": 1, "server_cpu_overhead_ms": 0.01}]})
        self.script("carry/beamline", f"""
case $1 in
  serve) [[ ! -e carry/broken ]] || exit 2; echo $$ >carry/pid; exec sleep 60 ;;
  recommend) touch carry/asked; sleep 0.3; echo ready ;;
  bench) [[ -e carry/broken ]] || exec sleep 5; while (($#)); do [[ $1 != --json ]] || echo '{cells}' >"$2"; shift; done ;;
esac""")
        run = subprocess.Popen(["bash", "bench/gpu/verify.sh", "server"], cwd=self.root, stdout=subprocess.DEVNULL,
                               env={**os.environ, "PATH": f"{self.root}/bin:{os.environ['PATH']}"})
        pid = self.root / "carry/pid"
        asked = self.root / "carry/asked"  # by then the script knows its server
        until(lambda: asked.exists() and pid.exists() and pid.read_text())
        run.terminate()
        run.wait()
        process = pathlib.Path("/proc") / pid.read_text().strip()
        self.assertTrue(until(lambda: not process.exists()))
        (self.root / "carry/broken").touch()
        status, said, result = self.verify("server")
        self.assertEqual((status, said["server"]["status"], result["server"]), (1, "failed", []))

    def test_a_signal_ends_what_runs_on_the_device_at_once(self):
        pid = self.root / "carry/pid"
        for name in ("beamline_kernels_cuda_bench", "beamline_backend_gpu_test"):
            self.script(f"carry/{name}", f"[[ $1 != --gtest_list_tests ]] || exit 0\necho $$ >{pid}.new; mv {pid}.new {pid}; exec sleep 600")
        sent = [(signal.SIGINT, True), (signal.SIGTERM, True), (signal.SIGTERM, False)]  # a terminal sends to a whole group
        for stage, (number, of_all) in itertools.product(("bench", "tests"), sent):
            with self.subTest(stage=stage, of_all=of_all, number=number):
                pid.unlink(missing_ok=True)
                run = subprocess.Popen(["bash", "bench/gpu/verify.sh", stage, "server"], cwd=self.root, start_new_session=True,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                       env={**os.environ, "PATH": f"{self.root}/bin:{os.environ['PATH']}",
                                            "BEAMLINE_WARPGROUPS": "0", "BEAMLINE_PROGRAMMATIC_LAUNCH": "0"})
                until(pid.exists)
                (os.killpg if of_all else os.kill)(run.pid, number)
                self.assertEqual(run.wait(60), 128 + number)
                binary = pathlib.Path("/proc") / pid.read_text().strip()
                self.assertTrue(until(lambda: not binary.exists()))

    def test_bytes_that_are_no_text_cost_nothing(self):
        self.script("carry/beamline_kernels_cuda_bench", r"""printf '\377\n{"kernel": "one"}\n' """)
        for locale in ("C", "C.UTF-8"):
            _, said, result = self.verify("bench", LC_ALL=locale)
            self.assertEqual((said["bench"]["status"], result["kernels"]), ("passed", [{"kernel": "one"}]), locale)


if __name__ == "__main__":
    unittest.main()
