"""How probable the forgotten answers of a language run are where the weights of its models are rounded.

    python benchmarks/language_rounded.py RUN [--write PAGE]

Rounds the model of each row, base and Retrain as the evidence test `quantisation` does (int8 and int4 per output
channel, NF4 in blocks of 64), and scores the forget rows: the mean of exp(−ℓ), in percent.
"""

import argparse
from pathlib import Path
from typing import Any

from language_held_out import opened, written

from negmerge.evidence.tests.quantisation import round_weights
from negmerge.experiment.config import load_config
from training import write

FORMATS = ("int8", "int4", "nf4")


def rounded(directory: Path) -> str:
    """Return the table of one run as Markdown."""
    with opened(directory, load_config(directory / "config.yaml")) as run:
        material = run.material
        parts, lines = {"forget": material.parts["forget"]}, []
        for name, file in written(directory, run).items():
            cells = []
            for wanted in (None, *FORMATS):
                model = material.task.open(file, material.device)
                model = model if wanted is None else round_weights(model, wanted)
                found = material.task.observe(model, parts, {"forget": ("confidence",)})
                cells.append(f"{100 * found['forget']['confidence'].double().mean():.1f}")
            lines.append([name, *cells])
    head = ("model", "unrounded", *FORMATS)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *lines)) + "\n"


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--write", type=Path, metavar="PAGE")
    options: Any = parser.parse_args(words)
    text = rounded(options.run)
    print(text)
    if options.write:
        write(options.write, text, "rounded")


if __name__ == "__main__":
    main()
