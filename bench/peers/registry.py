# SPDX-License-Identifier: Apache-2.0
"""Who takes part, in which cells, and what is known about each."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Entry:
    name: str
    label: str
    script: str  # beside this file; "beamline": the C++ process
    constrained: bool  # by the trie; else over the open vocabulary, where most answers are no items
    environment: str = "main"
    options: dict = dataclasses.field(default_factory=dict)
    precision: str = "fp32"
    max_beams: int = 1 << 30
    sizes: tuple = ()  # that it takes part in; none: all
    milliseconds: tuple = (0, 0, 0, 0)  # A 20, A 512, B 20, B 512 on one core: for the estimate of the time left


ENTRIES = [
    Entry("beamline", "Beamline", "beamline", True, milliseconds=(10, 80, 25, 280)),
    Entry("beamline_cached", "Beamline, context cached", "beamline", True, options={"cached": True}, max_beams=128,
          milliseconds=(6, 75, 15, 270)),
    Entry("beamline_bf16", "Beamline bf16", "beamline", True, options={"dtype": "bf16"}, precision="bf16",
          milliseconds=(10, 90, 30, 350)),
    Entry("beamline_int8", "Beamline int8", "beamline", True, options={"dtype": "int8"}, precision="int8",
          milliseconds=(7, 60, 15, 200)),
    Entry("torch_loop", "PyTorch, hand-written loop", "torch_peer.py", True, milliseconds=(20, 150, 40, 500)),
    Entry("ctranslate2_fp32", "CTranslate2 fp32", "ctranslate2_peer.py", False,
          options={"compute_type": "float32"}, milliseconds=(15, 150, 50, 550)),
    Entry("ctranslate2_int8", "CTranslate2 int8", "ctranslate2_peer.py", False,
          options={"compute_type": "int8_float32"}, precision="int8", milliseconds=(10, 130, 25, 500)),
    Entry("onnxruntime_beam", "ONNX Runtime BeamSearch", "onnxruntime_peer.py", False, max_beams=128,
          milliseconds=(35, 500, 60, 800)),
    Entry("optimum", "optimum, ONNX Runtime", "optimum_peer.py", True, environment="optimum",
          options={"constrained": True}, milliseconds=(80, 2200, 180, 4500)),
    Entry("transformers", "transformers", "transformers_peer.py", True, options={"constrained": True},
          milliseconds=(150, 4500, 280, 6500)),
    Entry("transformers_open", "transformers, open", "transformers_peer.py", False, options={"constrained": False},
          milliseconds=(140, 4200, 230, 5200)),
]
BY_NAME = {entry.name: entry for entry in ENTRIES}
# On a GPU (run_gpu.py); device and precision are told there.
GPU_ENTRIES = [
    Entry("beamline", "Beamline", "beamline", True),
    # Not E1: the double-precision scores that it is compared with cost more than they tell.
    Entry("beamline_fp32", "Beamline fp32", "beamline", True, options={"dtype": "fp32"}, sizes=("A", "B", "E0")),
    Entry("torch_graph", "PyTorch, hand-written, one CUDA graph", "graph_peer.py", True),
    Entry("transformers", "transformers", "transformers_peer.py", True, options={"constrained": True}),
    Entry("transformers_open", "transformers, open", "transformers_peer.py", False, options={"constrained": False}),
    Entry("transformers_compiled", "transformers, compiled", "transformers_peer.py", True,
          options={"constrained": True, "compiled": True}),
    Entry("transformers_compiled_open", "transformers, compiled, open", "transformers_peer.py", False,
          options={"constrained": False, "compiled": True}),
]
DOUBLE = Entry("transformers_double", "transformers in double precision", "transformers_peer.py", True,
               options={"constrained": True, "double": True}, precision="fp64")
# What lists are compared with, by "constrained".
REFERENCES = {True: [BY_NAME["transformers"], DOUBLE], False: [BY_NAME["transformers_open"]]}
GEMM = Entry("gemm", "fp32 product of 2048^3", "gemm_peer.py", True, milliseconds=(250, 250, 250, 250))


def takes_part(entry, cell):
    return cell.beams <= entry.max_beams


def estimated_ms(entry, cell):
    """Milliseconds per request, between the two widths that are known."""
    low, high = entry.milliseconds[:2] if cell.size == "A" else entry.milliseconds[2:]
    return low + (high - low) * max(0, cell.beams - 20) / 492
