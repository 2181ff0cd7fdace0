#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""bench/gpu/verify.sh over binaries that only say what real ones would: what it runs, counts, skips and writes."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

PASSES = 'echo "[  PASSED  ] 7 tests."'
FAILS = 'echo "[  PASSED  ] 2 tests."; echo "[  FAILED  ] 1 test, listed below:"; exit 1'
STAGES = ["build", "tests", "sanitize", "bench", "engine", "peers", "programmatic", "quality", "server"]


class VerifyTest(unittest.TestCase):
    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        (self.root / "bench/gpu").mkdir(parents=True)
        shutil.copy(REPOSITORY / "bench/gpu/verify.sh", self.root / "bench/gpu")
        self.script("bin/nvidia-smi", 'echo "NVIDIA H200, 580.1, 143771 MiB"')
        self.script("bin/compute-sanitizer", 'while [[ $1 != carry/* ]]; do shift; done; exec "$@"')
        self.script("carry/beamline_kernels_cuda_test", PASSES)
        self.script("carry/beamline_kernels_cuda_bench", """echo '{"kernel": "one", "graph_us": 1}'""")
        (self.root / "carry/COMMIT").write_text("abc\n")

    def script(self, path, body):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("#!/usr/bin/env bash\n" + body + "\n")
        file.chmod(0o755)

    def verify(self, *stages, **variables):
        """Exit status, what every stage said by its name, and the whole result."""
        path = f"{self.root}/bin:{os.environ['PATH']}"
        run = subprocess.run(["bash", "bench/gpu/verify.sh", *stages], cwd=self.root, capture_output=True, text=True,
                             env={**os.environ, "PATH": path, **variables}, timeout=120, check=False)
        files = sorted((self.root / "bench/results").glob("gpu-*.json"))
        result = json.loads(files[-1].read_text()) if files else None
        for file in files:
            file.unlink()
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
        self.assertIn("not carried (bench/gpu/carry.sh with BEAMLINE_BUILD): backend model decode train",
                      said["tests"]["detail"])
        self.assertIn("synccheck clean; backend: not carried", said["sanitize"]["detail"])
        for stage, lacks in [("engine", "carry/beamline carry/bundle"),
                             ("quality", "carry/beamline carry/model carry/data carry/tokenizer")]:
            self.assertEqual(said[stage]["status"], "skipped")
            self.assertIn(lacks, said[stage]["detail"])
        self.assertEqual(said["server"]["status"], "skipped")

    def test_only_initcheck_sees_unwritten_memory(self):
        # What the tests poison counts as written.
        self.script("bin/compute-sanitizer", """echo "$2 ${BEAMLINE_NO_POISON:-poisoned} $*" >>said
while [[ $1 != carry/* ]]; do shift; done
exec "$@\"""")
        self.assertEqual(self.verify("sanitize")[0], 0)
        said = [line.split(" ", 2) for line in (self.root / "said").read_text().splitlines()]
        self.assertEqual([line[:2] for line in said], [["memcheck", "poisoned"], ["racecheck", "poisoned"],
                                                       ["initcheck", "1"], ["synccheck", "poisoned"]])
        self.assertEqual([" --check-api-memory-access no " in line[2] for line in said], [False, False, True, False])

    def test_carried_tests_run_and_a_failure_is_one(self):
        self.script("carry/beamline_backend_gpu_test", PASSES)
        self.script("carry/beamline_decode_gpu_test", FAILS)
        status, said, _ = self.verify("tests", "sanitize")
        self.assertEqual(status, 1)
        self.assertEqual(said["tests"]["status"], "failed")
        self.assertIn("backend: 7 passed", said["tests"]["detail"])
        self.assertIn("decode: 2 passed, 1 failed, 0 skipped (exit status 1)", said["tests"]["detail"])
        self.assertIn("not carried (bench/gpu/carry.sh with BEAMLINE_BUILD): model train", said["tests"]["detail"])
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
      [[ $1 == --config ]] && dtype=$(grep -oP '(?<=dtype: ")[a-z0-9]+' "$2")
      [[ $1 == --json ]] && printf '{\\n "dtype": "%s"\\n}\\n' "$dtype" >"$2"
      shift
    done ;;
  evaluate) echo "$*"; [[ $* == *"--gate fp8 --device cuda"* ]] || exit 9; [[ ! -e carry/worse ]] || exit 2 ;;
