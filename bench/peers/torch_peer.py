# SPDX-License-Identifier: Apache-2.0
"""The loop that an expert writes in PyTorch for exactly this model and search, with nothing done that need not be:

- encoder, then keys and values of the context, once per request; attention over them with the beams as rows of one
  product, never a copy per beam;
- step 1 is one row per request; the beams' own keys and values are gathered by parent, and the last step keeps none;
- the head is one product over the vocabulary and one log-sum-exp; the trie's arrays then give the legal children of all
  beams, and only their logits are read: no mask, no callback, no loop over beams;
- weights that read the same input are one matrix; scales are folded into weights; products go through MKL or through
  oneDNN with packed weights, whichever is faster here.
"""

import math

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import peer

EPSILON = 1e-6
ROWS = 2048  # beams of one call
LOGITS = 1 << 22  # floats of one piece of the head's output: what a large cache holds


def buckets(query, key, bidirectional, count=32, distance=128):
    """T5's relative position buckets."""
    relative = key[None, :] - query[:, None]
    first = torch.zeros_like(relative)
    if bidirectional:
        count //= 2
        first = (relative > 0).long() * count
        relative = relative.abs()
    else:
        relative = (-relative).clamp(min=0)
    exact = count // 2
    far = exact + (torch.log(relative.clamp(min=1).float() / exact) / math.log(distance / exact)
                   * (count - exact)).long()
    return first + torch.where(relative < exact, relative, far.clamp(max=count - 1))


class Matrix:
    """x -> x w^T, by MKL or by oneDNN."""

    def __init__(self, *weights):
        self.weight = torch.cat(weights).contiguous()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight)

    def __call__(self, x, packed):
        if packed:
            return torch.ops.mkldnn._linear_pointwise(x, self.packed, None, "none", [], "")
        return F.linear(x, self.weight)


class Attention:
    def __init__(self, weights, name, cross=False):
        q, k, v, o = (weights[f"{name}.{part}.weight"] for part in "qkvo")
        self.q = Matrix(q) if cross else None
        self.kv = Matrix(k, v) if cross else None
        self.qkv = None if cross else Matrix(q, k, v)
        self.o = Matrix(o)


class FeedForward:
    def __init__(self, weights, name, gated):
        self.gated = gated
        names = ("wi_0", "wi_1") if gated else ("wi",)
        self.up = Matrix(*(weights[f"{name}.{part}.weight"] for part in names))
        self.down = Matrix(weights[f"{name}.wo.weight"])

    def __call__(self, x, packed):
        x = self.up(x, packed)
        if self.gated:
            gate, x = x.chunk(2, -1)
            x = F.gelu(gate, approximate="tanh").mul_(x)
        else:
            x = x.relu_()
        return self.down(x, packed)


