# SPDX-License-Identifier: Apache-2.0
"""From the cells in a folder to report.md, report.json and report.svg in it.

P50 and P99 (of fewer than a hundred runs the largest, as max) are over runs, of milliseconds per request (a batch's time
over its requests). A ratio is a peer's P50 over Beamline's in the same cell. "of GEMM" is the rate of a request's
arithmetic (cells.flops) at P50, as a share of the P50 of a 2048^3 product on the same number of threads in the same rounds.
"""

import json
import statistics

import registry
from cells import Cell, flops

# (what, peers, batch, threads, the ratio wanted at widths 20 and 512 of both sizes).
FIRST, SECOND = "ctranslate2_fp32", "transformers"
OURS = ("beamline", "beamline_bf16", "beamline_int8")
GOALS = [
    ("over CTranslate2 fp32 (open), batch 1, one core", FIRST, 1, 1, (1.6, 1.6, 2, 2)),
    ("over CTranslate2 fp32 (open), 16 at once, two cores", FIRST, 16, 2, (1.2, 1.5, 1.2, 1.8)),
    ("over transformers with a trie, batch 1, one core", SECOND, 1, 1, (14, 40, 9, 22)),
]
# The best precision of each, on a CPU with AMX.
AMX_GOALS = [
    ("best precision over CTranslate2's best (open), batch 1, one core", 1, 1, (2.5, 4, 2.5, 5)),
    ("best precision over CTranslate2's best (open), 16 at once, two cores", 16, 2, (2, 4, 2, 5)),
]
CTRANSLATE2 = ("ctranslate2_fp32", "ctranslate2_int8")
GOAL_CELLS = (("A", 20), ("A", 512), ("B", 20), ("B", 512))
GEMM_SHARE = 0.75  # at 128 and 512 beams, batch 1
CACHED = 1.8  # at 20 beams, batch 1, one core


def tail(values):
    """("p99", the nearest rank above) of a hundred values or more; of fewer that would be the largest: ("max", that)."""
    ordered = sorted(values)
    return ("p99", ordered[int(0.99 * len(ordered))]) if len(ordered) >= 100 else ("max", ordered[-1])


class Row:
    def __init__(self, name, result, document):
        self.name, self.result = name, result
        self.error = result.get("error", "")
        self.failures = result.get("answers", {}).get("failures", [])
        values = result["ms"]
        if self.error or not values:
            self.p50 = None
            return
        self.count, self.least = len(values), min(values)
        self.p50, self.tail = statistics.median(values), tail(values)
        entry = registry.BY_NAME.get(name)
        gemm = document["peers"].get("gemm", {}).get("ms")
        self.gemm_share = None
        if gemm and entry and entry.precision == "fp32" and not entry.options.get("cached"):
            work = flops(document["model"], document["cell"]["beams"], entry.constrained)
            self.gemm_share = (work / self.p50) / (2 * 2048**3 / statistics.median(gemm))


