# SPDX-License-Identifier: Apache-2.0
"""Writes or checks the goldens of onerec_v1: one folder per case with config.json, model.safetensors (weights) and
golden.safetensors (inputs and the twin's logits).

  make_goldens.py            writes the cases beside this file (weights from numpy's seeded generator)
  make_goldens.py --check    recomputes the logits from each folder's files and compares them
"""

import argparse
import json
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from onerec_v1_twin import PADDING_ORDER, Twin

HERE = pathlib.Path(__file__).parent / "onerec_v1"
LEVELS = [6, 4, 5]
D, HEADS, BATCH, TARGETS = 8, 2, 3, 2


def dense(gated=True):
    return {"width": 12, "gated": gated}


def experts(shared=0):
    return {"width": 6, "gated": True, "experts": 4, "top_k": 2, "shared_experts": shared}


STATIC = {"user_buckets": 5, "attribute_buckets": 4, "attributes": ["region"], "width": 3}
SHORT = {
    "length": 3,
    "fusion": "concat_mlp",
    "features": [{"kind": "sid", "width": 4}, {"kind": "author", "buckets": 6, "width": 3}, {"kind": "labels", "width": 2}],
}
POSITIVE = {
    "length": 5,
    "fusion": "concat_mlp",
    "features": [{"kind": "sid", "shared": True}, {"kind": "play", "buckets": 7, "width": 3}, {"kind": "hour", "width": 2}],
}
SUMMED = {
    "length": 5,
    "fusion": "sum",
    "features": [{"kind": "sid", "shared": True}, {"kind": "item", "buckets": 9}, {"kind": "gap", "buckets": 6}],
}


def config(pathways, encoder_ffn=None, decoder_ffn=None, causal=False, trunk=0, tied=True):
    return {
        "schema_version": 1,
        "family": "onerec_v1",
        "level_sizes": LEVELS,
        "d_model": D,
        "heads": HEADS,
        "head_dim": D // HEADS,
        "norm_epsilon": 1e-6,
        **pathways,
        "encoder": {"layers": 2, "causal": causal, "ffn": encoder_ffn or dense()},
        "decoder": {"layers": 2, "trunk_layers": trunk, "tied_heads": tied, "ffn": decoder_ffn or dense()},
    }


ALL = {"static": STATIC, "short_term": SHORT, "positive": POSITIVE}
CASES = {
    "static_only": config({"static": STATIC}),
    "short_only": config({"short_term": SHORT}, encoder_ffn=dense(gated=False)),
    "positive_only": config({"positive": POSITIVE}, tied=False),
    "all_pathways": config(ALL),
    "causal": config(ALL, causal=True, decoder_ffn=dense(gated=False)),
    "summed_causal": config({"positive": SUMMED}, causal=True),
    "moe_decoder": config(ALL, decoder_ffn=experts(shared=1)),
    "moe_both": config(ALL, encoder_ffn=experts(), decoder_ffn=experts(), causal=True),
    "trunk": config(ALL, trunk=1, causal=True),
}


def shapes(c):
    """Names and shapes of a config's weights, written down a second time: the C++ schema must agree."""
    d, inner, levels = c["d_model"], c["heads"] * c["head_dim"], c["level_sizes"]
    tied = c["decoder"]["tied_heads"]
    out = {"bos": [d], "decoder.position": [len(levels), d], "encoder.norm": [d], "decoder.norm": [d]}
    shared = any(f.get("shared") for p in ("short_term", "positive") for f in c.get(p, {}).get("features", []))
    for level, size in enumerate(levels):
        if level + 1 < len(levels) or tied or shared:
            out[f"codes.{level}"] = [size, d]
        if not tied:
            out[f"head.{level}"] = [size, d]

    def mlp(name, width):
        out.update({f"{name}.dense1.weight": [d, width], f"{name}.dense1.bias": [d]})
        out.update({f"{name}.dense2.weight": [d, d], f"{name}.dense2.bias": [d]})

    tokens = 0
    if "static" in c:
        s = c["static"]
        out["static.user"] = [s["user_buckets"], s["width"]]
        for i in range(len(s["attributes"])):
            out[f"static.attribute.{i}"] = [s["attribute_buckets"], s["width"]]
        mlp("static", (1 + len(s["attributes"])) * s["width"])
        tokens += 1
    for name in ("short_term", "positive"):
        if name not in c:
            continue
        total = 0
        for f in c[name]["features"]:
            width = d if f.get("shared") or c[name]["fusion"] == "sum" else f["width"]
            total += width * (len(levels) if f["kind"] == "sid" else 1)
            if f["kind"] == "sid":
                if not f.get("shared"):
                    out.update({f"features.sid.{i}": [size, width] for i, size in enumerate(levels)})
            else:
                out["features." + f["kind"]] = [{"hour": 25, "labels": 8}.get(f["kind"]) or f["buckets"], width]
        if c[name]["fusion"] != "sum":
            mlp(name, total)
        tokens += c[name]["length"]
    out["position"] = [tokens, d]

    def ffn(layer, f):
        w = f["width"]
        if not f.get("experts"):
            out.update({f"{layer}.ffn.up": [2 * w if f["gated"] else w, d], f"{layer}.ffn.down": [d, w]})
            return
        e = f["experts"]
        out.update({f"{layer}.moe.gate": [e, d], f"{layer}.moe.bias": [e]})
        out.update({f"{layer}.moe.up": [e, 2 * w, d], f"{layer}.moe.down": [e, d, w]})
        if f["shared_experts"]:
            out[f"{layer}.moe.shared_up"] = [2 * w * f["shared_experts"], d]
            out[f"{layer}.moe.shared_down"] = [d, w * f["shared_experts"]]

    for i in range(c["encoder"]["layers"]):
        layer = f"encoder.{i}"
        out.update({f"{layer}.attention_norm": [d], f"{layer}.ffn_norm": [d]})
        out.update({f"{layer}.attention.qkv": [3 * inner, d], f"{layer}.attention.out": [d, inner]})
        ffn(layer, c["encoder"]["ffn"])
    for i in range(c["decoder"]["layers"]):
        layer = f"decoder.{i}"
        out.update({f"{layer}.{norm}": [d] for norm in ("self_norm", "cross_norm", "ffn_norm")})
        out.update({f"{layer}.self.qkv": [3 * inner, d], f"{layer}.self.out": [d, inner]})
        out.update({f"{layer}.cross.query": [inner, d], f"{layer}.cross.key_value": [2 * inner, d]})
        out[f"{layer}.cross.out"] = [d, inner]
        ffn(layer, c["decoder"]["ffn"])
    if c["decoder"]["trunk_layers"]:
        out.update({"decoder.fusion.weight": [d, 2 * d], "decoder.fusion.bias": [d]})
    return out


