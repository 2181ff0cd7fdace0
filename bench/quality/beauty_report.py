#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What bench/quality/beauty.sh measured, as PREFIX.json and PREFIX.md. Standard library only.

PREFIX.md says what the models were trained with, and the checkout that this script is of.
"""
import argparse
import json
import pathlib
import subprocess

METRICS = ["recall_5", "ndcg_5", "recall_10", "ndcg_10"]
GOAL = {"recall_10": 0.0645, "ndcg_10": 0.0343}  # LETTER's code with the authors' SIDs, rerun; seen items kept


def load(out, names):
    """[{order, seed, command, evaluation, training}]"""
    runs = []
    for name in names:
        order, seed = name.split("-")
        model = out / f"model-{name}"
        training = json.loads((model / "training.json").read_text())
        runs.append({"order": order, "seed": int(seed),
                     "command": (model / "model.safetensors.made-by").read_text().split("\n"),
                     "evaluation": json.loads((out / f"model-{name}.json").read_text()),
                     "training": {key: training[key] for key in ("options", "parameters", "stopped_early", "curve")}})
    return runs


def about(runs):
    own = ("--data", "--tokenizer", "--seed", "--out")
    commands = sorted({" ".join(line for line in run["command"] if line and not line.startswith(own)) for run in runs})
    epochs = sorted({run["training"]["curve"][-1]["epoch"] for run in runs})
    checkout = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True,
                              cwd=pathlib.Path(__file__).parent).stdout.strip() or "unknown"
    return (f"`beamline {'`, `beamline '.join(commands)}`. Models: {len(runs)}; epochs trained: {', '.join(map(str, epochs))}. "
            f"The scripts are of checkout {checkout}; the binary may be of another.")


def systems(run, seen):
    ranking = next(r for r in run["evaluation"]["rankings"] if r["seen_items"] == seen)
    return {s["name"]: s["metrics"] for s in ranking["systems"]}


def number(value):
    return f"{value:.4f}".lstrip("0")


def table(runs, seen):
    lines = [f"| seen items {seen} | R@5 | N@5 | R@10 [95 %] | N@10 [95 %] |", "|---|---:|---:|---|---|"]

    def row(name, metrics, mean=None):
        cells = [name]
        for metric in METRICS:
            value = number(metrics[metric]["mean"])
            if metric.endswith("10"):
                value += f" [{number(metrics[metric]['low'])}, {number(metrics[metric]['high'])}]"
            cells.append(value)
        lines.append("| " + " | ".join(cells) + " |")

    for run in runs:
        row(f"T5-d128, seed {run['seed']}", systems(run, seen)["model"])
    if len(runs) > 1:
        means = {m: sum(systems(r, seen)["model"][m]["mean"] for r in runs) / len(runs) for m in METRICS}
        lines.append(f"| **mean of {len(runs)} seeds** | " + " | ".join(number(means[m]) for m in METRICS) + " |")
    for name in ("popularity", "markov", "item-knn"):
        row(name, systems(runs[0], seen)[name])
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path, help="folder that beauty.sh filled")
    parser.add_argument("prefix", type=pathlib.Path, help="of the two files to write")
    parser.add_argument("run", nargs="+", help="ORDER-SEED, e.g. given-1 or shuffled-1")
    arguments = parser.parse_args()
    runs, prefix = load(arguments.out, arguments.run), arguments.prefix
    lines = ["# Amazon Beauty, the LETTER authors' SIDs, T5-d128", "",
             "Made by `bench/quality/beauty.sh`; item level, full ranking, beam 20. Curves and options of every run are in "
             f"`{prefix.name}.json`.", "", about(runs), ""]
    for order, title in (("given", "The file's order"), ("shuffled", "Each day in random order")):
        mine = [run for run in runs if run["order"] == order]
        if not mine:
            continue
        evaluation = mine[0]["evaluation"]
        lines += [f"## {title}: {evaluation['users']} users, {evaluation['catalogue_items']} items in "
                  f"{evaluation['catalogue_sids']} SIDs", ""]
        for seen in ("kept", "removed"):
            lines += table(mine, seen) + [""]
        if order == "given":
            for metric, goal in GOAL.items():
                mean = sum(systems(r, "kept")["model"][metric]["mean"] for r in mine) / len(mine)
                verdict = "met" if mean >= goal else f"missed by {number(goal - mean)}"
                lines.append(f"Goal {metric} >= {number(goal)} (seen kept): {number(mean)} over {len(mine)} seeds, {verdict}.")
            lines.append("")
        for run in mine:
            lines += [f"Seed {run['seed']}: " + ", ".join(
                f"epoch {e['epoch']} (step {e['step']}) loss {e['loss']:.3f}"
                + (f", validation R@10 {number(e['validation']['recall_10'])} N@10 {number(e['validation']['ndcg_10'])}"
                   if "validation" in e else "")
                for e in run["training"]["curve"] if "validation" in e or e["epoch"] == 1) + ".", ""]
    prefix.with_suffix(".json").write_text(json.dumps(runs, indent=1) + "\n")
    prefix.with_suffix(".md").write_text("\n".join(lines).rstrip() + "\n")
    print(f"wrote {prefix}.json and .md")


if __name__ == "__main__":
    main()
