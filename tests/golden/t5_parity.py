# SPDX-License-Identifier: Apache-2.0
"""What transformers' constrained beam search answers, for Beamline's T5 to be compared with.

Writes one folder per case: hf/ (what save_pretrained writes: config.json, model.safetensors or shards, tokenizer), the
items' SID index, and golden.safetensors (requests as token ids, and generate's lists under a trie callback; the scores of
the same lists by the same model in double precision, since fp32's own log-softmax is off by 2e-5 a step where one token
of a wide vocabulary takes nearly all of the probability). Models have random weights, or, in the case "trained", a few hundred steps of training on generated histories.

  $(tests/golden/venv.sh) tests/golden/t5_parity.py --out DIR                   1,000 requests in each of six cases, 120 in a wide one
  $(tests/golden/venv.sh) tests/golden/t5_parity.py --out DIR --seed 7 --case relu_tied --items 4000 --d-model 96
  $(tests/golden/venv.sh) tests/golden/t5_parity.py --small                     the set in the repository, tests/golden/t5
  BEAMLINE_PARITY_DIR=DIR beamline_parity_test                                  compares
"""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import random
import shutil
import sys
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
DROPPED = -1e8  # generate fills up with duplicates of score -1e9 where the trie has fewer leaves than beams


@dataclasses.dataclass
class Case:
    name: str
    levels: list  # codes per level
    items: int
    score_end: bool = False  # generate L + 1 tokens instead of L
    dialect: str = "letter"  # or minionerec-info
    words: int = 24  # tokens besides specials and SIDs
    unused_rows: int = 0  # rows of the embedding beyond the tokenizer
    shards: bool = False
    template: bool = True  # the tokenizer appends the end token
    nothing_tied: bool = False  # encoder, decoder and head have an embedding each, as a model untied by its config has
    head_of_its_own: bool = False
    old_config: bool = False  # config.json as transformers 4 writes it
    shared_only: bool = False  # the file holds shared.weight and neither copy nor head
    trained: bool = False
    requests: int | None = None  # fewer than are asked for
    widest: int | None = None  # beams, of the widths that are asked for
    model: dict = dataclasses.field(default_factory=dict)


CASES = [
    Case("relu_tied", [24, 20, 16, 6], 2500, unused_rows=13, shared_only=True,
         model=dict(d_model=48, d_kv=24, num_heads=3, d_ff=80, num_layers=3, num_decoder_layers=2)),
    Case("gated_untied_end", [40, 32, 24], 3000, score_end=True, nothing_tied=True, old_config=True, shards=True,
         model=dict(d_model=48, d_kv=8, num_heads=4, d_ff=64, num_layers=2, num_decoder_layers=3,
                    feed_forward_proj="gated-gelu")),
    Case("two_levels", [70, 60], 1500, dialect="minionerec-info", words=400,
         model=dict(d_model=40, d_kv=20, num_heads=2, d_ff=96, num_layers=2, num_decoder_layers=2,
                    relative_attention_num_buckets=12, relative_attention_max_distance=20)),
    # Fewer codes than beams at the first level, fewer items than beams, fewer words than codes without an item.
    Case("few_items_end", [3, 40, 50, 8], 60, score_end=True, words=1, template=False,
         model=dict(d_model=32, d_kv=16, num_heads=4, d_ff=64, num_layers=1, num_decoder_layers=2,
                    feed_forward_proj="gated-gelu")),
    Case("end_of_three", [12, 12, 12], 900, score_end=True, dialect="minionerec-info", head_of_its_own=True,
         model=dict(d_model=64, d_kv=16, num_heads=4, d_ff=128, num_layers=2, num_decoder_layers=2)),
    # Some 20,000 tokens, of which the padding token, tied to the decoder's start, takes nearly all of the probability.
    Case("wide_vocabulary", [8192, 8192, 8192], 10000, requests=120, widest=128, shared_only=True,
         model=dict(d_model=256, d_kv=32, num_heads=8, d_ff=512, num_layers=2, num_decoder_layers=2)),
    Case("trained", [16, 16, 16], 400, trained=True,
         model=dict(d_model=48, d_kv=16, num_heads=3, d_ff=96, num_layers=2, num_decoder_layers=2)),
]

