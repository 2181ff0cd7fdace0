# SPDX-License-Identifier: Apache-2.0
"""Makes the folder that all peers of one size work from: the same weights, items and requests.

  hf/            a T5ForConditionalGeneration with random weights, as save_pretrained writes it, and its tokenizer
  index.json     the items' SIDs (LETTER's dialect)
  workload.json  requests, items and tokens as numbers (peer.Workload)

  workload.py --size A --out FOLDER
"""

import argparse
import dataclasses
import json
import os
import pathlib
import random
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
ITEMS = 10_000
REQUESTS = 64  # the pool that runs go round in


@dataclasses.dataclass
class Size:
    levels: list  # codes per level
    vocabulary: int
    prefix: list  # tokens around the items of a request
    suffix: list
    model: dict
    tokens: int = 80  # of a request


# A and B: shapes of TIGER- and LETTER-like recommenders. E0 and E1, for a GPU: of OneRec-like ones, 0.13 and 1.02 B.
SIZES = {
    "A": Size([256] * 4, 1_100, [], [],
              dict(d_model=128, num_heads=6, d_kv=64, d_ff=1024, num_layers=4, num_decoder_layers=4,
                   feed_forward_proj="relu")),
    "B": Size([8192] * 3, 24_676, ["word0"], [END],
              dict(d_model=256, num_heads=8, d_kv=32, d_ff=1024, num_layers=4, num_decoder_layers=4,
                   feed_forward_proj="gated-gelu")),
    "E0": Size([8192] * 3, 24_676, ["word0"], [END],
               dict(d_model=768, num_heads=6, d_kv=128, d_ff=2048, num_layers=8, num_decoder_layers=6,
                    feed_forward_proj="gated-gelu"), tokens=512),
    "E1": Size([8192] * 3, 24_676, ["word0"], [END],
               dict(d_model=1536, num_heads=12, d_kv=128, d_ff=4096, num_layers=16, num_decoder_layers=14,
                    feed_forward_proj="gated-gelu"), tokens=512),
}


def sid_token(level, code):
    return f"<{chr(ord('a') + level)}_{code}>"


def make_tokenizer(size):
    """Words, then the SID tokens, added in lexicographic order: ids follow no arithmetic."""
    words = size.vocabulary - sum(size.levels) - 3
    vocabulary = [PAD, END, UNKNOWN] + [f"word{i}" for i in range(words)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token=UNKNOWN)
    fast.add_tokens(sorted(sid_token(l, c) for l, count in enumerate(size.levels) for c in range(count)))
    if len(fast) != size.vocabulary:
        sys.exit(f"the tokenizer has {len(fast)} tokens, not {size.vocabulary}")
    return fast


def make_model(size, seed):
    """Random weights whose logits tell tokens apart: norms and biases away from ones and zeros, larger embeddings."""
    torch.manual_seed(seed)
    config = T5Config(vocab_size=size.vocabulary, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
                      dropout_rate=0.0, **size.model)
    model = T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm" in name:
                parameter.copy_(1 + 0.3 * torch.randn_like(parameter))
            elif "relative_attention_bias" in name:
                parameter.copy_(torch.randn_like(parameter))
        model.shared.weight.mul_(1.7)
    return model


def logits_deviation(model, requests):
    with torch.no_grad():
        tokens = torch.tensor(requests[: max(1, 640 // len(requests[0]))])
        start = torch.zeros((len(tokens), 1), dtype=torch.long)
        return float(model(input_ids=tokens, decoder_input_ids=start).logits.std(-1).mean())


def make(size, seed, out):
    rng = random.Random(seed)
    sids = set()
    while len(sids) < ITEMS:
        sids.add(tuple(rng.randrange(count) for count in size.levels))
    sids = sorted(sids)  # item i + 1 has sids[i]
    tokenizer = make_tokenizer(size)
    model = make_model(size, seed)
    ids = tokenizer.get_vocab()
    code_tokens = [[ids[sid_token(l, c)] for c in range(count)] for l, count in enumerate(size.levels)]
    item_tokens = [[code_tokens[l][c] for l, c in enumerate(sid)] for sid in sids]

    prefix, suffix = [ids[token] for token in size.prefix], [ids[token] for token in size.suffix]
    length, rest = divmod(size.tokens - len(prefix) - len(suffix), len(size.levels))
    if rest:
        sys.exit(f"{size.tokens} tokens are no whole number of items")
    histories = [[rng.randrange(ITEMS) + 1 for _ in range(length)] for _ in range(REQUESTS)]
    requests = [prefix + [t for item in history for t in item_tokens[item - 1]] + suffix for history in histories]
    deviation = logits_deviation(model, requests)
    if deviation < 1:
        sys.exit(f"the logits' standard deviation is {deviation:.2f}: below 1 nothing is told apart")

    out.mkdir(parents=True)
    model.save_pretrained(out / "hf")
    tokenizer.save_pretrained(out / "hf")
    index = {str(i): [sid_token(l, c) for l, c in enumerate(sid)] for i, sid in enumerate(sids)}
    (out / "index.json").write_text(json.dumps(index))
    document = {
        "model": {**size.model, "vocabulary": size.vocabulary, "levels": size.levels, "tokens": size.tokens,
                  # Beams that a constrained search can keep after each level.
                  "prefixes": [len({sid[: l + 1] for sid in sids}) for l in range(len(size.levels))]},
        "import": {"prefix": size.prefix, "suffix": size.suffix, "max_items": length},
        "logits_deviation": deviation, "seed": seed, "pad": 0, "end": 1,
        "requests": requests, "histories": histories, "sids": sorted(item_tokens), "code_tokens": code_tokens,
        "token_text": [text for text, _ in sorted(ids.items(), key=lambda entry: entry[1])],
    }
    (out / "workload.json").write_text(json.dumps(document))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{parameters / 1e6:.1f} M parameters, {ITEMS} items, logits' deviation {deviation:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    make(SIZES[arguments.size], arguments.seed, arguments.out)


if __name__ == "__main__":
    main()
