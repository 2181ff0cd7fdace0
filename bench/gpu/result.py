#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The result of bench/gpu/verify.sh, from the lines that its stages left.

  result.py lines < LOG                      prints the lines that are JSON objects; exit status 1: one is none, or has
                                             a number that is none
  result.py passes HOST:PORT                 prints how a server has asked its device for its passes so far (the metric
                                             beamline_device_passes_total of its admin page): {"graph": 9, ...}
  result.py write WORK OUT NAME=VALUE ...    WORK/stages, kernels, engine, peers, gates and server to the file OUT, with all
                                             goals, each met, missed or not measured by them; device, driver, memory and
                                             commit at its top, all other names among the settings
  result.py goals OUT                        prints the goals of such a file, a line each
"""

import json
import os
import pathlib
import re
import sys
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "peers"))
import goals as peers_goals

GOAL_BEAMS = 512  # BEAMLINE_ENGINE_OPTIONS may ask for others, which are no measure of a goal
PARTS = ("stages", "kernels", "engine", "peers", "gates", "server")
TOP = ("device", "driver", "memory", "commit")


def refuse(name):
    raise ValueError(f"{name} is no number")


def parse(line):
    value = json.loads(line, parse_constant=refuse)
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def parse_or_keep(line):
    """One line that is none must not cost the others."""
    try:
        return parse(line)
    except ValueError as error:
        return {"unreadable": line[:200], "error": str(error)}


def print_lines():
    status = 0
    sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    sys.stdout.reconfigure(encoding="utf-8")
    for line in sys.stdin:
        if not line.startswith("{"):
            continue
        try:
            parse(line)
            print(line.rstrip("\n"))
        except ValueError as error:
            print(f"no result: {line.strip()[:120]}: {error}", file=sys.stderr)
            status = 1
    return status


def print_passes(address):
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    found = re.findall(r'^beamline_device_passes_total\{by="(\w+)"\} (\d+)', page, re.MULTILINE)
    print(json.dumps({by: int(count) for by, count in found}))
    return 0 if found else 1


class Rows:
    """What the stages measured."""

    def __init__(self, parts):
        self.parts = parts

    def engine(self, name, batch=None):
        return [row for row in self.parts["engine"]
                if row.get("engine") == name and "experiment" not in row and row["beams"] == GOAL_BEAMS and
                batch in (None, row["batch"])]

    def latency(self, name, field="p50_ms"):
        rows = [row[field] for row in self.engine(name, 1) if row["clients"] == 1]
        return rows[0] if rows else None

    def best(self, name, field):
        """Over batches and streams."""
        return max((row[field] for row in self.engine(name)), default=None)

    def copies_and_waits(self):
        """Nodes of graphs, over all cases."""
        counts = [row["graph_others"] for row in self.parts["engine"] if "graph_others" in row]
        return sum(counts) if counts else None

    def selection(self, level, items):
        """Microseconds of one request."""
        rows = [row["graph_us"] for row in self.parts["kernels"]
                if row.get("kernel") == f"beam_select level {level}" and row.get("shape") == f"1 requests, {items} items"]
        return rows[0] if rows else None

    def gate(self, dtype):
        """What `beamline evaluate --gate` reported of a trained model; of none, nothing."""
        return next((row for row in self.parts["gates"] if row.get("dtype") == dtype), None)

    def server_cpu(self):
        """Of one call at a time: else workers wait for each other's batches. Below 0 nothing was measured: the waiting for
        the device took no CPU time, which is what is subtracted."""
        cells = [cell for run in self.parts["server"] for cell in run.get("cells", [])
                 if cell.get("concurrency") == 1 and cell.get("answered") == cell.get("requests")]
        return min((cell["server_cpu_overhead_ms"] for cell in cells
                    if cell.get("server_cpu_overhead_ms", -1) >= 0), default=None)

    def passes_from_graphs(self):
        """Of what was asked for while the server was under load."""
        for run in self.parts["server"]:
            if "passes_before" in run:
                asked = {by: count - run["passes_before"][by] for by, count in run["passes"].items()}
                return ratio(asked["graph"], sum(asked.values()))
        return None


def ratio(numerator, denominator):
    return numerator / denominator if numerator is not None and denominator else None


def goals(rows):
    """[(goal, "at_least" or "at_most", wanted, measured or None)], of issue 5, but for the peers'."""
    found = [
        ("1.02 B, batch 1, ms", "at_most", 4.5, rows.latency("1.02B bf16")),
        ("1.02 B, throughput, of the 8192^3 product's rate", "at_least", 0.60, rows.best("1.02B bf16", "of_matmul")),
        ("0.13 B, batch 1, ms", "at_most", 0.9, rows.latency("0.13B bf16")),
        ("0.13 B, batched, of the 8192^3 product's rate", "at_least", 0.45, rows.best("0.13B bf16", "of_matmul")),
        ("1.02 B, throughput, FP8 over bf16", "at_least", 1.4,
         ratio(rows.best("1.02B fp8", "requests_per_s"), rows.best("1.02B bf16", "requests_per_s"))),
        ("1.02 B, throughput, FP8 but for self-attention over bf16", "at_least", 1.4,
         ratio(rows.best("1.02B fp8_mixed", "requests_per_s"), rows.best("1.02B bf16", "requests_per_s"))),
        ("1.02 B, batch 1, latency over that of a cached context", "at_least", 1.5,
         ratio(rows.latency("1.02B bf16"), rows.latency("1.02B bf16", "cached_p50_ms"))),
        ("1.02 B, throughput of cached contexts over that without", "at_least", 1.5,
         ratio(rows.best("1.02B bf16", "cached_requests_per_s"), rows.best("1.02B bf16", "requests_per_s"))),
        ("1.02 B, batch 1, over 10 of 14 layers as a trunk", "at_least", 1.6,
         ratio(rows.latency("1.02B bf16"), rows.latency("trunk bf16"))),
        ("0.935 B MoE preset, batch 1, ms", "at_most", 1.6, rows.latency("0.935B bf16")),
        ("0.935 B MoE preset, batched, requests/s", "at_least", 1400, rows.best("0.935B bf16", "requests_per_s")),
    ]
    for level in range(3):
        small, large = rows.selection(level, 100_000), rows.selection(level, 10_000_000)
        found.append((f"log-sum-exp and selection, level {level}, us", "at_most", 40, small))
        found.append((f"selection, level {level}, 10^7 items over 10^5", "at_most", 1.2, ratio(large, small)))
    for dtype in ("fp8", "fp8_mixed"):
        found += gate_goals(dtype, rows.gate(dtype))
    found.append(("nodes of the engine's graphs that copy, wait or allocate", "at_most", 0, rows.copies_and_waits()))
    found.append(("server's CPU per request beyond encode and decode, ms", "at_most", 0.15, rows.server_cpu()))
    found.append(("server's encodes and searches that are launched from a graph", "at_least", 0.95,
                  rows.passes_from_graphs()))
    return found