SMALL = {
    "relu_tied": dict(levels=[9, 7, 5, 4], items=120,
                      model=dict(d_model=16, d_kv=12, num_heads=2, d_ff=24, num_layers=2, num_decoder_layers=1)),
    "gated_untied_end": dict(levels=[12, 9, 7], items=150,
                             model=dict(d_model=16, d_kv=4, num_heads=3, d_ff=20, num_layers=1, num_decoder_layers=2)),
    "two_levels": dict(levels=[15, 14], items=90, words=20,
                       model=dict(d_model=12, d_kv=8, num_heads=2, d_ff=24, num_layers=1, num_decoder_layers=1)),
    "few_items_end": dict(levels=[3, 9, 11, 4], items=30,
                          model=dict(d_model=16, d_kv=8, num_heads=2, d_ff=20, num_layers=1, num_decoder_layers=1)),
}


def make_items(case, rng):
    """Distinct random SIDs; item ids with gaps. Uneven popularity of codes, so that subtrees differ in size."""
    sids = set()
    limit = int(np.prod(case.levels))
    while len(sids) < min(case.items, limit):
        sids.add(tuple(int(size * rng.random() ** 1.3) for size in case.levels))
    items = {}
    for number, sid in enumerate(sorted(sids, key=lambda _: rng.random())):
        items[3 * number + 1] = sid
    return items


def sid_token(level, code):
    return f"<{chr(ord('a') + level)}_{code}>"


def make_tokenizer(case, items):
    """Words, then the SID tokens that the items use, added in lexicographic order as LETTER's code adds them."""
    words = [PAD, END, UNKNOWN] + [f"word{i}" for i in range(case.words)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if case.template:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token=UNKNOWN)
    fast.add_tokens(sorted({sid_token(l, c) for sid in items.values() for l, c in enumerate(sid)}))
    return fast


def make_model(case, rows, seed):
    torch.manual_seed(seed)
    config = T5Config(vocab_size=rows, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, dropout_rate=0.1,
                      **case.model)
    if case.nothing_tied:
        config.tie_word_embeddings = False
    if case.nothing_tied or case.head_of_its_own:
        config.scale_decoder_outputs = False
    model = T5ForConditionalGeneration(config).eval()
    if case.trained:
        return model
    if case.head_of_its_own:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    with torch.no_grad():  # norms and biases away from their initial ones and zeros; logits that tell tokens apart
        for name, parameter in model.named_parameters():
            if "layer_norm" in name:
                parameter.copy_(1 + 0.3 * torch.randn_like(parameter))
            elif "relative_attention_bias" in name:
                parameter.copy_(torch.randn_like(parameter))
        if case.nothing_tied or case.head_of_its_own:
            model.lm_head.weight.copy_(0.3 * torch.randn_like(model.lm_head.weight))
        else:
            model.shared.weight.mul_(1.7)
    return model