esac""")
        status, said, result = self.verify("engine", "programmatic", "quality")
        self.assertEqual(status, 0)
        self.assertEqual(result["engine"], [{"dtype": d, "bench": {"dtype": d}} for d in ("bf16", "fp8")])
        self.assertIn("--max-users 20000", said["quality"]["detail"])
        (self.root / "carry/worse").touch()
        status, said, _ = self.verify("quality", BEAMLINE_GATE_USERS="9")
        self.assertEqual((status, said["quality"]["status"]), (1, "failed"))
        self.assertIn("--max-users 9", said["quality"]["detail"])

    def test_server(self):
        self.script("carry/beamline", """
case $1 in
  serve)
    grep -q 'device: "cuda"' "$3" && [[ $5 == */made/bundle && ! -e carry/broken ]] || exit 3
    trap 'exit 0' TERM
    while :; do sleep 0.1; done ;;
  recommend) echo "ready, server 1" ;;
  bench)
    while (($#)); do
      [[ $1 == --json ]] && printf '{\n "cells": 3\n}\n' >"$2"
      shift
    done ;;
esac""")
        status, said, result = self.verify("server")
        self.assertEqual((status, said["server"]["status"]), (0, "passed"))
        self.assertEqual(result["server"], [{"cells": 3}])
        self.assertIn("bench exit status 0, the server's 0", said["server"]["detail"])
        (self.root / "carry/broken").touch()
        self.script("carry/beamline", "[[ $1 != serve && $1 != recommend ]]")
        status, said, _ = self.verify("server")
        self.assertEqual((status, said["server"]["detail"]), (1, "the server did not become ready"))

    def test_engine_of_random_weights(self):
        self.script("carry/beamline_engine_gpu_bench", '''echo "{\\"engine\\": \\"$*\\"}"''')
        status, said, result = self.verify("engine", BEAMLINE_ENGINE_OPTIONS="--models t5")
        self.assertEqual((status, said["engine"]["status"]), (0, "passed"))
        self.assertEqual(result["engine"], [{"engine": "--models t5"}])
        self.assertIn("1 cases, exit status 0; not carried: carry/beamline carry/bundle", said["engine"]["detail"])
        self.script("carry/beamline_engine_gpu_bench", "exit 4")
        self.assertEqual(self.verify("engine")[0], 1)

    def test_peers(self):
        self.script("carry/beamline", "true")
        self.assertEqual(self.verify("peers")[1]["peers"]["detail"].split(" (")[0], "not carried: carry/beamline_peer")
        self.script("carry/beamline_peer", "true")
        self.script("bin/python3", """[[ $1 == -B ]] || exit $([[ $2 == import* && -e carry/bare ]] && echo 1 || echo 0)
shift
[[ $* == "bench/peers/run_gpu.py --beamline carry/beamline --peer-binary carry/beamline_peer --library-path "*/carry/lib:*" \
--limit "*" --sizes E0" ]] || { echo "$*"; exit 9; }
echo preparing
echo '{"peer": "beamline", "ms_per_request": 1}'
echo '{"peer": "torch_graph", "error": "out of memory"}'
echo '{"goal": "one", "met": true}'
echo '{"goal": "two", "met": false}'
exit 1""")
        status, said, result = self.verify("peers", BEAMLINE_PEERS_OPTIONS="--sizes E0")
        self.assertEqual((status, said["peers"]["detail"]), (1, "1 cells, 1 of 2 goals met, 1 failed; exit status 1"))
        self.assertEqual([list(line)[0] for line in result["peers"]], ["peer", "peer", "goal", "goal"])
        (self.root / "carry/bare").touch()
        status, said, _ = self.verify("peers")
        self.assertEqual((status, said["peers"]["status"]), (0, "skipped"))

    def test_a_stage_ends_in_time(self):
        self.script("carry/beamline_kernels_cuda_test", '[[ $1 == --gtest_list_tests ]] || sleep 60')
        self.script("carry/beamline_backend_gpu_test", PASSES)
        status, said, _ = self.verify("tests", BEAMLINE_STAGE_SECONDS="1")
        self.assertEqual(status, 1)
        self.assertLess(said["tests"]["seconds"], 10)
        self.assertIn("kernels: 0 passed, 0 failed, 0 skipped (exit status 124)", said["tests"]["detail"])
        self.assertIn("backend: 0 passed, 0 failed, 0 skipped (exit status 124)", said["tests"]["detail"])

    def test_no_gpu(self):
        self.script("bin/nvidia-smi", "exit 9")
        self.assertEqual(self.verify()[0], 3)


if __name__ == "__main__":
    unittest.main()
