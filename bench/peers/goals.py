# SPDX-License-Identifier: Apache-2.0
"""What is wanted of Beamline beside its peers on a GPU: ratios of a peer's time per request over Beamline's, at BEAMS beams
in DTYPE. For run_gpu.py, which measures them, and bench/gpu/result.py, which says which of them were not measured."""

BEAMS, DTYPE = 512, "bf16"
BATCHES = [1, 16]  # requests at once

# (what, peers, sizes, batches, at least).
GOALS = [
    ("transformers", ("transformers", "transformers_open", "transformers_compiled", "transformers_compiled_open"),
     ("E1", "E0"), BATCHES, 20),
    ("PyTorch in a CUDA graph, batch 1", ("torch_graph",), ("E1",), BATCHES[:1], 1.5),
    ("PyTorch in a CUDA graph, batched", ("torch_graph",), ("E1",), BATCHES[1:], 1.3),
    ("PyTorch in a CUDA graph, 0.13 B", ("torch_graph",), ("E0",), BATCHES, 2),
]


def each():
    """All of them as lines without a measurement."""
    return [{"goal": text, "peer": peer, "size": size, "batch": batch, "at_least": least}
            for text, peers, sizes, batches, least in GOALS
            for size in sizes for batch in batches for peer in peers]


def of_cell(size, batch, peer):
    """The goals of a cell: any batch of more than one stands for a batch."""
    wanted = BATCHES[0] if batch == 1 else BATCHES[1]
    return [{**line, "batch": batch} for line in each()
            if (line["size"], line["batch"], line["peer"]) == (size, wanted, peer)]
