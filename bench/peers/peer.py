# SPDX-License-Identifier: Apache-2.0
"""What every peer is to the bench: a process of its own that answers one JSON line with one.

  {"do": "load", "folder": F, "threads": T, "options": {}}   -> {"versions": {}}
  {"do": "cell", "beams": B, "batch": N}                     -> {"setting": {}, "tried": [], "requests_per_run": n}
  {"do": "answer", "requests": [i, ...]}                     -> {"lists": [[[tokens, score], ...], ...]}
  {"do": "run", "first": i, "seconds": s, "least": n}        -> {"ms": [per request, one entry a run]}
  anything that fails                                        -> {"error": text}

F is a folder of workload.py. "cell" tries the peer's settings on the first requests and keeps the fastest. "run" starts
batch after batch of requests i, i + N, ... around the folder's pool, so that no weight, cache line or branch is warm
only because the same thing was done just before. The clock is in the peer's process: from token ids to whatever the
library returns. Turning that into lists is not timed.

A peer is a subclass of Peer and a call of main().
"""

import argparse
import json
import os
import pathlib
import sys
import time


class Workload:
    """workload.json: the requests, and which tokens make an item."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        document = json.loads((self.folder / "workload.json").read_text())
        self.requests = document["requests"]  # token ids, all of one length
        self.sids = document["sids"]  # per item the token of each level, sorted
        self.levels = len(self.sids[0])
        self.token_text = document["token_text"]  # by id
        self.pad, self.end = document["pad"], document["end"]
        self.model = document["model"]


class Peer:
    """Loaded once for a size and a number of threads; then told cells."""

    def prepare(self, folder):
        """Converts the checkpoint in folder/hf to what the library wants, beside it. Once."""

    def load(self, workload, threads, options):
        """Options are those of the registry's entry. Returns {library: version}."""
        raise NotImplementedError

    def settings(self, beams, batch):
        """What to choose from for this cell: keyword arguments of configure()."""
        return [{}]

    def configure(self, beams, batch, **setting):
        self.beams, self.batch = beams, batch

    def requests_per_run(self):
        """A peer whose batches of N would not fit in memory takes fewer."""
        return self.batch

    def run(self, requests):
        """[[token id]] -> anything. This is what is timed."""
        raise NotImplementedError

    def rest(self):
        """Gives back what only its runs need, so that others have the room. After every question."""

    def lists(self, result):
        """What run() returned -> per request [(token ids without start and end, score)], best first."""
        raise NotImplementedError


def stripped(tokens, workload):
    """Up to the end token: what an open vocabulary may produce too early."""
    tokens = list(tokens)
    return tokens[: tokens.index(workload.end)] if workload.end in tokens else tokens


class Server:
    def __init__(self, peer):
        self.peer = peer

    def load(self, question):
        self.workload = Workload(question["folder"])
        return {"versions": self.peer.load(self.workload, question["threads"], question["options"])}

    def batch(self, first):
        pool, count = self.workload.requests, self.peer.requests_per_run()
        return [pool[(first + i) % len(pool)] for i in range(count)]

    def timed(self, first):
        requests = self.batch(first)
        start = time.perf_counter()
        result = self.peer.run(requests)
        milliseconds = 1e3 * (time.perf_counter() - start) / len(requests)
        del result  # freed outside the clock
        return milliseconds

    def least(self, first):
        """Of as many runs as fit in half a second, at least one."""
        until, milliseconds = time.perf_counter() + 0.5, []
        while not milliseconds or time.perf_counter() < until:
            milliseconds.append(self.timed(first + len(milliseconds) * self.peer.requests_per_run()))
        return min(milliseconds)

    def cell(self, question):
        beams, batch = question["beams"], question["batch"]
        settings, tried = self.peer.settings(beams, batch), []
        fastest = float("inf")
        for setting in settings if len(settings) > 1 else []:
            self.peer.configure(beams, batch, **setting)
            milliseconds = self.timed(0)  # cold, yet hopeless settings show at once
            if milliseconds < 1.5 * fastest:
                milliseconds = self.least(batch)
            fastest = min(fastest, milliseconds)
            tried.append({"setting": setting, "ms": milliseconds})
        best = min(tried, key=lambda entry: entry["ms"])["setting"] if tried else settings[0]
        self.peer.configure(beams, batch, **best)
        self.timed(0)
        return {"setting": best, "tried": tried, "requests_per_run": self.peer.requests_per_run()}

    def answer(self, question):
        requests = [self.workload.requests[i] for i in question["requests"]]
        count, lists = self.peer.requests_per_run(), []
        for begin in range(0, len(requests), count):
            found = self.peer.lists(self.peer.run(requests[begin : begin + count]))
            lists += [[[list(map(int, tokens)), float(score)] for tokens, score in entries] for entries in found]
        return {"lists": lists}

    def run(self, question):
        first, until, milliseconds = question["first"], time.perf_counter() + question["seconds"], []
        while len(milliseconds) < question["least"] or time.perf_counter() < until:
            milliseconds.append(self.timed(first))
            first += self.peer.requests_per_run()
        return {"ms": milliseconds}

    def serve(self):
        # Standard output belongs to the answers alone: whatever a library prints goes to the error stream.
        answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        for line in sys.stdin:
            try:
                question = json.loads(line)
                reply = getattr(self, question["do"])(question)
                self.peer.rest()
            except Exception as error:  # the driver decides what a failed peer means
                reply = {"error": f"{type(error).__name__}: {error}".split("\n")[0][:300]}
            answers.write(json.dumps(reply) + "\n")
            answers.flush()


def main(peer):
    parser = argparse.ArgumentParser()
    parser.add_argument("--prepare", metavar="FOLDER", help="convert the checkpoint of a workload folder, then end")
    arguments = parser.parse_args()
    if arguments.prepare:
        peer.prepare(pathlib.Path(arguments.prepare))
    else:
        Server(peer).serve()
