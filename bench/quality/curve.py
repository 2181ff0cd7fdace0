#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws the training curves of model folders as one SVG: validation R@10 over epochs. Standard library only.

"""
import argparse
import json
import pathlib

WIDTH, HEIGHT, MARGIN = 720, 420, 56
COLOURS = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f"]


def points(folder):
    training = json.loads((pathlib.Path(folder) / "training.json").read_text())
    return [(e["epoch"], e["validation"]["recall_10"]) for e in training["curve"] if "validation" in e]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=pathlib.Path, help="the SVG to write")
    parser.add_argument("curve", nargs="+", help="LABEL=MODEL_FOLDER")
    arguments = parser.parse_args()
    curves = [(label, points(folder)) for label, folder in (curve.split("=", 1) for curve in arguments.curve)]
    last = max(x for _, c in curves for x, _ in c)
    low = min(y for _, c in curves for _, y in c)
    high = max(y for _, c in curves for _, y in c)

    def place(x, y):
        return (MARGIN + (WIDTH - 2 * MARGIN) * x / last,
                HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (y - low) / max(1e-9, high - low))

    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
           f'<text x="{MARGIN}" y="24">validation R@10 by epoch</text>']
    for i in range(6):
        value = low + (high - low) * i / 5
        x, y = place(0, value)
        svg.append(f'<line x1="{x}" y1="{y:.1f}" x2="{WIDTH - MARGIN}" y2="{y:.1f}" stroke="#ddd"/>')
        svg.append(f'<text x="8" y="{y + 4:.1f}">{value:.4f}</text>')
        svg.append(f'<text x="{place(last * i / 5, low)[0] - 6:.1f}" y="{HEIGHT - MARGIN + 18}">{last * i / 5:.0f}</text>')
    for i, (label, curve) in enumerate(curves):
        colour = COLOURS[i % len(COLOURS)]
        path = " ".join("%.1f,%.1f" % place(x, y) for x, y in curve)
        svg.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        svg.append(f'<text x="{WIDTH - MARGIN - 160}" y="{HEIGHT - MARGIN - 16 * (len(curves) - i)}" fill="{colour}">{label}</text>')
    svg.append("</svg>")
    arguments.out.write_text("\n".join(svg) + "\n")


if __name__ == "__main__":
    main()