class Model:
    def __init__(self, weights, config):
        self.d, self.heads, self.d_kv = config["d_model"], config["num_heads"], config["d_kv"]
        gated = config["feed_forward_proj"].startswith("gated")
        self.embedding = weights["shared.weight"]
        self.encoder = [self.block(weights, f"encoder.block.{i}.layer", gated, False)
                        for i in range(config["num_layers"])]
        self.decoder = [self.block(weights, f"decoder.block.{i}.layer", gated, True)
                        for i in range(config["num_decoder_layers"])]
        self.encoder_norm = weights["encoder.final_layer_norm.weight"]
        self.decoder_norm = weights["decoder.final_layer_norm.weight"] * self.d**-0.5  # the head's scale
        self.head = Matrix(self.embedding)
        bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        places = torch.arange(config["tokens"])
        self.encoder_bias = weights[f"encoder.{bias}"][buckets(places, places, True)].permute(2, 0, 1)[None].contiguous()
        steps = torch.arange(len(config["levels"]))
        self.decoder_bias = weights[f"decoder.{bias}"][buckets(steps, steps, False)]  # [query, key, head]

    @staticmethod
    def block(weights, name, gated, decoder):
        layers = [(Attention(weights, f"{name}.0.SelfAttention"), weights[f"{name}.0.layer_norm.weight"])]
        if decoder:
            layers.append((Attention(weights, f"{name}.1.EncDecAttention", True), weights[f"{name}.1.layer_norm.weight"]))
        last = len(layers)
        layers.append((FeedForward(weights, f"{name}.{last}.DenseReluDense", gated),
                       weights[f"{name}.{last}.layer_norm.weight"]))
        return layers

    def norm(self, x, weight):
        return F.rms_norm(x, (self.d,), weight, EPSILON)

    def encode(self, tokens, packed):
        """[batch, n] -> keys and values [batch, heads, n, d_kv] of each decoder layer."""
        batch, n = tokens.shape
        x = F.embedding(tokens, self.embedding).view(batch * n, self.d)
        for (attention, norm), (feed_forward, second_norm) in self.encoder:
            qkv = attention.qkv(self.norm(x, norm), packed)
            q, k, v = qkv.view(batch, n, 3, self.heads, self.d_kv).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v, self.encoder_bias, scale=1.0)
            x = x + attention.o(y.transpose(1, 2).reshape(batch * n, -1), packed)
            x = x + feed_forward(self.norm(x, second_norm), packed)
        x = self.norm(x, self.encoder_norm)
        return [layers[1][0].kv(x, packed).view(batch, n, 2, self.heads, self.d_kv).permute(2, 0, 3, 1, 4)
                for layers in self.decoder]

    def self_attention(self, attention, x, past, step, packed):
        """Of rows over the few steps before them: [rows, step + 1, heads, d_kv]; products, not a call per row."""
        q, k, v = attention.qkv(x, packed).view(-1, 3, 1, self.heads, self.d_kv).unbind(1)
        if past is not None:
            k, v = torch.cat([past[0], k], 1), torch.cat([past[1], v], 1)
        if step == 0:
            y = v
        else:
            scores = (q * k).sum(-1).add_(self.decoder_bias[step, : step + 1])
            y = (scores.softmax(1)[..., None] * v).sum(1)
        return attention.o(y.reshape(len(x), -1), packed), (k, v)

    def step(self, tokens, batch, step, contexts, caches, parents, last, packed):
        """Hidden states of rows [batch * beams]; caches are replaced by those of this step."""
        x = F.embedding(tokens, self.embedding)
        for i, ((own, norm), (cross, cross_norm), (feed_forward, last_norm)) in enumerate(self.decoder):
            past = caches[i]
            if past is not None:
                past = (past[0].index_select(0, parents), past[1].index_select(0, parents))
            y, kept = self.self_attention(own, self.norm(x, norm), past, step, packed)
            caches[i] = None if last else kept
            x = x + y
            q = cross.q(self.norm(x, cross_norm), packed).view(batch, -1, self.heads, self.d_kv).transpose(1, 2)
            y = F.scaled_dot_product_attention(q, contexts[i][0], contexts[i][1], scale=1.0)
            x = x + cross.o(y.transpose(1, 2).reshape(len(x), -1), packed)
            x = x + feed_forward(self.norm(x, last_norm), packed)
        return self.norm(x, self.decoder_norm)


class Trie:
    """Per level the tokens of its nodes, and where the children of the level's nodes begin on the next."""

    def __init__(self, sids):
        prefixes = [sorted({tuple(sid[: l + 1]) for sid in sids}) for l in range(len(sids[0]))]
        self.tokens = [torch.tensor([prefix[-1] for prefix in level]) for level in prefixes]
        self.begin = [torch.tensor([0, len(prefixes[0])])]
        for above, level in zip(prefixes, prefixes[1:]):
            number = {prefix: i for i, prefix in enumerate(above)}
            counts = torch.zeros(len(above) + 1, dtype=torch.long)
            for prefix in level:
                counts[number[prefix[:-1]] + 1] += 1
            self.begin.append(counts.cumsum(0))
        self.leaves = prefixes[-1]