def gate_goals(dtype, report):
    top_1 = overlap = recall = None
    if report:
        difference = report["recall_10_difference"]
        top_1, overlap = report["top_1"], report["bf16_overlap"] - report["overlap"]
        recall = max(abs(difference["low"]), abs(difference["high"])) / report["bf16_recall_10"]
    return [(f"{dtype} of a trained model: requests whose best item is bf16's, share", "at_least", 0.97, top_1),
            (f"{dtype} of a trained model: overlap of the 32 best with fp32's, under bf16's", "at_most", 0.05, overlap),
            (f"{dtype} of a trained model: R@10, the farther end of the paired interval, of bf16's", "at_most", 0.02, recall)]


def described(goal, bound, wanted, measured):
    line = {"goal": goal, bound: wanted, "measured": measured}
    if measured is not None:
        line["met"] = measured >= wanted if bound == "at_least" else measured <= wanted
    return line


def beside_peers(lines):
    """The peers' goals that were measured, and the others without a measurement."""
    def place(line):
        return line["goal"], line["peer"], line["size"], line["batch"] > 1
    measured = [line for line in lines if "goal" in line]
    places = {place(line) for line in measured}
    return measured + [{**line, "measured": None} for line in peers_goals.each() if place(line) not in places]


def judged(line):
    return {**line, "verdict": "not measured" if line["measured"] is None else "met" if line["met"] else "missed"}


def print_goals(path):
    for line in json.loads(pathlib.Path(path).read_text(encoding="utf-8"))["goals"]:
        if "goal" not in line:
            print(f"goals: {line['error']}")
            continue
        about = f"{line['goal']}: {line['peer']}, {line['size']}, batch {line['batch']}" if "peer" in line else line["goal"]
        bound = "at least" if "at_least" in line else "at most"
        measured = "" if line["measured"] is None else f"{line['measured']:.4g}, "
        print(f"-- {line['verdict']:<12}  {about}: {measured}{bound} {line.get('at_least', line.get('at_most')):g}")
    return 0


def write(work, out, values):
    parts = {}
    for part in PARTS:
        path = pathlib.Path(work) / part
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        parts[part] = [parse_or_keep(line) for line in lines if line.strip()]
    document = {name: values.pop(name, "") for name in TOP}
    document["settings"] = values
    document["goals"] = []
    for found in (lambda: [described(*goal) for goal in goals(Rows(parts))], lambda: beside_peers(parts["peers"])):
        try:
            document["goals"] += [judged(line) for line in found()]
        except (KeyError, TypeError, AttributeError) as error:  # a row of another form must not cost the measurements
            document["goals"].append({"error": f"{type(error).__name__}: {error}"})
    document.update(parts)
    fields = []
    for name, value in document.items():
        if isinstance(value, list):  # a line each
            value = "[" + ",".join(f"\n  {json.dumps(line)}" for line in value) + "]"
        else:
            value = json.dumps(value)
        fields.append(f" {json.dumps(name)}: {value}")
    temporary = f"{out}.tmp"
    pathlib.Path(temporary).write_text("{\n" + ",\n".join(fields) + "\n}\n")
    os.replace(temporary, out)
    return 0


def main(arguments):
    if arguments == ["lines"]:
        return print_lines()
    if len(arguments) == 2 and arguments[0] == "passes":
        return print_passes(arguments[1])
    if len(arguments) == 2 and arguments[0] == "goals":
        return print_goals(arguments[1])
    if len(arguments) >= 3 and arguments[0] == "write":
        return write(arguments[1], arguments[2], dict(argument.split("=", 1) for argument in arguments[3:]))
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