class Report:
    def __init__(self, documents):
        self.documents = {Cell(**document["cell"]): document for document in documents}
        self.rows = {cell: {name: Row(name, result, document) for name, result in document["peers"].items()}
                     for cell, document in self.documents.items()}

    def p50(self, cell, name):
        row = self.rows.get(cell, {}).get(name)
        return row.p50 if row else None

    def ratio(self, cell, name, base="beamline"):
        ours, theirs = self.p50(cell, base), self.p50(cell, name)
        return theirs / ours if ours and theirs else None

    def best_ratio(self, cell):
        ours, theirs = ([p50 for name in names if (p50 := self.p50(cell, name))] for names in (OURS, CTRANSLATE2))
        return min(theirs) / min(ours) if ours and theirs else None

    def has_amx(self):
        return any("amx_int8" in document["machine"]["features"] for document in self.documents.values())

    def failed(self):
        return [f"{cell}: {name}: {row.error or row.failures[0]}" for cell, rows in self.rows.items()
                for name, row in rows.items() if row.error or row.failures]

    # Markdown

    def header(self):
        first = next(iter(self.documents.values()))
        about, lines = first["machine"], []
        checkouts = sorted({document["commit"] for document in self.documents.values()})
        builds = sorted({document["build"] for document in self.documents.values() if document.get("build")})
        lines.append(f"{about['cpu']}, {about['cores']} cores, {', '.join(about['features'])}; checkout {', '.join(checkouts)}"
                     + " (edited since its commit)" * any(name.endswith("-dirty") for name in checkouts)
                     + (f"; the binaries are those of {', '.join(builds)}, which may be of another" if builds else ""))
        versions = {name: version for document in self.documents.values() for of_peer in document["versions"].values()
                    for name, version in of_peer.items()}
        lines.append("Versions: " + ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
                     + " (optimum has a transformers of its own, see requirements-optimum.txt)")
        foreign = max(result["foreign_cores"] for document in self.documents.values()
                      for result in document["peers"].values())
        lines.append(f"Others kept at most {foreign:.2f} cores busy during a turn.")
        priorities = {result.get("nice", 0) for document in self.documents.values()
                      for result in document["peers"].values()}
        if priorities != {0}:
            lines.append(f"**Peers ran at nice {', '.join(map(str, sorted(priorities)))}: somebody changed priorities.**")
        if any(document["forced"] for document in self.documents.values()):
            lines.append("**FORCED: measured without a check that the machine was quiet. These times are no measurement.**")
        for threads in sorted({cell.threads for cell in self.documents}):
            rates = [2 * 2048**3 / statistics.median(document["peers"]["gemm"]["ms"]) / 1e6
                     for cell, document in self.documents.items()
                     if cell.threads == threads and document["peers"].get("gemm", {}).get("ms")]
            names = {document["peers"]["gemm"].get("setting", {}).get("library", "?")
                     for cell, document in self.documents.items() if cell.threads == threads}
            if rates:
                lines.append(f"Ceiling, {threads} thread{'s' * (threads > 1)}: {min(rates):.0f} to {max(rates):.0f} GFLOP/s "
                             f"({', '.join(sorted(names))}).")
        return lines

    def summary(self, batch, threads):
        cells = sorted((cell for cell in self.documents if (cell.batch, cell.threads) == (batch, threads)),
                       key=lambda cell: (cell.size, cell.beams))
        lines = [f"### Batch {batch}, {threads} thread{'s' * (threads > 1)}: ms per request, and times Beamline's", "",
                 "| | searches | " + " | ".join(f"{cell.size}, {cell.beams}" for cell in cells) + " |",
                 "|---|---|" + "---:|" * len(cells)]
        for entry in registry.ENTRIES:
            fields = []
            for cell in cells:
                row = self.rows[cell].get(entry.name)
                if row is None:
                    fields.append("")
                elif row.p50 is None:
                    fields.append("failed")
                else:
                    ratio = self.ratio(cell, entry.name)
                    fields.append(f"{row.p50:.2f}" + (f" ({ratio:.2f}x)" if ratio else ""))
            if any(fields):
                lines.append(f"| {entry.label} | {'catalogue' if entry.constrained else 'open'} | {' | '.join(fields)} |")
        return lines

    def details(self, cell):
        lines = [f"#### {cell}", "",
                 "| | P50 | P99 or max | least | runs | ratio | of GEMM | no items | lists agree | setting |",
                 "|---|---:|---:|---:|---:|---:|---:|---:|---:|---|"]
        for entry in [registry.GEMM, *registry.ENTRIES]:
            row = self.rows[cell].get(entry.name)
            if row is None:
                continue
            if row.p50 is None:
                lines.append(f"| {entry.label} | failed: {row.error[:120]} |||||||||")
                continue
            ratio, result = self.ratio(cell, entry.name), row.result
            tail_ms = ("max " if row.tail[0] == "max" else "") + f"{row.tail[1]:.2f}"
            answers = result.get("answers")
            fields = [entry.label, f"{row.p50:.2f}", tail_ms, f"{row.least:.2f}", str(row.count),
                      f"{ratio:.2f}" if ratio and entry is not registry.GEMM else "",
                      f"{row.gemm_share:.0%}" if row.gemm_share else "",
                      f"{result['illegal_rate']:.1%}" if "illegal_rate" in result else "",
                      self.agreement(entry, answers) if answers else "", self.setting(cell, result)]
            lines.append("| " + " | ".join(fields) + " |")
        return lines

    @staticmethod
    def agreement(entry, answers):
        if answers["failures"]:
            return "NO: " + answers["failures"][0]
        text = f"{answers['overlap']:.2%}"
        if entry.precision != "fp32":
            return text
        of = "" if answers["reference"] == registry.BY_NAME[SECOND].label else f" of {answers['reference']}"
        return text + f", scores within {answers['worst_score']:.0e}{of if entry.constrained else ''}"

    @staticmethod
    def setting(cell, result):
        parts = [f"{name} {value}" for name, value in result.get("setting", {}).items()] if result.get("tried") else []
        if result.get("requests_per_run") not in (None, cell.batch, 1):
            parts.append(f"{result['requests_per_run']} requests a run")
        return ", ".join(parts)

    def goals(self):
        found = []
        for text, peer, batch, threads, wanted in GOALS:
            for (size, beams), least in zip(GOAL_CELLS, wanted):
                found.append((f"{text}: {size}, {beams}", least, self.ratio(Cell(size, beams, batch, threads), peer), "x"))
        for text, batch, threads, wanted in AMX_GOALS if self.has_amx() else []:
            for (size, beams), least in zip(GOAL_CELLS, wanted):
                found.append((f"{text}: {size}, {beams}", least, self.best_ratio(Cell(size, beams, batch, threads)), "x"))
        for size in "AB":
            for beams in (128, 512):
                row = self.rows.get(Cell(size, beams, 1, 1), {}).get("beamline")
                share = row.gemm_share if row and row.p50 else None
                found.append((f"of the GEMM rate, one core: {size}, {beams}", GEMM_SHARE, share, ""))
            miss = self.ratio(Cell(size, 20, 1, 1), "beamline", base="beamline_cached")
            found.append((f"a context from the cache against none, one core: {size}, 20", CACHED, miss, "x"))
        return [goal for goal in found if goal[2] is not None]

    def markdown(self):
        lines = ["# Beamline and its peers on this CPU", "", *(f"{line}  " for line in self.header()), ""]
        goals = self.goals()
        if goals:
            lines += ["| goal | at least | measured | |", "|---|---:|---:|---|"]
            lines += [f"| {text} | {least}{unit} | {value:.2f}{unit} | {'met' if value >= least else 'missed'} |"
                      for text, least, value, unit in goals] + [""]
        for batch, threads in sorted({(cell.batch, cell.threads) for cell in self.documents}, key=lambda pair: pair[::-1]):
            lines += [*self.summary(batch, threads), ""]
        if failed := self.failed():
            lines += ["### Failed", "", *(f"- {text}" for text in failed), ""]
        lines += ["### Every cell", ""]
        for cell in sorted(self.documents, key=lambda cell: (cell.threads, cell.batch, cell.size, cell.beams)):
            lines += [*self.details(cell), ""]
        return "\n".join(lines)

    def numbers(self):
        cells = []
        for cell, document in self.documents.items():
            peers = {name: {"p50_ms": row.p50, f"{row.tail[0]}_ms": row.tail[1], "min_ms": row.least, "runs": row.count,
                            "ratio": self.ratio(cell, name), "gemm_share": row.gemm_share,
                            **{key: row.result[key] for key in ("illegal_rate", "answers", "setting", "tried",
                                                                "requests_per_run", "foreign_cores")
                               if key in row.result}}
                     if row.p50 is not None else {"error": row.error} for name, row in self.rows[cell].items()}
            kept = ("cell", "forced", "time", "commit", "build", "machine", "versions")
            cells.append({**{key: document[key] for key in kept if key in document}, "peers": peers})
        return {"cells": cells, "goals": [dict(zip(("goal", "at_least", "measured"), goal)) for goal in self.goals()]}


