# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime's BeamSearch operator: the whole search inside one graph, over the open vocabulary, at most 128 beams.
Made by the library's own conversion for T5."""

import os
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import onnxruntime

import peer


def convert(folder, work):
    """The conversion as onnxruntime ships it, with three repairs: attention written out (it cannot trace the fused
    form), no fusion by heads where they do not divide the width, and no comparison of its own with a model input that
    it makes up: the bench compares whole answers."""
    from onnxruntime.transformers import convert_generation
    import t5_helper  # as the conversion itself names it, on a path that it adds

    load = t5_helper.T5ForConditionalGeneration.from_pretrained
    optimize = t5_helper.T5Helper.optimize_onnx

    class Eager:
        @staticmethod
        def from_pretrained(*arguments, **options):
            return load(*arguments, **{**options, "attn_implementation": "eager"})

    def optimize_if_divisible(path, output, is_float16, heads, width, *arguments, **options):
        heads, width = (heads, width) if width % heads == 0 else (0, 0)
        return optimize(path, output, is_float16, heads, width, *arguments, **options)

    t5_helper.T5ForConditionalGeneration = Eager
    t5_helper.T5Helper.optimize_onnx = staticmethod(optimize_if_divisible)
    t5_helper.T5Helper.verify_onnx = staticmethod(lambda *arguments, **options: 0.0)
    convert_generation.convert_generation_model(convert_generation.parse_arguments([
        "-m", str(folder / "hf"), "--model_type", "t5", "--output", str(work / "beam_search.onnx"),
        "--output_sequences_scores", "--disable_parity", "--disable_perf_test"]))


class OnnxRuntime(peer.Peer):
    def prepare(self, folder):
        if (folder / "onnxruntime").exists():
            return
        work = folder / "onnxruntime.tmp"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        convert(folder, work)
        work.rename(folder / "onnxruntime")

    def load(self, workload, threads, options):
        self.workload = workload
        session = onnxruntime.SessionOptions()
        session.intra_op_num_threads = threads
        session.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(workload.folder / "onnxruntime" / "beam_search.onnx"), session, providers=["CPUExecutionProvider"])
        return {"onnxruntime": onnxruntime.__version__}

    def settings(self, beams, batch):
        return [dict(group=group) for group in sorted({1, batch})]

    def configure(self, beams, batch, group):
        super().configure(beams, batch)
        self.group = group
        self.parameters = {
            "max_length": np.array([self.workload.levels + 1], np.int32),  # it counts the start token
            "min_length": np.array([0], np.int32),
            "num_beams": np.array([beams], np.int32),
            "num_return_sequences": np.array([beams], np.int32),
            "length_penalty": np.array([0.0], np.float32),
            "repetition_penalty": np.array([1.0], np.float32),
        }

    def run(self, requests):
        return [self.session.run(None, {"input_ids": np.array(requests[begin : begin + self.group], np.int32),
                                        **self.parameters})
                for begin in range(0, len(requests), self.group)]

    def lists(self, result):
        return [[(peer.stripped(tokens[1:].tolist(), self.workload), score) for tokens, score in zip(rows, row_scores)]
                for sequences, scores in result for rows, row_scores in zip(sequences, scores)]


if __name__ == "__main__":
    peer.main(OnnxRuntime())
