# SPDX-License-Identifier: Apache-2.0
"""What an expert writes in PyTorch for this model and search on a GPU: torch_peer's loop without a shape that depends
on data, so that a whole batch - encoder, all steps, all selections - is one CUDA graph.

- Keys and values of the context once per request; the beams of a request are the queries of one scaled_dot_product_
  attention call over them. Step 1 is one row per request; the last step keeps no keys.
- The trie is a table: a node's children are a range, read as as many entries as the level's largest fan-out, those
  beyond its end masked; torch.topk over beams x fan-out. (What STATIC calls a vectorised node lookup.)
- The head's product gives fp32; one log-sum-exp over it.
- "compiled": what lies between the products goes through torch.compile, one kernel for each piece. Tried both ways.

Without a GPU nothing is captured: the same code runs as it is, for tests."""

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import peer
from torch_peer import EPSILON, Trie, buckets

WARM_UP = 3  # runs before the capture: libraries choose and allocate
GROUP_ROWS = 8192  # beams of one graph, at most
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def add_norm(x, y, weight):
    """The new residual, and its norm."""
    x = x + y
    return x, F.rms_norm(x, (x.shape[-1],), weight, EPSILON)


def gated(both):
    gate, x = both.chunk(2, -1)
    return F.gelu(gate, approximate="tanh") * x


def own_attention(q, keys, values, bias):
    """Of rows over the few steps until now: q [rows, heads, d], keys and values a list of them, bias [step, heads]."""
    scores = torch.stack([(q * k).sum(-1, dtype=torch.float32) for k in keys], 1) + bias
    weights = scores.softmax(1)
    return sum(weights[:, i, :, None] * v for i, v in enumerate(values)).to(q.dtype)


class Layer:
    """A block's weights; those that read the same input as one matrix."""

    def __init__(self, weights, name, gated_ffn, decoder):
        def matrix(*parts):
            return torch.cat([weights[f"{name}.{part}.weight"] for part in parts])
        last = 2 if decoder else 1
        self.own_norm = weights[f"{name}.0.layer_norm.weight"]
        self.qkv = matrix(*(f"0.SelfAttention.{part}" for part in "qkv"))
        self.own_out = matrix("0.SelfAttention.o")
        if decoder:
            self.cross_norm = weights[f"{name}.1.layer_norm.weight"]
            self.cross_q, self.cross_out = matrix("1.EncDecAttention.q"), matrix("1.EncDecAttention.o")
            self.cross_kv = matrix("1.EncDecAttention.k", "1.EncDecAttention.v")
        self.norm = weights[f"{name}.{last}.layer_norm.weight"]
        ffn = f"{last}.DenseReluDense"
        self.up = matrix(f"{ffn}.wi_0", f"{ffn}.wi_1") if gated_ffn else matrix(f"{ffn}.wi")
        self.down = matrix(f"{ffn}.wo")


class Model:
    def __init__(self, weights, config, device, dtype):
        weights = {name: weight.to(device, dtype) for name, weight in weights.items()}
        self.heads, self.d_kv = config["num_heads"], config["d_kv"]
        self.gated = config["feed_forward_proj"].startswith("gated")
        self.embedding = weights["shared.weight"]
        self.encoder = [Layer(weights, f"encoder.block.{i}.layer", self.gated, False)
                        for i in range(config["num_layers"])]
        self.decoder = [Layer(weights, f"decoder.block.{i}.layer", self.gated, True)
                        for i in range(config["num_decoder_layers"])]
        self.encoder_norm = weights["encoder.final_layer_norm.weight"]
        self.decoder_norm = weights["decoder.final_layer_norm.weight"]
        self.head_scale = config["d_model"] ** -0.5
        bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        places, steps = torch.arange(config["tokens"]), torch.arange(len(config["levels"]))
        encoder_bias = weights[f"encoder.{bias}"][buckets(places, places, True).to(device)]
        self.encoder_bias = encoder_bias.permute(2, 0, 1)[None].contiguous()
        self.decoder_bias = weights[f"decoder.{bias}"][buckets(steps, steps, False).to(device)].float()  # [query, key, head]
        self.compile(False)

    def compile(self, compiled):
        wrap = (lambda f: torch.compile(f, dynamic=False)) if compiled else (lambda f: f)
        self.add_norm, self.gate, self.own_attention = wrap(add_norm), wrap(gated), wrap(own_attention)

    def feed_forward(self, x, layer):
        x = F.linear(x, layer.up)
        return F.linear(self.gate(x) if self.gated else x.relu(), layer.down)

    def encode(self, tokens):
        """[batch, n] -> keys and values [batch, heads, n, d_kv] of each decoder layer."""
        batch, n = tokens.shape
        x = F.embedding(tokens.view(-1), self.embedding)
        normed = F.rms_norm(x, (x.shape[-1],), self.encoder[0].own_norm, EPSILON)
        for i, layer in enumerate(self.encoder):
            q, k, v = F.linear(normed, layer.qkv).view(batch, n, 3, self.heads, self.d_kv).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v, self.encoder_bias, scale=1.0)
            y = F.linear(y.transpose(1, 2).reshape(batch * n, -1), layer.own_out)
            x, normed = self.add_norm(x, y, layer.norm)
            after = self.encoder[i + 1].own_norm if i + 1 < len(self.encoder) else self.encoder_norm
            x, normed = self.add_norm(x, self.feed_forward(normed, layer), after)
        return [F.linear(normed, layer.cross_kv).view(batch, n, 2, self.heads, self.d_kv).permute(2, 0, 3, 1, 4)
                for layer in self.decoder]

    def step(self, tokens, contexts, caches, parents, last):
        """Hidden states of rows [batch x beams]; caches[layer]: keys and values of the steps before, one pair each."""
        x = F.embedding(tokens, self.embedding)
        normed = F.rms_norm(x, (x.shape[-1],), self.decoder[0].own_norm, EPSILON)
        for i, layer in enumerate(self.decoder):
            if parents is not None:
                caches[i] = [(k.index_select(0, parents), v.index_select(0, parents)) for k, v in caches[i]]
            q, k, v = F.linear(normed, layer.qkv).view(-1, 3, self.heads, self.d_kv).unbind(1)
            steps = [*caches[i], (k, v)]
            y = v if len(steps) == 1 else self.own_attention(
                q, [k for k, _ in steps], [v for _, v in steps], self.decoder_bias[len(steps) - 1, : len(steps)])
            caches[i] = [] if last else steps
            x, normed = self.add_norm(x, F.linear(y.flatten(1), layer.own_out), layer.cross_norm)
            keys, values = contexts[i]
            q = F.linear(normed, layer.cross_q).view(len(keys), -1, self.heads, self.d_kv).transpose(1, 2)
            y = F.scaled_dot_product_attention(q, keys, values, scale=1.0).transpose(1, 2).reshape(len(x), -1)
            x, normed = self.add_norm(x, F.linear(y, layer.cross_out), layer.norm)
            after = self.decoder[i + 1].own_norm if i + 1 < len(self.decoder) else self.decoder_norm
            x, normed = self.add_norm(x, self.feed_forward(normed, layer), after)
        return normed

    def logits(self, x):
        """In fp32, whatever the weights' type."""
        if x.is_cuda and x.dtype != torch.float32:
            return torch.mm(x, self.embedding.t(), out_dtype=torch.float32) * self.head_scale
        return F.linear(x, self.embedding).float() * self.head_scale