def train(model, case, items, tokenizer, rng, steps):
    """Histories that walk a random graph over the items: something to learn within a minute."""
    ids = list(items)
    follow = {i: [ids[int(len(ids) * rng.random() ** 2)] for _ in range(3)] for i in ids}
    tokens = {i: tokenizer.convert_tokens_to_ids([sid_token(l, c) for l, c in enumerate(s)]) for i, s in items.items()}

    def history(length):
        walk = [rng.choice(ids)]
        while len(walk) < length:
            walk.append(rng.choice(follow[walk[-1]]) if rng.random() < 0.85 else rng.choice(ids))
        return walk

    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    model.train()
    first = last = None
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1, (step + 1) / 20) * (1 - step / steps)
        walks = [history(rng.randint(3, 8)) for _ in range(64)]
        inputs = pad([sum((tokens[i] for i in walk[:-1]), []) + [1] for walk in walks])
        labels = torch.tensor([tokens[walk[-1]] + [1] for walk in walks])
        loss = model(input_ids=inputs, attention_mask=inputs.ne(0).long(), labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        last = loss.item()
        first = first or last
    print(f"  trained {steps} steps: loss {first:.3f} -> {last:.3f}", flush=True)
    if not last < 0.8 * first:
        sys.exit(f"{case.name}: the model did not learn")
    return model.eval(), history


def pad(rows):
    width = max(map(len, rows))
    return torch.tensor([row + [0] * (width - len(row)) for row in rows])


def save(case, folder, model, tokenizer, items):
    hf = folder / "hf"
    model.save_pretrained(hf, **(dict(max_shard_size="20KB") if case.shards else {}))
    tokenizer.save_pretrained(hf)
    if case.old_config:
        config = json.loads((hf / "config.json").read_text())
        config["tie_word_embeddings"] = config.pop("scale_decoder_outputs")
        config["transformers_version"] = "4.44.0"
        (hf / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if case.shared_only:
        weights = load_file(hf / "model.safetensors")
        for copy in ("lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"):
            weights.pop(copy, None)
        save_file(weights, hf / "model.safetensors", metadata={"format": "pt"})
    if case.dialect == "letter":
        index = {str(i - 1): [sid_token(l, c) for l, c in enumerate(sid)] for i, sid in items.items()}
        (folder / "index.json").write_text(json.dumps(index) + "\n")
        return "index.json"
    lines = ("".join(sid_token(l, c) for l, c in enumerate(sid)) + f"\titem {i}\t{i - 1}" for i, sid in items.items())
    (folder / "index.txt").write_text("\n".join(lines) + "\n")
    return "index.txt"


class Trie:
    """Token prefix -> allowed tokens, as generate's prefix_allowed_tokens_fn wants it."""

    def __init__(self, sequences):
        self.next = {}
        for sequence in sequences:
            for length in range(len(sequence)):
                self.next.setdefault(tuple(sequence[:length]), set()).add(sequence[length])
        self.next = {prefix: sorted(tokens) for prefix, tokens in self.next.items()}

    def __call__(self, batch_id, sent):
        return self.next.get(tuple(sent.tolist()[1:]), [0])  # without decoder_start; off the trie the padding token


class CutGaps:
    """Watches generate's own top-k: how far the last candidate kept lies above the first one dropped, per request."""

    def __init__(self, beams, batch):
        self.beams, self.gaps = beams, torch.full((batch,), float("inf"))
        self.original = T5ForConditionalGeneration._get_top_k_continuations

    def __enter__(self):
        def watched(model, accumulated_log_probs, *args, **kwargs):
            count = min(self.beams + 1, accumulated_log_probs.shape[-1])
            best = torch.topk(accumulated_log_probs, count)[0]
            if count > self.beams:
                kept, dropped = best[:, self.beams - 1], best[:, self.beams]
                real = (kept > DROPPED) & (dropped > DROPPED)
                self.gaps = torch.where(real, torch.minimum(self.gaps, kept - dropped), self.gaps)
            return self.original(model, accumulated_log_probs, *args, **kwargs)

        T5ForConditionalGeneration._get_top_k_continuations = watched
        return self

    def __exit__(self, *_):
        T5ForConditionalGeneration._get_top_k_continuations = self.original


def answer(case, model, trie, inputs, width):
    """Lists of (tokens, score) of a batch of requests, best first, and each one's smallest gap at a cut."""
    steps = len(case.levels) + case.score_end
    tokens = pad(inputs)
    with CutGaps(width, len(inputs)) as watch, torch.no_grad():
        out = model.generate(
            input_ids=tokens, attention_mask=tokens.ne(0).long(), prefix_allowed_tokens_fn=trie, num_beams=width,
            num_return_sequences=width, max_new_tokens=steps, length_penalty=0.0, early_stopping=False, do_sample=False,
            return_dict_in_generate=True, output_scores=True, output_logits=width == 1,
            # transformers 5.23 makes a cache of as many layers as the encoder has.
            use_cache=model.config.num_decoder_layers <= model.config.num_layers)
    if width == 1:  # greedy search has no sequences_scores
        chosen = out.sequences[:, 1:]
        log_probs = [logits.float().log_softmax(-1) for logits in out.logits]
        scores = sum(row.gather(1, chosen[:, step : step + 1])[:, 0] for step, row in enumerate(log_probs))
    else:
        scores = out.sequences_scores
    lists = []
    for b in range(len(inputs)):
        rows = range(b * width, (b + 1) * width)
        lists.append([(out.sequences[r, 1 : 1 + len(case.levels)].tolist(), float(scores[r]))
                      for r in rows if scores[r] > DROPPED])
    return lists, watch.gaps.tolist()


def scores_in_double(model, inputs, sequences):
    """Log-probabilities of one request's sequences of tokens under a model in double precision, the start token left out."""
    tokens = torch.tensor([inputs])
    with torch.no_grad():
        memory = model.encoder(input_ids=tokens).last_hidden_state.expand(len(sequences), -1, -1)
        fed = torch.tensor([[model.config.decoder_start_token_id] + sequence[:-1] for sequence in sequences])
        logits = model(encoder_outputs=(memory,), decoder_input_ids=fed).logits
        return logits.log_softmax(-1).gather(2, torch.tensor(sequences)[..., None]).sum((1, 2)).tolist()


def logits_deviation(model, inputs):
    """Over the vocabulary, of the first step's logits: below one, beam search tells nothing apart."""
    tokens = pad(inputs[:64])
    start = torch.zeros((len(tokens), 1), dtype=torch.long)
    with torch.no_grad():
        logits = model(input_ids=tokens, attention_mask=tokens.ne(0).long(), decoder_input_ids=start).logits
    return float(logits.std(-1).mean())


def make_requests(case, count, max_items, items, tokenizer, rng, history):
    ids = list(items)
    requests = []
    for _ in range(count):
        length = rng.randint(1, max_items)
        walk = history(length) if history else [rng.choice(ids) for _ in range(length)]
        tokens = [t for i in walk for t in
                  tokenizer.convert_tokens_to_ids([sid_token(l, c) for l, c in enumerate(items[i])])]
        requests.append((walk, tokens + ([1] if case.template else [])))
    return requests


def run_case(case, args, out):
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    start = time.time()
    rng = random.Random(f"{args.seed} {case.name}")
    folder = out / case.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    items = make_items(case, rng)
    tokenizer = make_tokenizer(case, items)
    model = make_model(case, len(tokenizer) + case.unused_rows, rng.randrange(1 << 30))
    history = None
    if case.trained:
        model, history = train(model, case, items, tokenizer, rng, args.train_steps)
    index = save(case, folder, model, tokenizer, items)
    model = T5ForConditionalGeneration.from_pretrained(folder / "hf", dtype=torch.float32).eval()  # what the files say

    requests = make_requests(case, min(args.requests, case.requests or args.requests), args.max_items, items, tokenizer, rng, history)
    deviation = logits_deviation(model, [tokens for _, tokens in requests])
    if deviation < 1:
        sys.exit(f"{case.name}: the logits' standard deviation is {deviation:.2f}, below 1")
    end = [1] if case.score_end else []
    tokens_of = {i: tokenizer.convert_tokens_to_ids([sid_token(l, c) for l, c in enumerate(s)]) for i, s in items.items()}
    trie = Trie([tokens + end for tokens in tokens_of.values()])
    code_of = {sid_token(l, c): c for l, size in enumerate(case.levels) for c in range(size)}
    code_of = {tokenizer.convert_tokens_to_ids(token): code for token, code in code_of.items()}

    rotated = [width for width in args.widths if width <= (case.widest or width)]
    widths = [rotated[i % len(rotated)] for i in range(len(requests))]
    lists, gaps = [None] * len(requests), [0.0] * len(requests)
    for width in rotated:
        mine = [i for i, w in enumerate(widths) if w == width]
        size = max(1, min(16, 2048 // width))
        for begin in range(0, len(mine), size):
            batch = mine[begin : begin + size]
            answers, batch_gaps = answer(case, model, trie, [requests[i][1] for i in batch], width)
            for i, found, gap in zip(batch, answers, batch_gaps):
                lists[i], gaps[i] = found, min(gap, 1e9)
    flat = [entry for found in lists for entry in found]
    double = model.double()
    doubles = [score for (_, tokens), found in zip(requests, lists)
               for score in scores_in_double(double, tokens, [sequence + end for sequence, _ in found])]
    save_file(
        {
            "tokens": pad([tokens for _, tokens in requests]).int(),
            "lengths": torch.tensor([len(tokens) for _, tokens in requests], dtype=torch.int32),
            "history": pad([walk for walk, _ in requests]).int(),
            "widths": torch.tensor(widths, dtype=torch.int32),
            "counts": torch.tensor([len(found) for found in lists], dtype=torch.int32),
            "codes": torch.tensor([[code_of[t] for t in tokens] for tokens, _ in flat], dtype=torch.int32),
            "scores": torch.tensor([score for _, score in flat], dtype=torch.float32),
            "scores_in_double": torch.tensor(doubles, dtype=torch.float64),
            "cut_gaps": torch.tensor(gaps, dtype=torch.float32),
        },
        folder / "golden.safetensors",
        metadata={"index": index, "dialect": case.dialect, "score_end": str(int(case.score_end)),
                  "levels": ",".join(map(str, case.levels)), "max_items": str(args.max_items),
                  "transformers": transformers.__version__, "torch": torch.__version__, "seed": str(args.seed),
                  "logits_deviation": f"{deviation:.2f}"})
    print(f"{case.name}: {len(requests)} requests, {len(items)} items, {len(flat)} hypotheses, logits' deviation "
          f"{deviation:.2f}, {time.time() - start:.0f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--small", action="store_true", help="the repository's set: smaller models, fewer requests")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--requests", type=int, default=1000, help="per case")
    parser.add_argument("--widths", type=lambda text: [int(w) for w in text.split(",")], default=[1, 4, 20, 50, 128, 512])
    parser.add_argument("--max-items", type=int, default=10, help="longest history")
    parser.add_argument("--train-steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time, each in a process with --threads threads")
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES], help="default: all")
    for name in ("items", "d_model", "d_kv", "num_heads", "d_ff", "num_layers", "num_decoder_layers"):
        parser.add_argument("--" + name.replace("_", "-"), type=int, help="instead of the case's own")
    parser.add_argument("--levels", type=lambda text: [int(size) for size in text.split(",")], help="codes per level")
    args = parser.parse_args()
    if args.small:
        args.requests, args.out = min(args.requests, 24), args.out or pathlib.Path(__file__).parent / "t5"
    if not args.out:
        parser.error("--out is missing")
    cases = [case for case in CASES if not args.case or case.name in args.case]
    if args.small:
        cases = [dataclasses.replace(case, **{**SMALL[case.name], "model": {**case.model, **SMALL[case.name]["model"]}})
                 for case in cases if case.name in SMALL]
    changed = {k: v for k, v in vars(args).items() if k in ("items", "levels") and v is not None}
    sizes = {k: v for k, v in vars(args).items() if (k.startswith("d_") or k.startswith("num_")) and v is not None}
    cases = [dataclasses.replace(case, **changed, model={**case.model, **sizes}) for case in cases]
    with concurrent.futures.ProcessPoolExecutor(args.jobs) as processes:
        for done in [processes.submit(run_case, case, args, args.out) for case in cases]:
            done.result()


if __name__ == "__main__":
    main()
