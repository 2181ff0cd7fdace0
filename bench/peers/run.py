# SPDX-License-Identifier: Apache-2.0
"""Beamline beside its peers on one CPU: the same weights, requests and widths, one process each, in turns.

  bench/peers/run.sh                                                all of it: hours on a slow machine
  bench/peers/run.sh --cells A:20,A:512,B:20,B:512 --batch 1 --threads 1
  bench/peers/run.sh --quick --force                                does it work at all?

Sizes: A d 128, 4 levels of 256; B d 256, 3 levels of 8192; 80 tokens, 10,000 items (workload.py). A cell that is
complete in --out is not measured again: call the same command after an interruption. Exit status: 0; 1 a peer failed or
gave other answers than it should; 3 the machine is busy; 77 what it needs is missing (--no-install).
"""

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import machine
import measure
import registry
import report
from cells import make_cells, parse_shapes
from prepare import HERE, Environments, Preparation, workload_key
from progress import Progress, duration

QUICK_PEERS = ["beamline", "ctranslate2_fp32", "transformers"]


def numbers(text):
    values = [int(part) for part in text.split(",")]
    if not values or min(values) < 1:
        raise argparse.ArgumentTypeError("must be positive numbers with commas between")
    return values


def cores(text):
    values, available = numbers(text), len(os.sched_getaffinity(0))
    if max(values) > available:
        raise argparse.ArgumentTypeError(f"{max(values)} threads would share the {available} cores there are")
    return values


def at_least(least, kind=float):
    def parse(text):
        value = kind(text)
        if not least <= value < float("inf"):  # nor a NaN, which no limit holds
            raise argparse.ArgumentTypeError(f"must be at least {least}, is {text}")
        return value
    parse.__name__ = "number"
    return parse


