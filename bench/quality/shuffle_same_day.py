#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Copies the Amazon files with what a user did on one day in random order. Standard library only.

Amazon's times are days, and inside a day the published files stand in ascending ASIN order, so the next item of the same
day is easy to guess: a leak of the order, not of taste. The files do not carry the days. A day's items are an ascending
run, so every maximal run of ascending ASINs is shuffled: that breaks up all days, and some order between days that happen
to ascend, which makes the task a little harder than shuffling the days alone would.
"""
import argparse
import gzip
import pathlib
import random
import shutil


def read_asins(path):
    asins = {}
    with gzip.open(path, "rt") as lines:
        for line in lines:
            fields = line.rstrip("\n").split("\t")
            if fields[0].isdigit():
                asins[fields[0]] = fields[1]
    return asins


def ascending_runs(items, asins):
    runs = [[items[0]]]
    for item in items[1:]:
        if asins[item] > asins[runs[-1][-1]]:
            runs[-1].append(item)
        else:
            runs.append([item])
    return runs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("amazon_beauty", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("seed", nargs="?", type=int, default=1)
    arguments = parser.parse_args()
    source, out, rng = arguments.amazon_beauty, arguments.out, random.Random(arguments.seed)
    asins = read_asins(source / "item_titles.tsv.gz")
    out.mkdir(parents=True, exist_ok=True)
    users = pairs = ascending = last = 0
    with open(source / "Beauty.txt") as lines, open(out / "Beauty.txt.tmp", "w") as shuffled:
        for line in lines:
            user, *items = line.split()
            runs = ascending_runs(items, asins)
            users += 1
            pairs += len(items) - 1
            ascending += len(items) - len(runs)
            last += len(runs[-1]) > 1
            for run in runs:
                rng.shuffle(run)
            shuffled.write(" ".join([user] + [item for run in runs for item in run]) + "\n")
    shutil.copy(source / "item_titles.tsv.gz", out)
    (out / "Beauty.txt.tmp").rename(out / "Beauty.txt")
    print(f"{out}: {users} users; {ascending / pairs:.3f} of neighbours ascend, {last / users:.3f} of the last two")


if __name__ == "__main__":
    main()
