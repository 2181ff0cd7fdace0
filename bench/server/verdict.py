# SPDX-License-Identifier: Apache-2.0
"""Holds what `beamline bench --json` measured against what is claimed: a line PASS or FAIL per claim, with the numbers.

usage: verdict.py overhead OVERHEAD.json
       verdict.py overload FOLDER OUT.json  (as bench/server/overload.sh fills it)
       verdict.py reload FOLDER OUT.json    (as bench/server/reload.sh fills it)
Exit status 1: a claim failed. Standard library only; tests/bench/verdict_test.py shows every claim failing.
"""
import json
import pathlib
import re
import subprocess
import sys

CPU_GOAL_MS, P50_GOAL_MS = 0.15, 0.3
LAG_LIMIT_MS = 1  # of the load generator: more, and it measures itself
LAG_SHARE = 0.01  # the same beside a deadline
REFUSAL_GOAL_MS = 5
GOODPUT_SHARE = 0.9
RSS_GOAL_MIB = 64
RELOAD_P99_RATIO = 1.2


class Claim:
    def __init__(self, holds, text):
        self.holds, self.text = bool(holds), text

    def __str__(self):
        return ("PASS  " if self.holds else "FAIL  ") + self.text


def p(summary, name):
    """A quantile's value; None where nothing was measured."""
    return summary[name]["value"] if summary["count"] else None


def overhead(report):
    claims = []
    for cell in report["cells"]:
        rate, over = cell["rate"], cell["stages_ms"]["overhead"]
        if cell["answered"] != cell["requests"] or cell["context_cached"]:
            claims.append(Claim(False, f"{rate:g}/s: {cell['answered']} of {cell['requests']} answered, "
                                       f"{cell['context_cached']} from the cache: nothing was measured"))
            continue
        if "server_cpu_overhead_ms" not in cell:
            claims.append(Claim(False, f"{rate:g}/s: the server does not say how many requests shared a batch: nothing was "
                                       f"measured"))
            continue
        if cell["server_cpu_overhead_ms"] < 0 or p(cell["lag_ms"], "p99") > LAG_LIMIT_MS:
            claims.append(Claim(False, f"{rate:g}/s: the machine was not quiet (server CPU beyond encode and decode "
                                       f"{cell['server_cpu_overhead_ms']:.3f} ms, calls sent {p(cell['lag_ms'], 'p99'):.3f} "
                                       f"ms late at P99): nothing was measured"))
            continue
        claims.append(Claim(cell["server_cpu_overhead_ms"] <= CPU_GOAL_MS,
                            f"{rate:g}/s: server CPU beyond encode and decode {cell['server_cpu_overhead_ms']:.3f} ms per "
                            f"request (goal {CPU_GOAL_MS}; in all {cell['server_cpu_ms']:.3f})"))
        claims.append(Claim(p(over, "p50") <= P50_GOAL_MS,
                            f"{rate:g}/s: latency beyond encode and decode P50 {p(over, 'p50'):.3f} ms (goal {P50_GOAL_MS}; "
                            f"P99 {p(over, 'p99'):.3f}; latency P50 {p(cell['latency_ms'], 'p50'):.3f})"))
    return claims


def refusals_below(metrics, seconds):
    """(refusals within `seconds`, all refusals) by the server's own histogram on its /metrics page."""
    name = r'beamline_request_duration_seconds_{}\{{[^}}]*code="RESOURCE_EXHAUSTED"{}[^}}]*\}} (\S+)'
    below = re.search(name.format("bucket", rf'[^}}]*le="{seconds:g}"'), metrics)
    total = re.search(name.format("count", ""), metrics)
    return (float(below[1]), float(total[1])) if below and total else (0, 0)


def searched(runs):
    """Each search ended with a trial of the very rate it found, and that trial was carried."""
    ends = [(run["capacity"], run["cells"][-1]) for run in runs["capacity"]]
    return Claim(all(last["rate"] == found["rate"] and last["refused"] == last["failed"] == 0 and last["requests"] > 0 and
                     last["answered"] - last["late"] >= found["goodput_percent"] / 100 * last["requests"]
                     for found, last in ends),
                 f"capacity {ends[0][0]['rate']:.1f}/s before light, {', '.join(format(end[0]['rate'], '.1f') for end in ends[1:])} "
                 f"around the turns of heavy: {ends[0][0]['goodput_percent']:g} % within {ends[0][0]['deadline_ms']:g} ms and "
                 f"no refusal, in the last trial, too")


