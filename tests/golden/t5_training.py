# SPDX-License-Identifier: Apache-2.0
"""Trains transformers' T5 by the recipe of Beamline's preset t5-d128, step by step, for Beamline's trainer to be compared with.

The recipe (that of the LETTER authors' code): one example per item of a user's training part but the first, the history of
up to 20 items as their SID tokens and the end token, the item's tokens and the end token as labels; mean cross-entropy over
the labels; AdamW with decay on all but norms and biases; gradients clipped at norm 1; warm-up, then a cosine. Dropout is off:
two programs draw other random numbers. Writes hf/ (the initial weights), the log, the index, and golden.safetensors: batches
and loss of every step, and after the last one the loss and the ranks of validation items by constrained beam search
(generate with a trie).

  $(tests/golden/venv.sh) tests/golden/t5_training.py --small                  the set in the repository, t5_training/
  $(tests/golden/venv.sh) tests/golden/t5_training.py --beauty DIR --out DIR   Amazon Beauty, T5-d128, 200 steps
  BEAMLINE_TRAINING_PARITY_DIR=DIR beamline_train_test --gtest_filter='T5Training*'
"""

import argparse
import json
import math
import os
import pathlib
import random
import shutil
import sys
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import transformers
from safetensors.torch import save_file
from transformers import T5Config, T5ForConditionalGeneration

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from t5_parity import Case, Trie, make_tokenizer, pad, sid_token

LEVELS_SMALL = [6, 5, 4]
MODEL_SMALL = dict(d_model=16, d_kv=6, num_heads=3, d_ff=24, num_layers=2, num_decoder_layers=1)


def small_data(rng):
    """Users walk along a ring of items with a few jumps: something to learn in 20 steps."""
    items = {i: (i % 6, i // 6 % 5, (3 * i) % 4) for i in range(1, 41)}
    log = []
    for _ in range(30):
        walk = [rng.randint(1, 40)]
        for _ in range(rng.randint(3, 12)):
            walk.append(walk[-1] % 40 + 1 if rng.random() < 0.9 else rng.randint(1, 40))
        log.append(walk)
    return items, log, LEVELS_SMALL, MODEL_SMALL


def beauty_data(folder):
    index = json.loads((folder / "Beauty.index.json").read_text())
    items = {int(key) + 1: tuple(int(token[3:-1]) for token in sid) for key, sid in index.items()}
    log = [[int(i) for i in line.split()[1:]] for line in (folder / "Beauty.txt").read_text().splitlines()]
    config = json.loads((folder / "t5-d128.config.json").read_text())
    names = ("d_model", "d_kv", "num_heads", "d_ff", "num_layers", "relative_attention_num_buckets")
    return items, log, [256] * 4, {name: config[name] for name in names}


def training_examples(log, max_items):
    for walk in log:
        train = walk[:-2] if len(walk) >= 3 else walk
        for i in range(1, len(train)):
            yield train[max(0, i - max_items):i], train[i]


def learning_rate(step, total, peak, warmup):
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))


def make_optimizer(model, args):
    decayed = [p for n, p in model.named_parameters() if "norm" not in n and "bias" not in n]
    others = [p for n, p in model.named_parameters() if "norm" in n or "bias" in n]
    return torch.optim.AdamW([{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}],
                             lr=args.learning_rate, betas=(0.9, 0.999), eps=1e-8)


def encode(examples, tokens):
    inputs = [sum((list(tokens[i]) for i in history), []) + [1] for history, _ in examples]
    return inputs, [list(tokens[item]) + [1] for _, item in examples]


def forward(model, inputs, labels):
    rows = pad(inputs)
    return model(input_ids=rows, attention_mask=rows.ne(0).long(), labels=torch.tensor(labels)).loss


def rank_items(model, trie, inputs, width, steps):
    """Lists of SIDs (as token tuples), best first."""
    rows = pad(inputs)
    with torch.no_grad():
        out = model.generate(input_ids=rows, attention_mask=rows.ne(0).long(), prefix_allowed_tokens_fn=trie,
                             num_beams=width, num_return_sequences=width, max_new_tokens=steps, length_penalty=0.0,
                             early_stopping=False, do_sample=False, return_dict_in_generate=True, output_scores=True,
                             use_cache=model.config.num_decoder_layers <= model.config.num_layers)
    sids = [tuple(row[1:steps].tolist()) for row in out.sequences]
    return [[sid for sid, score in zip(sids[b * width:(b + 1) * width], out.sequences_scores[b * width:(b + 1) * width])
             if score > -1e8] for b in range(len(inputs))]


