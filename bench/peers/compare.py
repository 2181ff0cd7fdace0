# SPDX-License-Identifier: Apache-2.0
"""Do two peers give the same answers? Lists are [[tokens, score], ...], best first.

Constrained peers compute the same function, so their lists must equal the reference's: scores of the same SID within
SCORE_TOLERANCE, another order only between reference scores within TIE_TOLERANCE; another member only at the list's
end, where its score lies within TIE_TOLERANCE of the last one kept. A beam that was cut between near ties on an earlier
level can differ by more: such a list is counted, MAX_OTHER of all lists may be such, and what they lack by it is at most
MAX_LOST of all hypotheses.

Sums over a wide vocabulary in fp32 are themselves some 5e-5 away from the truth: a peer may agree with the reference in
fp32 or with the reference in double precision, and the report says with which. Narrow precisions are other functions:
they are told by how much of the list they find.

Open peers differ in how they treat the end token, so they are told apart by how much of the reference's list they find.
"""

import dataclasses

SCORE_TOLERANCE = 5e-5
TIE_TOLERANCE = 1e-4
MAX_OTHER = 0.1  # of the lists of one comparison, and always one list
MAX_LOST = 0.05  # of the hypotheses of one comparison: a whole list that is wrong is more
OPEN_OVERLAP = 0.95  # fp32 over an open vocabulary: share of the reference's list found
NARROW_OVERLAP = 0.8  # int8 and bf16 with the trie, the same


@dataclasses.dataclass
class Comparison:
    lists: int = 0
    hypotheses: int = 0
    common: int = 0
    worst_score: float = 0.0
    reordered: int = 0  # lists with another order among near ties
    other_members: int = 0  # lists with a beam cut between near ties
    lost: int = 0  # hypotheses that such lists lack
    failures: list = dataclasses.field(default_factory=list)
    reference: str = ""

    @property
    def overlap(self):
        return self.common / self.hypotheses if self.hypotheses else 0.0

    def summary(self):
        return {"lists": self.lists, "overlap": round(self.overlap, 5), "worst_score": self.worst_score,
                "reordered": self.reordered, "other_members": self.other_members, "lost": self.lost,
                "failures": self.failures[:5], "reference": self.reference}


def compare_list(expected, actual, result, where):
    reference = {tuple(tokens): score for tokens, score in expected}
    result.lists += 1
    result.hypotheses += len(expected)
    lowest, inversion, found, extra = float("inf"), 0.0, set(), []
    for tokens, score in actual:
        tokens = tuple(tokens)
        if tokens not in reference or tokens in found:
            extra.append(score)
            continue
        found.add(tokens)
        difference = abs(score - reference[tokens])
        result.worst_score = max(result.worst_score, difference)
        if not difference <= SCORE_TOLERANCE:  # a NaN fails too
            result.failures.append(f"{where}: a score differs by {difference:.1e}")
        inversion = max(inversion, reference[tokens] - lowest)
        lowest = min(lowest, reference[tokens])
    result.common += len(found)
    if inversion > TIE_TOLERANCE:
        result.failures.append(f"{where}: the order differs over a distance of {inversion:.1e}")
    elif [tokens for tokens, _ in actual] != [tokens for tokens, _ in expected]:
        result.reordered += 1
    missing = [score for tokens, score in expected if tuple(tokens) not in found]
    if len(actual) != len(expected):
        result.failures.append(f"{where}: {len(actual)} hypotheses, the reference has {len(expected)}")
    elif missing or extra:
        end = expected[-1][1] + TIE_TOLERANCE
        if max(missing + extra) > end:
            result.other_members += 1
            result.lost += sum(score > end for score in missing)


def compare(reference, lists, constrained, precision):
    """A Comparison; `failures` is empty where the peer may be measured beside the others."""
    result = Comparison()
    if len(lists) != len(reference):
        result.failures.append(f"{len(lists)} lists, the reference has {len(reference)}")
        return result
    for i, (expected, actual) in enumerate(zip(reference, lists)):
        compare_list(expected, actual, result, f"request {i}")
    if constrained and precision == "fp32":
        if result.lost > MAX_LOST * result.hypotheses:
            result.failures.append(f"{result.lost} of {result.hypotheses} hypotheses are missing, more than {MAX_LOST:.0%}")
        if result.other_members > max(1, MAX_OTHER * result.lists):
            result.failures.append(f"{result.other_members} of {result.lists} lists have other members")
        return result
    result.failures = []
    least = NARROW_OVERLAP if constrained else OPEN_OVERLAP if precision == "fp32" else 0
    if result.overlap < least:
        result.failures.append(f"finds {result.overlap:.1%} of the reference's lists, less than {least:.0%}")
    return result


def compare_any(references, lists, constrained, precision):
    """Of the references {name: lists}, in their order, the first that the lists agree with; of none, the first."""
    found = []
    for name, reference in references.items():
        found.append(compare(reference, lists, constrained, precision))
        found[-1].reference = name
        if not found[-1].failures:
            return found[-1]
    return found[0]


def illegal_rate(lists, sids):
    """Share of hypotheses that are no item of the catalogue."""
    legal = {tuple(sid) for sid in sids}
    total = sum(map(len, lists))
    return sum(tuple(tokens) not in legal for entries in lists for tokens, _ in entries) / total if total else 0.0


def require_items(found, rate, constrained):
    """A peer that searches the catalogue may answer with nothing else, in any precision."""
    if constrained and rate > 0:
        found.failures.insert(0, f"{rate:.1%} of its answers are no items")
