# SPDX-License-Identifier: Apache-2.0
"""optimum's ONNX Runtime models under transformers' generate, with the same trie: encoder and decoder as ONNX graphs,
keys and values kept between steps. Lives in an environment of its own: it wants an older transformers."""

import importlib.metadata
import os
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import onnxruntime
import transformers
from optimum.onnxruntime import ORTModelForSeq2SeqLM

import peer
from transformers_peer import Transformers


class Optimum(Transformers):
    def prepare(self, folder):
        if (folder / "optimum").exists():
            return
        work = folder / "optimum.tmp"
        shutil.rmtree(work, ignore_errors=True)
        model = ORTModelForSeq2SeqLM.from_pretrained(folder / "hf", export=True, use_cache=True)
        model.save_pretrained(work)
        work.rename(folder / "optimum")

    def make_model(self, workload, threads):
        session = onnxruntime.SessionOptions()
        session.intra_op_num_threads = threads
        session.inter_op_num_threads = 1
        return ORTModelForSeq2SeqLM.from_pretrained(workload.folder / "optimum", use_cache=True, session_options=session,
                                                    provider="CPUExecutionProvider")

    def load(self, workload, threads, options):
        versions = super().load(workload, threads, options)
        return {**versions, "onnxruntime": onnxruntime.__version__,
                "optimum-onnx": importlib.metadata.version("optimum-onnx")}


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    peer.main(Optimum())
