# SPDX-License-Identifier: Apache-2.0
"""Beamline beside its peers on one GPU: the same weights, requests, widths and catalogue, one process each, in turns.

  python3 bench/peers/run_gpu.py --beamline carry/beamline --peer-binary carry/beamline_peer --library-path carry/lib:...
  ... --device cpu --sizes B --dtype fp32 --beams 20      does it work at all? (no GPU needed)

Sizes: workload.py; E1 is an encoder-decoder of 1.02 B parameters, E0 one of 0.13 B, 512 tokens, SIDs of 3 x 8192. Peers:
transformers' generate, eager and compiled, with its callback as constraint and without; graph_peer.py, which is the loop
that an expert would write in PyTorch, as one CUDA graph. A batch of N is N requests that are there at once.

Everybody's lists are compared with transformers' in fp32 first. Prints a JSON object per line: {"peer": ...} of each
peer and cell, then {"goal": ...} for each ratio that is wanted. Exit status: 0; 1 a peer failed or gave other answers
than it should; a missed goal is no failure. Whoever cannot be ready in --peer-seconds is left out, and that is said.
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

import registry
from compare import compare_any, illegal_rate, require_items
from measure import answers_for
from prepare import Preparation
from process import PeerError, PeerProcess
from report import percentile

# Over Beamline: (what, peers, sizes, batched, at least).
GOALS = [
    ("transformers", ("transformers", "transformers_open", "transformers_compiled"), ("E1", "E0"), (False, True), 20),
    ("PyTorch in a CUDA graph, batch 1", ("torch_graph",), ("E1",), (False,), 1.5),
    ("PyTorch in a CUDA graph, batched", ("torch_graph",), ("E1",), (True,), 1.3),
    ("PyTorch in a CUDA graph, 0.13 B", ("torch_graph",), ("E0",), (False, True), 2),
]


class ThisPython:
    """The environment of prepare.Preparation: the interpreter that runs this, or one that is named."""

    def __init__(self, command):
        self.command = command

    def python(self, name):
        return self.command


class Bench:
    def __init__(self, arguments):
        self.arguments, self.failed = arguments, False
        library_path = ["env", f"LD_LIBRARY_PATH={arguments.library_path}"] if arguments.library_path else []
        python = shlex.split(arguments.python) if arguments.python else [sys.executable]
        logs = pathlib.Path(tempfile.mkdtemp(prefix="beamline-peers-"))
        self.preparation = Preparation(ThisPython(python), [*library_path, str(arguments.beamline)],
                                       [*library_path, str(arguments.peer_binary)], logs)
        self.until = time.monotonic() + arguments.limit
        self.entries = [self.on_device(entry) for entry in registry.GPU_ENTRIES if entry.name in arguments.peers]

    def on_device(self, entry):
        dtype = entry.options.get("dtype", self.arguments.dtype)
        options = {**entry.options, "device": self.arguments.device, "dtype": dtype}
        return dataclasses.replace(entry, options=options, precision=dtype)

    def left(self, most=3600.0):
        return max(1.0, min(most, self.until - time.monotonic()))

    def say(self, **fields):
        print(json.dumps(fields), flush=True)

    def fail(self, **fields):
        self.failed = True
        self.say(**fields)

    def start(self, entry, folder):
        process = PeerProcess(self.preparation.command(entry), self.arguments.threads,
                              self.preparation.logs / f"{entry.name}.log")
        try:
            question = {"do": "load", "folder": str(folder), "threads": self.arguments.threads, "options": entry.options}
            versions = process.ask(question, self.left(self.arguments.peer_seconds))["versions"]
        except PeerError:
            process.stop()
            raise
        return process, versions

    def references(self, folder, constrained):
        """{label: transformers' lists} in fp32, and with the trie the scores in double precision, on the same device."""
        lists = {}
        for entry in registry.REFERENCES[constrained]:
            options = {**entry.options, "device": self.arguments.device, "dtype": "fp32"}
            process, _ = self.start(dataclasses.replace(entry, options=options), folder)
            try:
                process.ask({"do": "cell", "beams": self.arguments.beams, "batch": 1}, self.left())
                indices = list(range(answers_for(self.arguments.beams)))
                lists[entry.label] = process.ask({"do": "answer", "requests": indices}, self.left())["lists"]
            finally:
                process.stop()
        return lists

    def size(self, size):
        folder = self.preparation.folder(size, self.entries)
        sids = json.loads((folder / "workload.json").read_text())["sids"]
        references = {constrained: self.references(folder, constrained)
                      for constrained in sorted({entry.constrained for entry in self.entries})}
        peers = {}
        try:
            for entry in self.entries:
                try:
                    peers[entry.name] = (entry, *self.start(entry, folder))
                except PeerError as error:
                    self.fail(peer=entry.name, size=size, error=str(error))
            for batch in self.arguments.batches:
                self.goals(size, batch, self.cell(size, batch, peers, references, sids))
        finally:
            for _, process, _ in peers.values():
                process.stop()

    def cell(self, size, batch, peers, references, sids):
        """{peer: P50 in ms per request}"""
        beams, ready = self.arguments.beams, {}
        for name, (entry, process, versions) in list(peers.items()):
            about = dict(peer=name, label=entry.label, size=size, beams=beams, batch=batch, dtype=entry.precision,
                         searches="catalogue" if entry.constrained else "open")
            try:
                setting = process.ask({"do": "cell", "beams": beams, "batch": batch},
                                      self.left(self.arguments.peer_seconds))
                lists = process.ask({"do": "answer", "requests": list(range(answers_for(beams)))},
                                    self.left(self.arguments.peer_seconds))["lists"]
            except PeerError as error:
                self.fail(**about, error=str(error))
                process.stop()
                del peers[name]
                continue
            found = compare_any(references[entry.constrained], lists, entry.constrained, entry.precision)
            rate = illegal_rate(lists, sids)
            require_items(found, rate, entry.constrained)
            about.update(setting=setting["setting"], tried=setting["tried"], versions=versions,
                         requests_per_run=setting["requests_per_run"], illegal_rate=rate, answers=found.summary())
            if found.failures:
                self.fail(**about, error=found.failures[0])
            else:
                ready[name] = (process, about, [])
        for _ in range(self.arguments.rounds):
            for name, (process, about, milliseconds) in list(ready.items()):
                try:
                    question = {"do": "run", "first": len(milliseconds) * batch, "seconds": self.arguments.seconds, "least": 2}
                    milliseconds += process.ask(question, self.left())["ms"]
                except PeerError as error:
                    self.fail(**about, error=str(error))
                    del ready[name]
        p50 = {}
        for name, (_, about, milliseconds) in ready.items():
            p50[name] = statistics.median(milliseconds)
            self.say(**about, ms_per_request={"p50": p50[name], "p99": percentile(milliseconds, 0.99),
                                              "least": min(milliseconds)}, runs=len(milliseconds),
                     requests_per_s=1e3 / p50[name])
        return p50

    def goals(self, size, batch, p50):
        ours = p50.get("beamline")
        for name, theirs in p50.items() if ours else []:
            for text, peers, sizes, batched, least in GOALS:
                if name in peers and size in sizes and (batch > 1) in batched:
                    self.say(goal=text, peer=name, size=size, batch=batch, at_least=least, measured=theirs / ours,
                             met=theirs / ours >= least)

    def run(self):
        for size in self.arguments.sizes:
            try:
                self.size(size)
            except PeerError as error:
                self.fail(size=size, error=f"the reference: {error}")
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
    parser.add_argument("--sizes", type=names(("E1", "E0", "A", "B")), default=["E1", "E0"], help="default E1,E0")
    parser.add_argument("--beams", type=int, default=512)
    parser.add_argument("--batches", type=numbers, default=[1, 16], help="requests at once; default 1,16")
    parser.add_argument("--peers", type=names(known), default=known, help=f"default {','.join(known)}")
    parser.add_argument("--dtype", choices=("bf16", "fp32"), default="bf16", help="of everybody; default bf16")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--threads", type=int, default=min(8, len(os.sched_getaffinity(0))), help="of each process")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a peer's turn in a round; default 1")
    parser.add_argument("--peer-seconds", type=float, default=120, help="for a peer to load, and to set up a cell")
    parser.add_argument("--limit", type=float, default=3600, help="seconds for all of it")
    parser.add_argument("--beamline", type=pathlib.Path, required=True, help="the binary, to import the weights")
    parser.add_argument("--peer-binary", type=pathlib.Path, required=True, help="beamline_peer")
    parser.add_argument("--library-path", default="", help="LD_LIBRARY_PATH of these two")
    parser.add_argument("--python", default="", help="command of the peers' interpreter; default: this one")
    return parser.parse_args()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended from outside, the peers end too
    sys.exit(Bench(parse_arguments()).run())
