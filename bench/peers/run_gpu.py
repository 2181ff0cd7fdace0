# SPDX-License-Identifier: Apache-2.0
"""Beamline beside its peers on one GPU: the same weights, requests, widths and catalogue, one process each, in turns.

  python3 bench/peers/run_gpu.py --beamline carry/beamline --peer-binary carry/beamline_peer --library-path carry/lib:...
  ... --device cpu --sizes B --dtype fp32 --beams 20      does it work at all? (no GPU needed)

Sizes: workload.py; E1 is an encoder-decoder of 1.02 B parameters, E0 one of 0.13 B, 512 tokens, SIDs of 3 x 8192. Peers:
transformers' generate, eager and compiled, with its callback as constraint and without; graph_peer.py, which is the loop
that an expert would write in PyTorch, as one CUDA graph. A batch of N is N requests that are there at once.

Everybody's lists are compared with transformers' in fp32 first (fp32 lists: or with its scores in double). Prints a
JSON object per line: {"peer": ...} of each peer and cell, then {"goal": ...} for each ratio that is wanted (goals.py:
not on a CPU, and of no other type or number of beams); {"skipped": ...} of what --limit left no time for, a part of which
is kept for the rounds of those that are ready. Exit status: 0; 1 a peer failed or gave other answers than it should; a
missed goal is no failure. Whoever cannot be ready in --peer-seconds is left out, and that is said.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import shlex
import signal
import statistics
import sys
import tempfile
import time

import goals
import registry
from compare import compare_any, illegal_rate, require_items
from measure import answers_for
from prepare import Preparation
from process import PeerError, PeerProcess
from report import tail


class ThisPython:
    """The environment of prepare.Preparation: the interpreter that runs this, or one that is named."""

    def __init__(self, command):
        self.command = command

    def python(self, name):
        return self.command


class OutOfTime(Exception):
    """--limit has passed: the rest is skipped."""


# Of the time that is left when a cell begins: for its rounds, whoever is not ready by then.
FOR_ROUNDS = 0.3


class Bench:
    def __init__(self, arguments):
        self.arguments, self.failed = arguments, False
        library_path = ["env", f"LD_LIBRARY_PATH={arguments.library_path}"] if arguments.library_path else []
        # PeerProcess drops the variable; where the driver is found by it, this interpreter needs it.
        own = ["env", f"LD_LIBRARY_PATH={os.environ['LD_LIBRARY_PATH']}"] if "LD_LIBRARY_PATH" in os.environ else []
        python = shlex.split(arguments.python) if arguments.python else [*own, sys.executable]
        logs = arguments.logs or pathlib.Path(tempfile.mkdtemp(prefix="beamline-peers-"))
        logs.mkdir(parents=True, exist_ok=True)
        print(f"logs of the peers: {logs}", file=sys.stderr)
        self.preparation = Preparation(ThisPython(python), [*library_path, str(arguments.beamline)],
                                       [*library_path, str(arguments.peer_binary)], logs)
        self.until = time.monotonic() + arguments.limit
        self.entries = [self.on_device(entry) for entry in registry.GPU_ENTRIES if entry.name in arguments.peers]

    def on_device(self, entry):
        dtype = entry.options.get("dtype", self.arguments.dtype)
        options = {**entry.options, "device": self.arguments.device, "dtype": dtype}
        return dataclasses.replace(entry, options=options, precision=dtype)

    def left(self, most=3600.0):
        """Seconds that a question may take; OutOfTime where none are left."""
        seconds = self.until - time.monotonic()
        if seconds <= 0:
            raise OutOfTime
        return min(most, seconds)

    def say(self, **fields):
        print(json.dumps(fields), flush=True)

    def fail(self, **fields):
        self.failed = True
        self.say(**fields)

    def process(self, entry):
        return PeerProcess(self.preparation.command(entry), self.arguments.threads,
                           self.preparation.logs / f"{entry.name}.log")

    def ask(self, process, most=3600.0, **question):
        seconds = self.left(most)
        try:
            return process.ask(question, seconds)
        except PeerError:
            self.left()
            raise

    def load(self, process, entry, folder):
        return self.ask(process, self.arguments.peer_seconds, do="load", folder=str(folder),
                        threads=self.arguments.threads, options=entry.options)["versions"]

    def reference(self, entry, folder):
        """transformers' lists in fp32 on the same device."""
        options = {**entry.options, "device": self.arguments.device, "dtype": "fp32"}
        process = self.process(entry)
        try:
            self.load(process, dataclasses.replace(entry, options=options), folder)
            self.ask(process, do="cell", beams=self.arguments.beams, batch=1)
            return self.ask(process, do="answer", requests=list(range(answers_for(self.arguments.beams))))["lists"]
        finally:
            process.stop()

    def references(self, entries, folder, constrained):
        """{label: lists}; where fp32 lists are compared with the trie's, also with its scores in double precision."""
        first, *others = registry.REFERENCES[constrained]
        lists = {first.label: self.reference(first, folder)}
        if any(entry.precision == "fp32" and entry.constrained for entry in entries):
            for entry in others:
                try:
                    lists[entry.label] = self.reference(entry, folder)
                except PeerError as error:
                    self.fail(reference=entry.label, error=str(error))
        return lists

    def size(self, size):
        entries = [entry for entry in self.entries if not entry.sizes or size in entry.sizes]
        folder = self.preparation.folder(size, entries)
        sids = json.loads((folder / "workload.json").read_text())["sids"]
        references = {constrained: self.references(entries, folder, constrained)
                      for constrained in sorted({entry.constrained for entry in entries})}
        processes = {entry.name: self.process(entry) for entry in entries}  # all import what they need meanwhile
        peers = {}
        try:
            for entry in entries:
                try:
                    peers[entry.name] = (entry, processes[entry.name], self.load(processes[entry.name], entry, folder))
                except PeerError as error:
                    self.fail(peer=entry.name, size=size, error=str(error))
            for batch in self.arguments.batches:
                self.goals(size, batch, self.cell(size, batch, peers, references, sids))
        finally:
            for process in processes.values():
                process.stop()

    def set_up(self, peer, about, references, sids):
        """Adds to `about` the peer's setting, and whether it gives the answers it should; the failure, if not."""
        entry, process, versions = peer
        setting = self.ask(process, self.arguments.peer_seconds, do="cell", beams=about["beams"], batch=about["batch"])
        lists = self.ask(process, self.arguments.peer_seconds, do="answer",
                         requests=list(range(answers_for(about["beams"]))))["lists"]
        found = compare_any(references[entry.constrained], lists, entry.constrained, entry.precision)
        rate = illegal_rate(lists, sids)
        require_items(found, rate, entry.constrained)
        about.update(setting=setting["setting"], tried=setting["tried"], versions=versions,
                     requests_per_run=setting["requests_per_run"], illegal_rate=rate, answers=found.summary())
        return found.failures[0] if found.failures else None

    def rounds(self, batch, ready):
        """Adds times to those that are ready, in turns; drops who fails."""
        for _ in range(self.arguments.rounds):
            for name, (process, about, milliseconds) in list(ready.items()):
                try:
                    milliseconds += self.ask(process, do="run", first=len(milliseconds) * batch,
                                             seconds=self.arguments.seconds, least=2)["ms"]
                except PeerError as error:
                    self.fail(**about, error=str(error))
                    del ready[name]

    def cell(self, size, batch, peers, references, sids):
        """{peer: P50 in ms per request}"""
        ready, until = {}, self.until
        self.until -= FOR_ROUNDS * max(0, until - time.monotonic())
        for name, peer in list(peers.items()):
            entry = peer[0]
            about = dict(peer=name, label=entry.label, size=size, beams=self.arguments.beams, batch=batch,
                         dtype=entry.precision, searches="catalogue" if entry.constrained else "open")
            try:
                failure = self.set_up(peer, about, references, sids)
            except PeerError as error:
                failure = str(error)
                peers.pop(name)[1].stop()
            except OutOfTime:  # it may still be at it
                self.say(**about, skipped=name, reason="not ready in time")
                peers.pop(name)[1].stop()
                continue
            if failure is not None:
                self.fail(**about, error=failure)
            else:
                ready[name] = (peer[1], about, [])
        self.until = until
        try:
            self.rounds(batch, ready)
        except OutOfTime:
            pass  # what was measured is said
        ready = {name: peer for name, peer in ready.items() if peer[2]}
        p50 = {name: statistics.median(milliseconds) for name, (_, _, milliseconds) in ready.items()}
        for name, (_, about, milliseconds) in ready.items():
            self.say(**about, ms_per_request={"p50": p50[name], **dict([tail(milliseconds)]),
                                              "least": min(milliseconds)}, runs=len(milliseconds),
                     requests_per_s=1e3 / p50[name])
        return p50

    def goals(self, size, batch, p50):
        asked = self.arguments
        if (asked.device, asked.dtype, asked.beams) != ("cuda", goals.DTYPE, goals.BEAMS) or "beamline" not in p50:
            return  # no measure of a goal
        for name, theirs in p50.items():
            ratio = theirs / p50["beamline"]
            for goal in goals.of_cell(size, batch, name):
                self.say(**goal, measured=ratio, met=ratio >= goal["at_least"])

    def run(self):
        for size in self.arguments.sizes:
            try:
                self.size(size)
            except PeerError as error:
                self.fail(size=size, error=f"the reference: {error}")
            except OutOfTime:
                self.say(skipped=size, reason=f"--limit {self.arguments.limit:g} s has passed")
        return 1 if self.failed else 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def names(known):
        def parse(text):
            unknown = [name for name in text.split(",") if name not in known]
            if unknown:
                raise argparse.ArgumentTypeError(f"'{unknown[0]}' is none of {', '.join(known)}")
            return text.split(",")
        return parse

    def numbers(text):
        values = [int(part) for part in text.split(",")]
        if min(values) < 1:
            raise argparse.ArgumentTypeError("must be positive numbers with commas between")
        return values

    known = [entry.name for entry in registry.GPU_ENTRIES]
    parser.add_argument("--sizes", type=names(("E1", "E0", "A", "B")), default=["E0", "E1"], help="default E0,E1")
    parser.add_argument("--beams", type=int, default=goals.BEAMS)
    parser.add_argument("--batches", type=numbers, default=goals.BATCHES,
                        help=f"requests at once; default {','.join(map(str, goals.BATCHES))}")
    parser.add_argument("--peers", type=names(known), default=known, help=f"default {','.join(known)}")
    parser.add_argument("--dtype", choices=("bf16", "fp32"), default=goals.DTYPE,
                        help=f"of everybody; default {goals.DTYPE}")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--threads", type=int, default=min(8, len(os.sched_getaffinity(0))), help="of each process")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a peer's turn in a round; default 1")
    parser.add_argument("--peer-seconds", type=float, default=120, help="for a peer to load, and to set up a cell")
    parser.add_argument("--limit", type=float, default=3600, help="seconds for all of it")
    parser.add_argument("--beamline", type=pathlib.Path, required=True, help="the binary, to import the weights")
    parser.add_argument("--peer-binary", type=pathlib.Path, required=True, help="beamline_peer")
    parser.add_argument("--library-path", default="", help="LD_LIBRARY_PATH of these two")
    parser.add_argument("--logs", type=pathlib.Path, help="folder of what the peers print; default: a new one")
    parser.add_argument("--python", default="", help="command of the peers' interpreter; default: this one")
    return parser.parse_args()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended from outside, the peers end too
    sys.exit(Bench(parse_arguments()).run())
