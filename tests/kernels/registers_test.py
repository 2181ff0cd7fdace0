# SPDX-License-Identifier: Apache-2.0
"""The sums of the CPU products' tiles stay in registers: a compiler that keeps them on the stack halves the speed, and
no other test can tell.

  registers_test.py OBJECT...     of the products with AVX-512; 77 (skipped) without objdump

Looks at the innermost loop of every tile, which holds its multiply-adds: no vector may be read from or written to the
stack there.
"""
import re
import shutil
import subprocess
import sys

TILE = re.compile(r"\b(Tile|SumInt8|SumBf16Pairs)<\d+, \d+>")
MULTIPLY_ADD = re.compile(r"v(fmadd|pdpb|dpbf|pmadd)")
STACK = re.compile(r"[xyz]mm.*\(%rsp\)|\(%rsp\).*[xyz]mm")


def innermost(lines):
    """The shortest backward jump over multiply-adds, as instructions."""
    code = [(int(found[1], 16), found[2]) for found in (re.match(r"\s*([0-9a-f]+):\s+(.*)", line) for line in lines) if found]
    loops = []
    for address, text in code:
        jump = re.match(r"j\w+\s+([0-9a-f]+)", text)
        if jump and int(jump[1], 16) < address:
            body = [text for at, text in code if int(jump[1], 16) <= at <= address]
            if any(MULTIPLY_ADD.match(text) for text in body):
                loops.append(body)
    return min(loops, key=len, default=None)


def main():
    if shutil.which("objdump") is None:
        print("skipped: objdump is not installed (binutils)")
        return 77
    tiles, bad = 0, []
    for path in sys.argv[1:]:
        listing = subprocess.run(["objdump", "-d", "-C", "--no-show-raw-insn", path], check=True, capture_output=True, text=True).stdout
        for function in listing.split("\n\n"):
            head, *lines = function.split("\n")
            name = TILE.search(head)
            if not name or not re.match(r"[0-9a-f]+ <", head):
                continue
            loop = innermost(lines)
            if loop is None:
                bad.append(f"{path}: {name[0]} has no loop with multiply-adds: this test does not understand it")
                continue
            tiles += 1
            spilled = [text for text in loop if STACK.search(text)]
            if spilled:
                bad.append(f"{path}: {name[0]}: {len(spilled)} of the {len(loop)} instructions of its loop use the stack: {spilled[0]}")
    print(f"{tiles} tiles")
    print("\n".join(bad))
    return 1 if bad or tiles < 20 * len(sys.argv[1:]) else 0


sys.exit(main())