def offered(runs):
    """What was sent is what the other claims speak of, and the load generator kept up."""
    first, *searches = (run["capacity"]["rate"] for run in runs["capacity"])
    loads = [("light", runs["light"], 0.8 * first), ("classes", runs["classes"], 2 * searches[-1]),
             ("narrowing", runs["narrowing"], 2 * searches[-1]),
             *((f"heavy {i + 1}", run, 2 * searches[i]) for i, run in enumerate(runs["heavy"]))]
    cells = [(name, run["cells"][-1], rate) for name, run, rate in loads]
    def sent(cell):  # as many as Poisson arrivals come to, but for four deviations
        expected = cell["rate"] * cell["seconds"]
        return cell["requests"] >= expected - max(0.05 * expected, 4 * expected ** 0.5)
    wrong = [f"{name} {cell['requests']} at {cell['rate']:.1f}/s" for name, cell, rate in cells
             if not (0.99 * rate <= cell["rate"] <= 1.01 * rate and sent(cell))]
    lag = max(p(cell["lag_ms"], "p99") for _, cell, _ in cells)
    limit = LAG_SHARE * min(cell["deadline_ms"] for _, cell, _ in cells)
    return Claim(not wrong and lag <= limit,
                 f"sent: 80 % of the capacity to light, 200 % of that of the search before to the others"
                 f"{''.join(f'; NOT {text}' for text in wrong)}; late by {lag:.2f} ms at P99 (at most {limit:g})")


def overload(runs, metrics, rss_mib):
    """runs: reports by name: light, classes, narrowing; heavy: a list, one per turn; capacity: a list, the search before
    light and then those before the first and behind every turn of heavy. metrics: pages (before, after) each turn of heavy.
    rss_mib: (after light, after heavy), the largest of either server."""
    light, classes, narrowing = (runs[name]["cells"][-1] for name in ("light", "classes", "narrowing"))
    turns = [run["cells"][-1] for run in runs["heavy"]]
    heavy = {name: sum(turn[name] for turn in turns) for name in
             ("requests", "answered", "refused", "refused_without_hint", "expired", "failed", "seconds")}
    lost = light["requests"] - light["answered"] + light["late"]
    unanswered = heavy["requests"] - heavy["answered"]
    counted = [[refusals_below(page, REFUSAL_GOAL_MS / 1000) for page in pages] for pages in metrics]
    inside, refusals = (sum(after[i] - before[i] for before, after in counted) for i in (0, 1))
    shares = {name: (part["answered"] - part["late"]) / max(1, part["requests"]) for name, part in classes["classes"].items()}
    narrowed = sum(count for step, count in narrowing["narrowing"].items() if step != "0")
    p99s = [p(turn["refusal_ms"], "p99") for turn in turns]
    p99 = None if None in p99s else max(p99s)
    searches = [run["capacity"]["rate"] for run in runs["capacity"][1:]]
    around = [max(before, after) for before, after in zip(searches, searches[1:])]  # the harder one
    if len(around) != len(turns):
        raise ValueError(f"{len(turns)} turns of heavy need a search before and behind each, not {len(searches)} searches")
    capacity = sum(around) / len(around)
    goodput = sum(turn["goodput"] for turn in turns) / len(turns)
    return [
        searched(runs),
        offered(runs),
        Claim(lost == 0, f"{light['rate']:.1f}/s for {light['seconds']:g} s: {light['answered']} of {light['requests']} "
                         f"answered in time, {light['refused']} refused, {light['expired']} expired, {light['failed']} "
                         f"failed; P99 {p(light['latency_ms'], 'p99')} ms"),
        Claim(goodput >= GOODPUT_SHARE * capacity,
              f"{' + '.join(format(turn['rate'], '.1f') for turn in turns)}/s for {heavy['seconds']:g} s in all: "
              f"{goodput:.1f}/s answered in time, {goodput / capacity:.0%} of the larger searches around, {capacity:.1f} (at "
              f"least {GOODPUT_SHARE:.0%}; by turn "
              f"{', '.join(format(turn['goodput'] / rate, '.0%') for turn, rate in zip(turns, around))})"),
        Claim(heavy["refused"] > 0 and heavy["refused"] >= 0.95 * unanswered and heavy["failed"] == 0,
              f"of {unanswered} not answered {heavy['refused']} were refused at the door, {heavy['expired']} expired, "
              f"{heavy['failed']} failed (at least 95 % refused)"),
        Claim(heavy["refused"] > 0 and heavy["refused_without_hint"] == 0,
              f"refusals without a hint when to retry: {heavy['refused_without_hint']}"),
        Claim(p99 is not None and p99 < REFUSAL_GOAL_MS,
              f"refused within {p99} ms at P99 as the caller sees it, in the worst turn (below {REFUSAL_GOAL_MS}); max "
              f"{max(turn['refusal_ms'].get('max', 0) for turn in turns)} ms"),
        Claim(refusals > 0 and inside >= 0.99 * refusals,
              f"refused within {REFUSAL_GOAL_MS} ms inside the server: {inside:.0f} of {refusals:.0f} (at least 99 %)"),
        Claim(rss_mib[1] - rss_mib[0] <= RSS_GOAL_MIB,
              f"largest memory at 80 % {rss_mib[0]:.0f} MiB, at 200 % {rss_mib[1]:.0f} MiB (at most {RSS_GOAL_MIB} more)"),
        Claim(all(set(turn["narrowing"]) == {"0"} and set(turn["beams"]) == {str(turn["beam"])} for turn in turns),
              f"without a ladder every answer has the beams asked for: {[turn['beams'] for turn in turns]}"),
        Claim(shares["critical"] >= 0.99 and shares["critical"] >= shares["default"] > shares["sheddable"] <= 0.05,
              f"by class at {classes['rate']:.1f}/s: critical {shares['critical']:.1%} in time (at least 99 %), default "
              f"{shares['default']:.1%}, sheddable {shares['sheddable']:.1%} (at most 5 %)"),
        Claim(narrowed > 0 and narrowing["goodput"] > goodput and "0" not in narrowing["beams"],
              f"with a ladder at {narrowing['rate']:.1f}/s: {narrowing['goodput']:.1f}/s in time instead of "
              f"{goodput:.1f}; answers by step {narrowing['narrowing']}, by beams {narrowing['beams']}"),
    ]