def shapes(text):
    try:
        return parse_shapes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def peers(text):
    names = text.split(",")
    for name in names:
        if name not in registry.BY_NAME:
            raise argparse.ArgumentTypeError(f"'{name}' is no peer; there are {', '.join(registry.BY_NAME)}")
    return names


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=shapes, default=parse_shapes(",".join(
        f"{size}:{beams}" for size in "AB" for beams in (20, 50, 128, 512))), help="SIZE:BEAMS,...; default: all eight")
    parser.add_argument("--batch", type=numbers, default=[1, 16], help="requests at once; default 1,16")
    parser.add_argument("--threads", type=cores, default="1,2" if len(os.sched_getaffinity(0)) > 1 else "1",
                        help="cores for each peer; default 1,2, or 1 where there is one")
    parser.add_argument("--peers", type=peers, default=list(registry.BY_NAME), help="default: all")
    parser.add_argument("--rounds", type=at_least(1, int), default=5)
    parser.add_argument("--seconds", type=at_least(0), default=1.0, help="of a peer's turn in a round; default 1")
    parser.add_argument("--max-load", type=at_least(0), default=0.2, help="cores others may keep busy; default 0.2")
    parser.add_argument("--force", action="store_true", help="measure on a busy machine too, and mark the results")
    parser.add_argument("--quick", action="store_true", help="A:20, three peers, two short rounds")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/peers"), help="default build/peers")
    parser.add_argument("--fresh", action="store_true", help="measure again what --out already has")
    parser.add_argument("--plan", action="store_true", help="print the cells and the estimated time, measure nothing")
    parser.add_argument("--report", action="store_true", help="only write the report of what --out has")
    parser.add_argument("--beamline", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--peer-binary", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.cells, arguments.batch, arguments.threads = [("A", 20)], [1], [1]
        arguments.peers, arguments.rounds, arguments.seconds = QUICK_PEERS, 2, 0.3
    return arguments


def commit():
    """Of the checkout: the binaries need not be of it, where BEAMLINE_PEERS_BUILD names them."""
    result = subprocess.run(["git", "-C", HERE, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return result.stdout.strip() or "unknown"


def fingerprint(arguments, binary):
    """Cells of one report are of one machine, one program and one way of measuring."""
    parts = [workload_key(), machine.cpu_model(), arguments.peers, arguments.rounds, arguments.seconds,
             hashlib.sha256(binary.read_bytes()).hexdigest()]
    sources = [*HERE.glob("*_peer.py"), *(HERE / name for name in ("peer.py", "process.py", "measure.py", "compare.py"))]
    parts += [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(sources)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def missing(cells, folder, key, fresh, force=False):
    """Cells without a result in `folder`. One that was forced on a busy machine is no result for who does not force."""
    def is_done(cell):
        if fresh or not (folder / cell.file_name).exists():
            return False
        document = json.loads((folder / cell.file_name).read_text())
        return document["fingerprint"] == key and (force or not document["forced"])
    done = set(filter(is_done, cells))
    if done:
        print(f"{len(done)} of {len(cells)} cells are complete in {folder.parent}: they are not measured again")
    return [cell for cell in cells if cell not in done]


def measure_cells(arguments, cells, key, preparation):
    limits = measure.Limits(arguments.rounds, arguments.seconds, arguments.max_load, arguments.force)
    entries = [registry.BY_NAME[name] for name in arguments.peers]
    for size in sorted({cell.size for cell in cells}):
        preparation.folder(size, [registry.GEMM, *entries])
    references = {(cell.size, cell.beams, constrained): preparation.references(
        preparation.root / cell.size, cell.beams, constrained, measure.answers_for(cell.beams))
        for cell in cells for constrained in sorted({entry.constrained for entry in entries})}
    measure.require_quiet(limits)
    progress = Progress(cells, entries, limits)
    print(f"{len(cells)} cells, {len(entries)} peers: about {duration(progress.total())} (minutes:seconds)")
    team = None
    try:
        for cell in cells:
            if team is None or (team.size, team.threads) != (cell.size, cell.threads):
                if team is not None:
                    team.stop()
                team = measure.Team(preparation.folder(cell.size, entries), cell.size, cell.threads)
                team.load(preparation, entries, progress.tell)
            workload = json.loads((team.folder / "workload.json").read_text())
            progress.begin(cell)
            run = measure.CellRun(team, cell, entries, limits, progress)
            run.set_up(workload, {constrained: references[cell.size, cell.beams, constrained]
                                  for constrained in {entry.constrained for entry in entries}})
            results = run.measure()
            document = {"fingerprint": key, "cell": dataclasses.asdict(cell), "forced": arguments.force,
                        "max_load": arguments.max_load, "rounds": arguments.rounds, "time": time.time(),
                        "commit": commit(), "build": os.environ.get("BEAMLINE_PEERS_BUILD"), "machine": machine.describe(), "model": workload["model"],
                        "logits_deviation": workload["logits_deviation"], "versions": team.versions, "peers": results}
            path = arguments.out / "cells" / cell.file_name
            path.with_suffix(".tmp").write_text(json.dumps(document))
            path.with_suffix(".tmp").rename(path)
            progress.end(cell)
    finally:
        if team is not None:
            team.stop()


def main():
    arguments = parse_arguments()
    # Ended from outside, the peers end too: an orphan would disturb whatever is measured next.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cells = make_cells(arguments.cells, arguments.batch, arguments.threads)
    if arguments.plan:
        entries = [registry.BY_NAME[name] for name in arguments.peers]
        progress = Progress(cells, entries, measure.Limits(arguments.rounds, arguments.seconds, 0, False))
        for cell, seconds in progress.estimates.items():
            print(f"{cell}: about {duration(seconds)}")
        print(f"in all about {duration(progress.total())} (minutes:seconds), without preparation")
        return 0
    for folder in ("cells", "logs"):
        (arguments.out / folder).mkdir(parents=True, exist_ok=True)
    key = fingerprint(arguments, arguments.peer_binary)
    status = 0
    if not arguments.report:
        preparation = Preparation(Environments(), [arguments.beamline], [str(arguments.peer_binary)], arguments.out / "logs")
        try:
            left = missing(cells, arguments.out / "cells", key, arguments.fresh, arguments.force)
            if left:
                measure_cells(arguments, left, key, preparation)
        except measure.BusyMachine as error:
            print(f"\npeers: {error}. Cells that are complete stay.", file=sys.stderr)
            status = 3
        except KeyboardInterrupt:
            print("\npeers: interrupted; cells that are complete stay", file=sys.stderr)
            status = 130
    return max(status, report.write(arguments.out, key))


if __name__ == "__main__":
    sys.exit(main())
