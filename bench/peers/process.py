# SPDX-License-Identifier: Apache-2.0
"""A peer's process, from the driver's side."""

import json
import os
import selectors
import signal
import subprocess
import time


class PeerError(RuntimeError):
    pass


def environment(threads):
    """Nobody is helped or hindered by what this shell happens to have set."""
    dropped = ("OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "LD_LIBRARY_PATH", "LD_PRELOAD", "CT2_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return {**kept, **{name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")},
            "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


class PeerProcess:
    """Runs on as many cores as it has threads: nobody's helpers get one for free."""

    def __init__(self, command, threads, log_path):
        cores = sorted(os.sched_getaffinity(0))[-threads:]
        self.log_path = log_path
        self.log = open(log_path, "a")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, env=environment(threads),
            start_new_session=True, preexec_fn=lambda: os.sched_setaffinity(0, cores))
        self.pid, self.buffer = self.process.pid, b""

    def ask(self, question, timeout):
        try:
            self.process.stdin.write(json.dumps(question).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            raise PeerError(self.last_words()) from None
        reply = json.loads(self.read_line(time.monotonic() + timeout, question["do"]))
        if "error" in reply:
            raise PeerError(reply["error"])
        return reply

    def read_line(self, deadline, what):
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self.buffer:
                if not selector.select(max(0, deadline - time.monotonic())):
                    raise PeerError(f"no answer to '{what}' in time; see {self.log_path}")
                data = os.read(self.process.stdout.fileno(), 1 << 20)
                if not data:
                    raise PeerError(self.last_words())
                self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line

    def last_words(self):
        self.process.wait()
        lines = [line for line in open(self.log_path).read().splitlines() if line.strip()]
        return f"ended with status {self.process.returncode}: {lines[-1] if lines else 'no word'} ({self.log_path})"

    def stop(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()