def random_inputs(c, rng):
    inputs, positions, order, token = {}, [], [], 0
    if "static" in c:
        s = c["static"]
        columns = [rng.integers(0, s["user_buckets"], BATCH)]
        columns += [rng.integers(0, s["attribute_buckets"], BATCH) for _ in s["attributes"]]
        inputs["static_features"] = np.stack(columns, axis=-1)
        positions.append(np.zeros((BATCH, 1)))
        order.append(np.full((BATCH, 1), -1))
        token = 1
    for name in ("short_term", "positive"):
        if name not in c:
            continue
        length, columns = c[name]["length"], []
        for f in c[name]["features"]:
            if f["kind"] == "sid":
                columns += [rng.integers(0, size + 1, (BATCH, length)) for size in c["level_sizes"]]
            else:
                limit = {"hour": 25, "labels": 256}.get(f["kind"]) or f["buckets"]
                columns.append(rng.integers(0, limit, (BATCH, length)))
        inputs[name] = np.stack(columns, axis=-1)
        positions.append(np.tile(np.arange(token, token + length), (BATCH, 1)))
        ordered = np.tile(np.arange(length), (BATCH, 1))
        for row, kept in enumerate((length, 2, 0)):  # full, padded, empty
            ordered[row, kept:] = PADDING_ORDER
        order.append(ordered)
        token += length
    inputs["positions"] = np.concatenate(positions, axis=1)
    inputs["order"] = np.concatenate(order, axis=1)
    inputs["codes"] = np.stack([rng.integers(0, size, (BATCH, TARGETS)) for size in c["level_sizes"]], axis=-1)
    limits = np.full((BATCH, TARGETS), PADDING_ORDER - 1)
    limits[:, 1] = rng.integers(-1, 3, BATCH)
    inputs["order_limit"] = limits
    return {name: torch.from_numpy(value.astype(np.int32)) for name, value in inputs.items()}


def write(name, c):
    folder = HERE / name
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(sum(name.encode()))
    weights = {}
    for tensor, shape in shapes(c).items():
        mean = 1.0 if tensor.endswith("norm") else 0.0
        values = rng.normal(mean, 0.2 if len(shape) == 1 else 0.4, shape)
        weights[tensor] = torch.from_numpy(values.astype(np.float32))
    (folder / "config.json").write_text(json.dumps(c, indent=1) + "\n")
    save_file(weights, folder / "model.safetensors")
    inputs = random_inputs(c, rng)
    logits = Twin(folder / "config.json", folder / "model.safetensors").logits(to_long(inputs))
    golden = dict(inputs)
    golden.update({f"logits.{level}": values.float().contiguous() for level, values in enumerate(logits)})
    save_file(golden, folder / "golden.safetensors")


def to_long(inputs):
    return {name: value.long() for name, value in inputs.items() if not name.startswith("logits.")}


def check(folder):
    golden = load_file(folder / "golden.safetensors")
    logits = Twin(folder / "config.json", folder / "model.safetensors").logits(to_long(golden))
    worst = max((values - golden[f"logits.{i}"]).abs().max().item() for i, values in enumerate(logits))
    print(f"{folder.name}: {worst:.2e}")
    return worst < 1e-5


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        results = [check(HERE / name) for name in CASES]
        sys.exit(0 if all(results) else 1)
    for case, value in CASES.items():
        write(case, value)