class TorchLoop(peer.Peer):
    def load(self, workload, threads, options):
        torch.set_num_threads(threads)
        self.workload, self.trie = workload, Trie(workload.sids)
        with torch.inference_mode():
            self.model = Model(load_file(workload.folder / "hf" / "model.safetensors"), workload.model)
        return {"torch": torch.__version__}

    def settings(self, beams, batch):
        groups = sorted({1, min(batch, max(1, ROWS // beams))})
        return [dict(packed=packed, group=group) for packed in (False, True) for group in groups]

    def configure(self, beams, batch, packed, group):
        super().configure(beams, batch)
        self.packed, self.group = packed, group

    def run(self, requests):
        with torch.inference_mode():
            return [self.search(torch.tensor(requests[begin : begin + self.group]))
                    for begin in range(0, len(requests), self.group)]

    def search(self, requests):
        batch, levels, start = len(requests), self.workload.levels, self.workload.pad
        contexts, caches = self.model.encode(requests, self.packed), [None] * len(self.model.decoder)
        rows = torch.arange(batch)[:, None]
        nodes = torch.zeros((batch, 1), dtype=torch.long)
        scores, tokens, parents = torch.zeros((batch, 1)), torch.full((batch,), start), None
        for level in range(levels):
            x = self.model.step(tokens, batch, level, contexts, caches, parents, level + 1 == levels, self.packed)
            parents, nodes, scores = self.select(x, level, nodes, scores)
            tokens = self.trie.tokens[level][nodes.view(-1)]
            parents = (parents + rows * (len(x) // batch)).view(-1)
        return nodes, scores

    def select(self, x, level, nodes, scores):
        """The best children of every request's beams: (parent's beam, node, score), each [batch, beams]."""
        batch, beams = nodes.shape
        begin = self.trie.begin[level][nodes].view(-1)
        counts = (self.trie.begin[level][nodes + 1].view(-1) - begin).masked_fill_(scores.view(-1).isinf(), 0)
        ends = counts.cumsum(0)
        row = torch.repeat_interleave(counts)
        child = torch.arange(len(row)) + (begin - ends + counts)[row]
        gathered = self.log_probs(x, row, ends, self.trie.tokens[level][child]) + scores.view(-1)[row]
        if batch == 1:
            best, place = gathered.topk(min(self.beams, len(row)))
            return (row[place])[None], child[place][None], best[None]
        # Requests have different numbers of children: a line each, filled up with what is never chosen.
        totals = counts.view(batch, beams).sum(1)
        first, width = totals.cumsum(0) - totals, int(totals.max())
        request = row // beams
        lines = torch.full((batch, width), float("-inf"))
        lines[request, torch.arange(len(row)) - first[request]] = gathered
        best, place = lines.topk(min(self.beams, width), dim=1)
        place = (place + first[:, None]).clamp_(max=len(row) - 1)
        return row[place] % beams, child[place], best

    def log_probs(self, x, row, ends, tokens):
        """Of child c's token after row[c]'s beam, the head's output in pieces that stay in the cache."""
        piece = max(64, LOGITS // len(self.model.embedding))
        if len(x) <= piece:
            logits = self.model.head(x, self.packed)
            return logits[row, tokens] - logits.logsumexp(-1)[row]
        parts = []
        for begin in range(0, len(x), piece):
            logits = self.model.head(x[begin : begin + piece], self.packed)
            low = int(ends[begin - 1]) if begin else 0
            high = int(ends[min(begin + piece, len(x)) - 1])
            own = row[low:high] - begin
            parts.append(logits[own, tokens[low:high]] - logits.logsumexp(-1)[own])
        return torch.cat(parts)

    def lists(self, result):
        return [[(self.trie.leaves[node], score) for node, score in zip(nodes.tolist(), scores.tolist())
                 if score != float("-inf")]
                for group_nodes, group_scores in result for nodes, scores in zip(group_nodes, group_scores)]


if __name__ == "__main__":
    peer.main(TorchLoop())
