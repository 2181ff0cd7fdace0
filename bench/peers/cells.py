# SPDX-License-Identifier: Apache-2.0
"""A cell: one size, width, batch and number of threads. Everybody is measured in turns inside it."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Cell:
    size: str
    beams: int
    batch: int
    threads: int

    def __str__(self):
        return f"{self.size} {self.beams} beams, batch {self.batch}, {self.threads} thread{'s' * (self.threads > 1)}"

    @property
    def file_name(self):
        return f"{self.size}-{self.beams}-b{self.batch}-t{self.threads}.json"


def parse_shapes(text):
    """ "A:20,B:512" -> [("A", 20), ("B", 512)]"""
    shapes = []
    for part in text.split(","):
        size, _, beams = part.partition(":")
        if size not in ("A", "B") or not beams.isdigit() or not 1 <= int(beams) <= 1024:
            raise ValueError(f"'{part}' is no cell: SIZE:BEAMS with SIZE A or B and BEAMS 1 to 1024, e.g. A:20,B:512")
        shapes.append((size, int(beams)))
    return shapes


def make_cells(shapes, batches, threads):
    """Cells that can share loaded peers follow each other."""
    sizes = sorted({size for size, _ in shapes})
    return [Cell(size, beams, batch, count) for count in threads for size in sizes for batch in batches
            for shape_size, beams in shapes if shape_size == size]


def flops(model, beams, constrained):
    """Multiply-adds of one request, times two: rows that a search needs, no more."""
    d, inner = model["d_model"], model["num_heads"] * model["d_kv"]
    ffn = d * model["d_ff"] * (3 if model["feed_forward_proj"].startswith("gated") else 2)
    tokens, vocabulary, layers = model["tokens"], model["vocabulary"], model["num_decoder_layers"]
    encoder = model["num_layers"] * (4 * d * inner + ffn + 2 * tokens * inner) + layers * 2 * d * inner
    total, rows = tokens * encoder, 1
    for level in range(len(model["levels"])):
        row = layers * (6 * d * inner + ffn + 2 * tokens * inner + 2 * level * inner) + d * vocabulary
        total += rows * row
        rows = min(beams, model["prefixes"][level] if constrained else vocabulary ** (level + 1))
    return 2 * total
