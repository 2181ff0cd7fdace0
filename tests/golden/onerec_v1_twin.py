# SPDX-License-Identifier: Apache-2.0
"""onerec_v1 in plain PyTorch: the oracle of src/model.

Written from the paper's description (2506.13695) and LazyAR's (2602.22732), independently of the C++ code, for clarity
alone: no caching, no fused projections, masks spelled out. Reads a bundle's config.json and model.safetensors.
"""

import json
import math

import torch
from safetensors.torch import load_file

PADDING_ORDER = 2**31 - 1
FIXED_LABEL_BITS = 8


class Twin:
    def __init__(self, config_path, weights_path, dtype=torch.float64):
        with open(config_path) as f:
            self.config = json.load(f)
        self.w = {name: tensor.to(dtype) for name, tensor in load_file(weights_path).items()}
        self.d = self.config["d_model"]
        self.heads = self.config["heads"]
        self.head_dim = self.config.get("head_dim") or self.d // self.heads
        self.levels = len(self.config["level_sizes"])

    # -- Pieces ---------------------------------------------------------------------------------------------------

    def norm(self, x, name):
        mean_square = x.pow(2).mean(dim=-1, keepdim=True)
        return x / torch.sqrt(mean_square + self.config["norm_epsilon"]) * self.w[name]

    def dense(self, x, name):
        return x @ self.w[name + ".weight"].T + self.w[name + ".bias"]

    def attend(self, q, k, v, sees):
        """q [n, q, inner], k and v [n, k, inner], sees bool [n, q, k]; a query that sees nothing gets zero."""
        out = torch.zeros_like(q)
        for head in range(self.heads):
            part = slice(head * self.head_dim, (head + 1) * self.head_dim)
            scores = q[..., part] @ k[..., part].transpose(-1, -2) / math.sqrt(self.head_dim)
            weights = torch.softmax(scores.masked_fill(~sees, -math.inf), dim=-1)
            out[..., part] = torch.nan_to_num(weights) @ v[..., part]
        return out

    def self_attention(self, x, name, sees):
        q, k, v = (x @ m.T for m in self.w[name + ".qkv"].chunk(3, dim=0))
        return self.attend(q, k, v, sees) @ self.w[name + ".out"].T

    def cross_attention(self, x, name, context, sees):
        k, v = (context @ m.T for m in self.w[name + ".key_value"].chunk(2, dim=0))
        return self.attend(x @ self.w[name + ".query"].T, k, v, sees) @ self.w[name + ".out"].T

    def swiglu(self, x, up, down):
        gate, value = (x @ m.T for m in up.chunk(2, dim=0))
        return (torch.nn.functional.silu(gate) * value) @ down.T

    def feed_forward(self, x, layer, config):
        if config.get("experts", 0) == 0:
            if config["gated"]:
                return self.swiglu(x, self.w[layer + ".ffn.up"], self.w[layer + ".ffn.down"])
            return torch.nn.functional.gelu(x @ self.w[layer + ".ffn.up"].T) @ self.w[layer + ".ffn.down"].T
        return self.experts(x, layer + ".moe", config)

    def experts(self, x, name, config):
        """Every expert on every token, unchosen ones weighted with zero."""
        scores = torch.sigmoid(x @ self.w[name + ".gate"].T)
        chosen = torch.topk(scores + self.w[name + ".bias"], config["top_k"], dim=-1).indices
        mask = torch.zeros_like(scores).scatter(-1, chosen, 1.0)
        weights = scores * mask / ((scores * mask).sum(dim=-1, keepdim=True) + 1e-20)
        y = torch.zeros_like(x)
        for expert in range(config["experts"]):
            out = self.swiglu(x, self.w[name + ".up"][expert], self.w[name + ".down"][expert])
            y = y + weights[..., expert : expert + 1] * out
        if config.get("shared_experts", 0) > 0:
            y = y + self.swiglu(x, self.w[name + ".shared_up"], self.w[name + ".shared_down"])
        return y

    # -- Input ----------------------------------------------------------------------------------------------------

    def static_token(self, features):
        """features [batch, columns]"""
        static = self.config["static"]
        tables = ["static.user"] if static.get("user_buckets", 0) > 0 else []
        tables += [f"static.attribute.{i}" for i in range(len(static["attributes"]))]
        x = torch.cat([self.w[table][features[:, c]] for c, table in enumerate(tables)], dim=-1)
        x = torch.nn.functional.leaky_relu(self.dense(x, "static.dense1"), 0.01)
        return self.dense(x, "static.dense2").unsqueeze(1)

    def sid_code(self, table, ids):
        """Id 0 is no code: the zero vector; id k is code k - 1."""
        padded = torch.cat([torch.zeros(1, table.shape[1], dtype=table.dtype), table])
        return padded[ids]

    def pathway_tokens(self, name, features):
        """features [batch, length, columns]"""
        parts, column = [], 0
        for feature in self.config[name]["features"]:
            if feature["kind"] == "sid":
                for level in range(self.levels):
                    table = self.w[("codes." if feature.get("shared") else "features.sid.") + str(level)]
                    parts.append(self.sid_code(table, features[..., column]))
                    column += 1
                continue
            table = self.w["features." + feature["kind"]]
            ids = features[..., column]
            column += 1
            if feature["kind"] == "labels":
                parts.append(sum(((ids >> bit) & 1).unsqueeze(-1) * table[bit] for bit in range(FIXED_LABEL_BITS)))
            else:
                parts.append(table[ids])
        if self.config[name].get("fusion", "concat_mlp") == "sum":
            return sum(parts)
        x = torch.nn.functional.leaky_relu(self.dense(torch.cat(parts, dim=-1), name + ".dense1"), 0.01)
        return self.dense(x, name + ".dense2")

    # -- Encoder and decoder --------------------------------------------------------------------------------------

    def encode(self, inputs):
        """-> context [batch, tokens, d]"""
        tokens = []
        if "static_features" in inputs:
            tokens.append(self.static_token(inputs["static_features"]))
        for name in ("short_term", "positive"):
            if name in inputs:
                tokens.append(self.pathway_tokens(name, inputs[name]))
        x = torch.cat(tokens, dim=1) + self.w["position"][inputs["positions"]]

        order = inputs["order"]
        limit = order if self.config["encoder"].get("causal") else torch.full_like(order, PADDING_ORDER - 1)
        sees = order[:, None, :] <= limit[:, :, None]
        for i in range(self.config["encoder"]["layers"]):
            layer = f"encoder.{i}"
            x = x + self.self_attention(self.norm(x, layer + ".attention_norm"), layer + ".attention", sees)
            x = x + self.feed_forward(self.norm(x, layer + ".ffn_norm"), layer, self.config["encoder"]["ffn"])
        return self.norm(x, "encoder.norm")

    def decoder_layer(self, x, layer, context, sees):
        causal = torch.ones(x.shape[0], self.levels, self.levels, dtype=torch.bool).tril()
        x = x + self.self_attention(self.norm(x, layer + ".self_norm"), layer + ".self", causal)
        x = x + self.cross_attention(self.norm(x, layer + ".cross_norm"), layer + ".cross", context, sees)
        return x + self.feed_forward(self.norm(x, layer + ".ffn_norm"), layer, self.config["decoder"]["ffn"])

    def logits(self, inputs):
        """Per level [batch, targets, level size]."""
        context = self.encode(inputs)
        codes = inputs["codes"]  # [batch, targets, levels]
        batch, targets, levels = codes.shape
        context = context.repeat_interleave(targets, dim=0)
        sees = inputs["order"][:, None, :] <= inputs["order_limit"][:, :, None]  # [batch, targets, tokens]
        sees = sees.reshape(batch * targets, 1, -1).expand(-1, levels, -1)

        flat = codes.reshape(batch * targets, levels)
        embedded = [self.w["bos"].expand(batch * targets, -1)]
        embedded += [self.w[f"codes.{level}"][flat[:, level]] for level in range(levels - 1)]
        x = torch.stack(embedded, dim=1)  # [batch * targets, levels, d]

        decoder = self.config["decoder"]
        trunk_layers = decoder.get("trunk_layers", 0)
        if trunk_layers > 0:
            trunk = self.w["decoder.position"].expand(batch * targets, -1, -1)
            for i in range(trunk_layers):
                trunk = self.decoder_layer(trunk, f"decoder.{i}", context, sees)
            gate = torch.sigmoid(self.dense(torch.cat([trunk, x], dim=-1), "decoder.fusion"))
            x = trunk + gate * x
        else:
            x = x + self.w["decoder.position"]
        for i in range(trunk_layers, decoder["layers"]):
            x = self.decoder_layer(x, f"decoder.{i}", context, sees)
        x = self.norm(x, "decoder.norm")

        head = "codes." if decoder.get("tied_heads", True) else "head."
        return [
            (x[:, level] @ self.w[head + str(level)].T).reshape(batch, targets, -1) for level in range(levels)
        ]
