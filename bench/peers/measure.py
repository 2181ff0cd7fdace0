# SPDX-License-Identifier: Apache-2.0
"""Measures one cell: everybody's lists are compared first, then rounds in which everybody has a turn, so that a machine
that drifts drifts for all."""

import dataclasses
import os
import time

import registry
from compare import compare_any, illegal_rate, require_items
from machine import LoadWatch, load_average
from process import PeerError, PeerProcess

SETTLE = 0.25  # seconds between turns: threads of the last one that spin for work have gone to sleep
SLOW = 15.0  # seconds of turns after which a peer with two runs has had its say


class BusyMachine(RuntimeError):
    pass


@dataclasses.dataclass
class Limits:
    rounds: int
    seconds: float  # of one turn
    max_load: float  # cores that others may keep busy
    force: bool
    wait: float = 300.0  # seconds to wait for a quiet machine in the middle of a run


def refusal(foreign, limit):
    return (f"other processes keep {foreign:.2f} cores busy, the limit is {limit:.2f} (load average {load_average():.2f}): "
            "on a busy machine nothing is measured but the others. Wait for them to end, or raise --max-load; --force "
            "measures all the same and marks the results")


def require_quiet(limits, pids=(), seconds=3.0):
    watch = LoadWatch(pids)
    time.sleep(seconds)
    foreign = watch.foreign_cores()
    if foreign > limits.max_load and not limits.force:
        raise BusyMachine(refusal(foreign, limits.max_load))
    return foreign


def answers_for(beams):
    """How many requests' lists are compared: enough hypotheses, and a slow peer's minute."""
    return max(2, min(16, 512 // beams))


class Team:
    """The loaded processes of one size and one number of threads."""

    def __init__(self, folder, size, threads):
        self.folder, self.size, self.threads = folder, size, threads
        self.processes, self.versions, self.failed = {}, {}, {}

    def load(self, preparation, entries, tell):
        for entry in [registry.GEMM, *entries]:
            tell(f"loading {entry.label}")
            process = PeerProcess(preparation.command(entry), self.threads, preparation.logs / f"{entry.name}.log")
            self.processes[entry.name] = process
            try:
                question = {"do": "load", "folder": str(self.folder), "threads": self.threads, "options": entry.options}
                self.versions[entry.name] = process.ask(question, 600)["versions"]
            except PeerError as error:
                self.failed[entry.name] = str(error)

    def pids(self):
        return [process.pid for process in self.processes.values()]

    def stop(self):
        for process in self.processes.values():
            process.stop()


class CellRun:
    def __init__(self, team, cell, entries, limits, progress):
        self.team, self.cell, self.limits, self.progress = team, cell, limits, progress
        self.entries = [entry for entry in [registry.GEMM, *entries] if registry.takes_part(entry, cell)]
        self.results = {entry.name: {"ms": [], "foreign_cores": 0.0} for entry in self.entries}
        for name, error in team.failed.items():
            if name in self.results:
                self.results[name]["error"] = error
        self.next_request = dict.fromkeys(self.results, 0)

    def alive(self):
        return [entry for entry in self.entries if "error" not in self.results[entry.name]]

    def set_up(self, workload, references):
        """Each peer's setting, and whether it gives the answers it should."""
        indices = list(range(answers_for(self.cell.beams)))
        for entry in self.alive():
            self.progress.tell(f"{entry.label}: settings and answers")
            result, process = self.results[entry.name], self.team.processes[entry.name]
            try:
                result.update(process.ask({"do": "cell", "beams": self.cell.beams, "batch": self.cell.batch}, 3600))
                if entry is not registry.GEMM:
                    lists = process.ask({"do": "answer", "requests": indices}, 3600)["lists"]
                    found = compare_any(references[entry.constrained], lists, entry.constrained, entry.precision)
                    result["illegal_rate"] = illegal_rate(lists, workload["sids"])
                    require_items(found, result["illegal_rate"], entry.constrained)
                    result["answers"] = found.summary()
            except PeerError as error:
                result["error"] = str(error)

    def turn(self, entry):
        """One peer's runs of one round; once more where others got in between."""
        result, process = self.results[entry.name], self.team.processes[entry.name]
        if sum(result["ms"]) * result["requests_per_run"] / 1e3 > SLOW and len(result["ms"]) >= 2:
            return
        question = {"do": "run", "first": self.next_request[entry.name], "seconds": self.limits.seconds, "least": 1}
        if entry is registry.GEMM:
            question.update(seconds=0, least=2)
        deadline = time.monotonic() + self.limits.wait
        while True:
            time.sleep(SETTLE)
            watch = LoadWatch(self.team.pids())
            milliseconds = process.ask(question, 3600)["ms"]
            foreign = watch.foreign_cores()
            if foreign <= self.limits.max_load or self.limits.force:
                break
            if time.monotonic() > deadline:
                raise BusyMachine(refusal(foreign, self.limits.max_load))
            self.progress.tell(f"{entry.label}: again, others kept {foreign:.2f} cores busy")
            time.sleep(2)
        self.next_request[entry.name] += len(milliseconds) * result["requests_per_run"]
        result["ms"] += milliseconds
        result["nice"] = max(result.get("nice", 0), os.getpriority(os.PRIO_PROCESS, process.pid))
        result["foreign_cores"] = max(result["foreign_cores"], foreign)

    def measure(self):
        for number in range(self.limits.rounds):
            entries = self.alive()
            shift = number % max(1, len(entries))
            for entry in entries[shift:] + entries[:shift]:
                try:
                    self.turn(entry)
                except PeerError as error:
                    self.results[entry.name]["error"] = str(error)
            self.progress.round_done(number + 1, self.limits.rounds)
        return self.results
