# SPDX-License-Identifier: Apache-2.0
"""CTranslate2 over the open vocabulary: it has no trie. "compute_type": float32 or int8_float32.

Its best setting is looked for: how many requests go through the model together, and, with several threads, whether they
share one request or have one each (replicas). No torch is in this process: two OpenMP runtimes would be.
"""

import shutil
import sys

import peer


def convert(folder):
    import ctranslate2

    if (folder / "ctranslate2").exists():
        return
    work = folder / "ctranslate2.tmp"
    shutil.rmtree(work, ignore_errors=True)
    ctranslate2.converters.TransformersConverter(str(folder / "hf")).convert(str(work))
    work.rename(folder / "ctranslate2")


class CTranslate2(peer.Peer):
    def prepare(self, folder):
        convert(folder)

    def load(self, workload, threads, options):
        for module in ("torch", "transformers"):  # it would import them for its converters, which nobody needs here
            sys.modules[module] = None
        import ctranslate2

        self.library, self.workload, self.threads = ctranslate2, workload, threads
        self.compute_type, self.translators = options["compute_type"], {}
        supported = ctranslate2.get_supported_compute_types("cpu")
        if self.compute_type not in supported:
            raise ValueError(f"this CPU has {', '.join(sorted(supported))}")
        self.ids = {text: i for i, text in enumerate(workload.token_text)}
        return {"ctranslate2": ctranslate2.__version__}

    def settings(self, beams, batch):
        shares = sorted({(1, self.threads), (self.threads, 1)})
        return [dict(replicas=replicas, threads=threads, group=group) for replicas, threads in shares
                for group in sorted({1, min(4, batch), -(-batch // replicas)})]

    def configure(self, beams, batch, replicas, threads, group):
        super().configure(beams, batch)
        self.group = group
        if (replicas, threads) not in self.translators:
            self.translators[replicas, threads] = self.library.Translator(
                str(self.workload.folder / "ctranslate2"), device="cpu", compute_type=self.compute_type,
                inter_threads=replicas, intra_threads=threads)
        self.translator = self.translators[replicas, threads]

    def run(self, requests):
        text = self.workload.token_text
        return self.translator.translate_batch(
            [[text[token] for token in request] for request in requests], max_batch_size=self.group,
            beam_size=self.beams, num_hypotheses=self.beams, max_decoding_length=self.workload.levels,
            min_decoding_length=0, length_penalty=0, return_scores=True)

    def lists(self, result):
        return [[(peer.stripped([self.ids[token] for token in tokens], self.workload), score)
                 for tokens, score in zip(entry.hypotheses, entry.scores)] for entry in result]


if __name__ == "__main__":
    peer.main(CTranslate2())