class GraphLoop(peer.Peer):
    def load(self, workload, threads, options):
        torch.set_num_threads(threads)
        self.workload, self.device = workload, options.get("device", "cpu")
        trie = Trie(workload.sids)
        self.fan_outs = [int((begin[1:] - begin[:-1]).max()) for begin in trie.begin]
        self.tokens = [tokens.to(self.device) for tokens in trie.tokens]
        self.begin = [begin.to(self.device) for begin in trie.begin]
        self.leaves = trie.leaves
        with torch.inference_mode():
            self.model = Model(load_file(workload.folder / "hf" / "model.safetensors"), workload.model, self.device,
                               DTYPES[options.get("dtype", "fp32")])
        return {"torch": torch.__version__}

    def settings(self, beams, batch):
        groups = sorted({min(batch, size) for size in (1, 4, 16) if size == 1 or size * beams <= GROUP_ROWS})
        return [dict(group=group, compiled=compiled) for compiled in (False, True)[: 1 + (self.device != "cpu")]
                for group in groups[-2:]]

    def configure(self, beams, batch, group, compiled):
        super().configure(beams, batch)
        self.group = group
        self.graph = self.requests = self.result = None  # what it keeps is free before the next one needs it
        self.model.compile(compiled)
        with torch.inference_mode():
            self.requests = torch.zeros((group, self.workload.model["tokens"]), dtype=torch.long, device=self.device)
            if self.device == "cpu":
                return
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    self.search(self.requests)
            torch.cuda.synchronize()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=stream):
                self.result = self.search(self.requests)

    def run(self, requests):
        with torch.inference_mode():
            results = []
            for begin in range(0, len(requests), self.group):
                some = requests[begin : begin + self.group]
                self.requests[: len(some)].copy_(torch.tensor(some))
                if self.graph is not None:
                    self.graph.replay()
                else:
                    self.result = self.search(self.requests)
                results.append(tuple(part[: len(some)].cpu() for part in self.result))
            return results

    def search(self, requests):
        """Nodes of the last level and their scores, [batch, beams], best first; a score of -inf: there was none."""
        batch = len(requests)
        contexts, caches = self.model.encode(requests), [[] for _ in self.model.decoder]
        rows = torch.arange(batch, device=self.device)[:, None]
        nodes = torch.zeros((batch, 1), dtype=torch.long, device=self.device)
        scores = torch.zeros((batch, 1), device=self.device)
        tokens, parents = torch.full((batch,), self.workload.pad, device=self.device), None
        for level in range(self.workload.levels):
            x = self.model.step(tokens, contexts, caches, parents, level + 1 == self.workload.levels)
            width = nodes.shape[1]
            parents, nodes, scores = self.select(x, level, nodes, scores)
            tokens = self.tokens[level][nodes.view(-1)]
            parents = (parents + rows * width).view(-1)
        return nodes, scores

    def select(self, x, level, nodes, scores):
        """The best children of every request's beams: (parent's beam, node, score), each [batch, beams]."""
        batch, width = nodes.shape
        fan_out, level_tokens = self.fan_outs[level], self.tokens[level]
        logits = self.model.logits(x).view(batch, width, -1)
        child = self.begin[level][nodes][..., None] + torch.arange(fan_out, device=self.device)
        there = child < self.begin[level][nodes + 1][..., None]
        child = child.clamp_(max=len(level_tokens) - 1)
        found = logits.gather(-1, level_tokens[child]) - logits.logsumexp(-1, keepdim=True) + scores[..., None]
        found = found.masked_fill_(~there, float("-inf")).view(batch, -1)
        best, place = found.topk(min(self.beams, found.shape[1]), dim=1)
        return place // fan_out, child.view(batch, -1).gather(1, place), best

    def lists(self, result):
        return [[(self.leaves[node], score) for node, score in zip(nodes.tolist(), scores.tolist())
                 if score != float("-inf")]
                for group_nodes, group_scores in result for nodes, scores in zip(group_nodes, group_scores)]


if __name__ == "__main__":
    peer.main(GraphLoop())
