# SPDX-License-Identifier: Apache-2.0
"""transformers' generate, with a trie behind prefix_allowed_tokens_fn ("constrained": true) or over the open
vocabulary. The constrained one is what all lists are compared with; "double": its lists with the scores, and their
order, of the same model in double precision (generate itself sums in fp32, whatever the model's precision).

"device" and "dtype": on a GPU. "compiled": the model's forward through torch.compile, over transformers' static caches,
which generate takes with beams (its own compilation is for greedy search and sampling alone)."""

import copy
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

import peer

ROWS = 2048  # beams of one call: transformers copies the context's keys and values to each
MEMORY_SHARE = 0.3  # of a GPU's memory that these copies may take; choosing beams copies them once more
RESCORED = 64  # hypotheses at a time: each has keys and values of the whole context
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
DROPPED = -1e8  # generate fills up with duplicates of score -1e9 where the trie has fewer prefixes than beams


class Trie:
    """Token prefix -> allowed tokens."""

    def __init__(self, workload):
        self.next, self.pad = {}, [workload.pad]
        for sid in workload.sids:
            for length in range(len(sid)):
                self.next.setdefault(tuple(sid[:length]), set()).add(sid[length])
        self.next = {prefix: sorted(tokens) for prefix, tokens in self.next.items()}

    def __call__(self, batch_id, sent):
        return self.next.get(tuple(sent.tolist()[1:]), self.pad)  # without the start token


class Transformers(peer.Peer):
    def make_model(self, workload, threads):
        torch.set_num_threads(threads)
        return transformers.T5ForConditionalGeneration.from_pretrained(
            workload.folder / "hf", dtype=self.dtype).to(self.device).eval()

    def load(self, workload, threads, options):
        transformers.logging.set_verbosity_error()
        self.workload = workload
        self.device, self.dtype = options.get("device", "cpu"), DTYPES[options.get("dtype", "fp32")]
        self.trie = Trie(workload) if options["constrained"] else None
        self.model = self.make_model(workload, threads)
        self.double = copy.deepcopy(self.model).double() if options.get("double") else None
        self.caches = {}
        if options.get("compiled"):
            self.model.forward = torch.compile(self.model.forward, dynamic=False)
            self.caches = {"cache_implementation": "static"}
        return {"transformers": transformers.__version__, "torch": torch.__version__}

    def requests_per_run(self):
        rows = ROWS
        if self.device != "cpu":
            model = self.workload.model
            row = (2 * model["num_decoder_layers"] * model["tokens"] * model["num_heads"] * model["d_kv"]
                   * self.dtype.itemsize)
            rows = MEMORY_SHARE * torch.cuda.get_device_properties(self.device).total_memory // row
        return int(min(self.batch, max(1, rows // self.beams)))

    def run(self, requests):
        tokens = self.tokens = torch.tensor(requests, device=self.device)
        with torch.inference_mode():
            result = self.model.generate(
                input_ids=tokens, attention_mask=torch.ones_like(tokens), prefix_allowed_tokens_fn=self.trie,
                num_beams=self.beams, num_return_sequences=self.beams, max_new_tokens=self.workload.levels,
                length_penalty=0.0, early_stopping=False, do_sample=False, return_dict_in_generate=True,
                output_scores=True, **self.caches)
            return result.sequences.cpu(), result.sequences_scores.cpu()

    def rest(self):
        if self.device != "cpu":
            torch.cuda.empty_cache()

    def lists(self, result):
        sequences, scores = result[0][:, 1:].tolist(), result[1].tolist()
        entries = [(peer.stripped(tokens, self.workload), score) for tokens, score in zip(sequences, scores)]
        lists = [[entry for entry in entries[begin : begin + self.beams] if entry[1] > DROPPED]
                 for begin in range(0, len(entries), self.beams)]
        return lists if self.double is None else [self.rescored(*pair) for pair in zip(self.tokens, lists)]

    def rescored(self, tokens, entries):
        targets = torch.tensor([list(tokens) for tokens, _ in entries], device=tokens.device)
        previous = torch.cat([torch.zeros_like(targets[:, :1]), targets[:, :-1]], 1)
        previous[:, 0] = self.model.config.decoder_start_token_id
        scores = []
        with torch.inference_mode():
            encoded = self.double.get_encoder()(input_ids=tokens[None]).last_hidden_state
            for some, before in zip(targets.split(RESCORED), previous.split(RESCORED)):
                logits = self.double(encoder_outputs=(encoded.expand(len(some), -1, -1),), decoder_input_ids=before,
                                     use_cache=False).logits
                scores += torch.log_softmax(logits, -1).gather(-1, some[..., None]).sum((1, 2)).tolist()
        return sorted(((tokens, score) for (tokens, _), score in zip(entries, scores)), key=lambda entry: -entry[1])


if __name__ == "__main__":
    peer.main(Transformers())