def plot(report, path):
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    groups = sorted({(cell.threads, cell.batch) for cell in report.documents})
    sizes = sorted({cell.size for cell in report.documents})
    figure, axes = plt.subplots(len(groups), len(sizes), figsize=(6 * len(sizes), 4.2 * len(groups)), squeeze=False)
    for row, (threads, batch) in enumerate(groups):
        for column, size in enumerate(sizes):
            axis = axes[row][column]
            cells = sorted((cell for cell in report.documents
                            if (cell.threads, cell.batch, cell.size) == (threads, batch, size)),
                           key=lambda cell: cell.beams)
            for number, entry in enumerate(registry.ENTRIES):
                points = [(cell.beams, report.p50(cell, entry.name)) for cell in cells
                          if report.p50(cell, entry.name)]
                if points:
                    axis.plot(*zip(*points), marker="o", label=entry.label, color=f"C{number}",
                              linestyle="-" if entry.constrained else "--",
                              linewidth=2.5 if entry.name == "beamline" else 1.2)
            axis.set(xscale="log", yscale="log", xlabel="beams", ylabel="ms per request (P50)",
                     title=f"size {size}, batch {batch}, {threads} thread{'s' * (threads > 1)}")
            beams = [cell.beams for cell in cells]
            axis.set_xticks(beams, [str(width) for width in beams])
            axis.minorticks_off()
            axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize=8, title="dashed: open vocabulary")
    if any(document["forced"] for document in report.documents.values()):
        figure.suptitle("FORCED: not measured on a quiet machine")
    figure.tight_layout()
    figure.savefig(path)
    return True


def write(out, key):
    """0, or 1 where a peer failed or gave wrong answers, or where there is nothing to report."""
    documents = [json.loads(path.read_text()) for path in sorted((out / "cells").glob("*.json"))]
    documents = [document for document in documents if document["fingerprint"] == key]
    if not documents:
        print(f"no complete cell of this program and these options in {out / 'cells'}")
        return 1
    report = Report(documents)
    text = report.markdown()
    (out / "report.md").write_text(text)
    (out / "report.json").write_text(json.dumps(report.numbers(), indent=1) + "\n")
    names = ["report.md", "report.json"] + (["report.svg"] if plot(report, out / "report.svg") else [])
    print(f"{text}\nwrote {', '.join(str(out / name) for name in names)}")
    return 1 if report.failed() else 0
