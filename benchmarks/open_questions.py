"""The open questions of the paper, on pools that all of them share.

    python benchmarks/open_questions.py CONFIG FOLDER [--set KEY=VALUE]… [--draws 0 1 2] [--only QUESTION…]
        [--write PAGE] [--json FILE]

Each draw of the forget set has a base, a Retrain model and a pool of its own, in FOLDER/draw-N; a member is trained
once and a merge measured once, whichever question asks. The same command goes on where it was stopped. With `--write`
the tables replace those between the marks of PAGE, of the draws and questions that are asked for.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from questions import addition, confirmed, few, forget_size, hostile, pool_size, signs, threshold
from questions.draws import Draw

from negmerge.errors import InputError
from negmerge.execution import torch_threads
from training import write

QUESTIONS: dict[str, Any] = {
    "N": pool_size,
    "few": few,
    "threshold": threshold,
    "pool": hostile,
    "size": forget_size,
    "addition": addition,
    "signs": signs,
    "confirmed": confirmed,
}


def answers(config: Path, changes: Sequence[str], folder: Path, draws: Sequence[int], only: Sequence[str]) -> dict:
    """Return what every question finds on every draw, and what doing nothing comes to."""
    found: dict[str, Any] = {"draws": list(draws), "base": [], **{name: [] for name in only}}
    for number in draws:
        draw = Draw(config, changes, folder, number)
        found["base"].append(
            {**draw.base, "reference": {key: draw.reference[key] for key in draw.base if key != "gap"}}
        )
        for name in only:
            started = time.perf_counter()
            found[name].append(QUESTIONS[name].measure(draw))
            print(f"draw {number}, {name}: {time.perf_counter() - started:.0f} s", flush=True)
    return found


def text_of(found: dict[str, Any], only: Sequence[str]) -> str:
    """Return all tables, each under its title."""
    parts = [f"### {QUESTIONS[name].TITLE}\n\n{QUESTIONS[name].table(found[name])}" for name in only]
    return "\n".join(parts)


def main(words: Sequence[str] | None = None) -> None:
    """Measure what is not measured yet, and print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    parser.add_argument("--draws", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=list(QUESTIONS), choices=list(QUESTIONS), metavar="QUESTION")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(words)
    with torch_threads(1):
        try:
            found = answers(options.config, options.changes, options.folder, options.draws, options.only)
        except InputError as error:
            raise SystemExit(str(error)) from None
    text = text_of(found, options.only)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.write:
        write(options.write, text)


if __name__ == "__main__":
    main()
