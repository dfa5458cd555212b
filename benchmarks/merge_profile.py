"""Where the processor seconds of a merge go: reading, arithmetic, hashing, writing, and what Python does around them.

    python benchmarks/merge_profile.py --folder DIR [--cases clip,small,bf16] [--threads 2] [--rounds 4]

Reads the files that `merge.py` made. Seconds are of the processors, all threads together, the least of the rounds
after the first; so they say little of waiting, and other work on the machine disturbs them less than seconds by the
clock.
"""

import argparse
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from merge_contenders import CONTENDERS, load_loops, remove
from merge_pools import CASES, files_of

from negmerge.checkpoints.writing import SafetensorsWriter
from negmerge.merging import inspecting, writing
from negmerge.merging.compiled import fused
from negmerge.merging.compiled import inspecting as compiled_inspecting
from negmerge.merging.hashes import InputHashes

LINES = ("floor", "blake3", "consensus", "hashed", "inspect")
PARTS = ("all", "reading and loops", "keeping digests", "writing", "ends of hashes", "pass", "before and after it")


def timed(spent: Counter[str], owner: Any, name: str, label: str, clock: Callable[[], float]) -> None:
    """Add the seconds of every call of a function to `spent`."""
    original = getattr(owner, name)

    def call(*arguments: Any, **options: Any) -> Any:
        started = clock()
        try:
            return original(*arguments, **options)
        finally:
            spent[label] += clock() - started

    setattr(owner, name, call)


def watched() -> Counter[str]:
    """Time the parts of merges from now on."""
    spent: Counter[str] = Counter()
    timed(spent, fused, "merge_pieces", "reading and loops", time.thread_time)
    timed(spent, compiled_inspecting, "inspect_pieces", "reading and loops", time.thread_time)
    timed(spent, fused.FusedTerm, "_keep", "keeping digests", time.thread_time)
    timed(spent, SafetensorsWriter, "_write", "writing", time.thread_time)
    timed(spent, InputHashes, "of", "ends of hashes", time.process_time)
    timed(spent, writing, "execute", "pass", time.process_time)
    timed(spent, inspecting, "_look", "pass", time.process_time)
    return spent


def profile(name: str, files: list[Path], output: Path, threads: int, rounds: int, spent: Counter[str]) -> Counter[str]:
    """Return the processor seconds of the best round, by part."""
    found = []
    for _ in range(rounds):
        remove(output)
        os.sync()
        spent.clear()
        started = time.process_time()
        CONTENDERS[name](files[0], files[1:], output, threads)
        spent["all"] = time.process_time() - started
        if spent["pass"]:
            spent["before and after it"] = spent["all"] - spent["pass"]
        found.append(Counter(spent))
    remove(output)
    return min(found[1:], key=lambda one: one["all"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where merge.py made the files")
    parser.add_argument("--cases", default="clip,small,bf16")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    load_loops("consensus")
    spent = watched()
    print(f"| case | line | {' | '.join(PARTS)} |\n|---|---|{'---|' * len(PARTS)}")
    for case in (CASES[name] for name in options.cases.split(",")):
        files = files_of(case, options.folder)
        for line in LINES:
            output = options.folder / "profile.safetensors"
            found = profile(line, files, output, options.threads, max(2, options.rounds), spent)
            cells = (f"{found[part]:.2f}" if found[part] else "" for part in PARTS)
            print(f"| {case.name} | {line} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