def validate(model, cases, tokens, log, args, levels):
    """Mean loss, and every case's rank among the items under the SIDs that beam search returns; 0: not among them."""
    popularity = {}
    for walk in log:
        for item in walk[:-2] if len(walk) >= 3 else walk:
            popularity[item] = popularity.get(item, 0) + 1
    under = {}
    for item, sid in tokens.items():
        under.setdefault(tuple(sid), []).append(item)
    for members in under.values():
        members.sort(key=lambda item: (-popularity.get(item, 0), item))
    trie = Trie([list(sid) + [1] for sid in under])
    losses, ranks = 0.0, []
    for begin in range(0, len(cases), 16):
        batch = cases[begin:begin + 16]
        inputs, labels = encode(batch, tokens)
        with torch.no_grad():
            losses += float(forward(model, inputs, labels)) * len(batch)
        for (_, target), sids in zip(batch, rank_items(model, trie, inputs, args.beam, levels + 1)):
            ranking = [item for sid in sids for item in under[sid]]
            ranks.append(ranking.index(target) + 1 if target in ranking else 0)
        print(f"\r  validated {len(ranks)} of {len(cases)}", end="", file=sys.stderr)
    print(file=sys.stderr)
    return losses / len(cases), ranks


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--beauty", type=pathlib.Path, help="folder with Beauty.txt, Beauty.index.json, t5-d128.config.json")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=1, help="of the schedule")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--max-items", type=int, default=20)
    parser.add_argument("--users", type=int, default=200, help="validation cases")
    parser.add_argument("--beam", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    if args.small == bool(args.beauty):
        parser.error("name --small or --beauty DIR")
    if args.small:
        args.batch, args.epochs, args.max_items, args.users = 16, 40, 5, 30
        args.out = args.out or pathlib.Path(__file__).parent / "t5_training"
    if not args.out:
        parser.error("--out is missing")
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    rng = random.Random(args.seed)
    items, log, levels, sizes = small_data(rng) if args.small else beauty_data(args.beauty)

    out = args.out
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "log.txt").write_text("".join(f"{u + 1} {' '.join(map(str, walk))}\n" for u, walk in enumerate(log)))
    index = {str(i - 1): [sid_token(l, c) for l, c in enumerate(sid)] for i, sid in sorted(items.items())}
    (out / "index.json").write_text(json.dumps(index) + "\n")
    tokenizer = make_tokenizer(Case("training", levels, len(items), words=0), items)
    torch.manual_seed(args.seed)
    model = T5ForConditionalGeneration(T5Config(vocab_size=len(tokenizer), decoder_start_token_id=0, pad_token_id=0,
                                                eos_token_id=1, dropout_rate=0.0, **sizes))
    model.save_pretrained(out / "hf")
    tokenizer.save_pretrained(out / "hf")
    tokens = {i: tokenizer.convert_tokens_to_ids([sid_token(l, c) for l, c in enumerate(s)]) for i, s in items.items()}

    examples = list(training_examples(log, args.max_items))
    steps_per_epoch = math.ceil(len(examples) / args.batch)
    total = steps_per_epoch * args.epochs
    warmup = min(int(0.01 * total), 1000)  # as the preset has it
    steps = min(args.steps, total)
    order = []
    while len(order) < steps * args.batch:
        order += rng.sample(range(len(examples)), len(examples))
    optimizer = make_optimizer(model, args)
    model.train()
    batches, all_labels, losses = [], [], []
    start = time.time()
    for step in range(steps):
        inputs, labels = encode([examples[i] for i in order[step * args.batch:(step + 1) * args.batch]], tokens)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, total, args.learning_rate, warmup)
        loss = forward(model, inputs, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        batches += inputs
        all_labels += labels
        losses.append(float(loss.detach()))
        if step % 10 == 9 or step == 0:
            print(f"  step {step + 1}/{steps}: loss {losses[-1]:.4f}, {(step + 1) / (time.time() - start):.2f} steps/s",
                  file=sys.stderr)

    model.eval()
    cases = [(walk[:-2][-args.max_items:], walk[-2]) for walk in log if len(walk) >= 3]
    chosen = sorted(rng.sample(range(len(cases)), min(args.users, len(cases))))
    loss, ranks = validate(model, [cases[i] for i in chosen], tokens, log, args, len(levels))
    example_inputs, example_labels = encode(examples, tokens)
    save_file(
        {
            "inputs": pad(batches).int(),  # [steps * batch, longest] token ids; 0: padding
            "labels": torch.tensor(all_labels, dtype=torch.int32),
            "losses": torch.tensor(losses, dtype=torch.float64),
            # What one epoch holds, for the comparison of the examples themselves.
            "example_inputs": pad(example_inputs).int(),
            "example_labels": torch.tensor(example_labels, dtype=torch.int32),
            "validation_users": torch.tensor(chosen, dtype=torch.int32),  # among those with three items or more
            "validation_ranks": torch.tensor(ranks, dtype=torch.int32),
        },
        out / "golden.safetensors",
        metadata={"levels": ",".join(map(str, levels)), "max_items": str(args.max_items), "batch": str(args.batch),
                  "epochs": str(args.epochs), "learning_rate": str(args.learning_rate), "beam": str(args.beam),
                  "validation_loss": repr(loss), "transformers": transformers.__version__, "torch": torch.__version__})
    hits = sum(1 for rank in ranks if 1 <= rank <= 10) / len(ranks)
    print(f"{out}: {len(examples)} examples, {steps} steps, loss {losses[0]:.4f} -> {losses[-1]:.4f}, validation loss "
          f"{loss:.4f}, R@10 {hits:.4f} of {len(ranks)} users", file=sys.stderr)


if __name__ == "__main__":
    main()