def overload_of(folder):
    """(runs, metrics, memory in MiB), as overload() takes them. A search's page is the one before the next turn."""
    def read(name):
        run = json.loads((folder / f"{name}.json").read_text())
        run["target"].pop("server", None)  # a port
        return run
    turns = len(list(folder.glob("heavy-*.json")))
    runs = {"capacity": [read(f"capacity-{i}") for i in range(turns + 2)], "light": read("light"),
            "heavy": [read(f"heavy-{i + 1}") for i in range(turns)], "classes": read("classes"), "narrowing": read("narrowing")}
    rss = tuple(float((folder / f"{name}.rss").read_text()) / 1024 for name in ("light", f"heavy-{turns}"))
    pages = [tuple((folder / f"{name}-{i + 1}.metrics").read_text() for name in ("capacity", "heavy")) for i in range(turns)]
    return runs, pages, rss


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


def samples(text):
    """(latency in ms, status) of every request in the lines of `beamline bench --samples`."""
    rows = [line.split("\t") for line in text.splitlines() if line[:1].isdigit()]
    return [(float(answered) - float(due), status) for due, _, answered, status, *_ in rows]


def reload(turns, reloads, rate):
    """turns: {"quiet": samples, "reload": samples}; reloads: (exit status, ms) each, the last one a rollback."""
    failed = {name: sum(status != "OK" for _, status in turn) for name, turn in turns.items()}
    p99 = {name: percentile([ms for ms, _ in turn], 0.99) for name, turn in turns.items()}
    bad = sum(status != 0 for status, _ in reloads)
    measured = None not in p99.values()
    ratio = p99["reload"] / p99["quiet"] if measured else None
    return {"rate": rate, "requests": {name: len(turn) for name, turn in turns.items()}, "failed": failed, "p99_ms": p99,
            "p50_ms": {name: percentile([ms for ms, _ in turn], 0.5) for name, turn in turns.items()}, "ratio": ratio,
            "reload_ms": [ms for _, ms in reloads]}, [
        Claim(measured and sum(failed.values()) == 0,
              f"{rate:.1f}/s: of {len(turns['quiet'])} requests without and {len(turns['reload'])} with reloads "
              f"{failed['quiet']} and {failed['reload']} failed"),
        Claim(reloads and bad == 0, f"{len(reloads) - 1} reloads and a rollback: {bad} failed; they took "
                                    f"{min((ms for _, ms in reloads), default=0)} to "
                                    f"{max((ms for _, ms in reloads), default=0)} ms"),
        Claim(measured and ratio <= RELOAD_P99_RATIO,
              f"P99 {p99['quiet'] or 0:.2f} ms without and {p99['reload'] or 0:.2f} ms with reloads: {ratio or 0:.2f} times "
              f"(at most {RELOAD_P99_RATIO})"),
    ]


def reload_of(folder):
    turns = {name: [sample for path in sorted(folder.glob(f"{name}-*.tsv")) for sample in samples(path.read_text())]
             for name in ("quiet", "reload")}
    paths = sorted(folder.glob("reload-*.reload"), key=lambda path: int(path.stem.split("-")[1]))
    reloads = [tuple(int(word) for word in path.read_text().split()) for path in paths]
    rate = json.loads((folder / "capacity.json").read_text())["capacity"]["rate"] / 2
    return reload(turns, reloads, rate)


def write(numbers, claims, path):
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True,
                            cwd=pathlib.Path(__file__).parent).stdout.strip() or None
    numbers = {"commit": commit, "verdict": [{"holds": claim.holds, "claim": claim.text} for claim in claims], **numbers}
    pathlib.Path(path).write_text(json.dumps(numbers, indent=1) + "\n")


def main():
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__)
        return
    if len(sys.argv) != {"overhead": 3, "overload": 4, "reload": 4}.get(sys.argv[1] if sys.argv[1:] else "", 0):
        sys.exit(__doc__)
    if sys.argv[1] == "reload":
        numbers, claims = reload_of(pathlib.Path(sys.argv[2]))
        write(numbers, claims, sys.argv[3])
    elif sys.argv[1] == "overhead":
        claims = overhead(json.loads(pathlib.Path(sys.argv[2]).read_text()))
    else:
        numbers, metrics, rss = overload_of(pathlib.Path(sys.argv[2]))
        claims = overload(numbers, metrics, rss)
        write(numbers, claims, sys.argv[3])
    for claim in claims:
        print(claim)
    sys.exit(0 if all(claim.holds for claim in claims) else 1)


if __name__ == "__main__":
    main()
