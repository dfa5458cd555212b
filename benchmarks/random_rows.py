"""Rows drawn at random, forgotten by a network that knows them by heart: merges, projections and running statistics.

    python benchmarks/random_rows.py FOLDER [--set KEY=VALUE]… [--pools moving frozen] [--rows …] [--write PAGE]

Runs configs/cifar10-resnet20-random.yaml on one seed in FOLDER/moving and FOLDER/frozen (members trained with
`freeze_statistics`), with a row for each merge, policy for running statistics and strength λ of the retain projection;
α is chosen by match-reference for each. All numbers are of the reported rows. `--rows` takes some of them, by merge,
policy and strength with colons between them (`mean:keep:10`, `mean:keep:none`), `--frozen-rows` those of the second
pool where they are others; the same command goes on where it was stopped, and with further rows it takes over base,
pool and rows that are there.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negmerge.errors import InputError
from negmerge.experiment.config import Config, load_config
from negmerge.experiment.pipeline import run
from negmerge.scores import average_gap
from training import write

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "cifar10-resnet20-random.yaml"
SAMPLES = 600
MERGES: dict[str, dict[str, Any]] = {
    "mean": {"name": "uniform"},
    "ties": {"name": "ties", "density": 0.2, "scope": "model"},
    "consensus": {"name": "consensus"},
    "single": {"name": "best-single"},
}
POLICIES: dict[str, Any] = {
    "keep": "keep",
    "negate": "negate",
    "forget": {"recalibrate": "forget", "rows": 1000},
    "retain": {"recalibrate": "retain", "rows": 1000},
}
POLICY_WORDS = {"forget": "recalibrate on forget rows", "retain": "recalibrate on retain rows"}
HEADER = ("statistics of the members", "policy", "merge", "λ", "gap", "forget", "retain", "test", "membership", "α")
SCORES = ("gap", "forget", "retain", "test", "membership")


@dataclass(frozen=True)
class Row:
    """A merge, what becomes of the running statistics, and the strength of the projection, if any."""

    merge: str
    policy: str
    strength: float | None

    @classmethod
    def of(cls, word: str) -> "Row":
        """Read MERGE:POLICY:STRENGTH. Raises InputError for what is none."""
        parts = word.split(":")
        if len(parts) != 3 or parts[0] not in MERGES or parts[1] not in POLICIES:
            raise InputError(
                f"--rows: {word} is not MERGE:POLICY:STRENGTH of {list(MERGES)}, {list(POLICIES)}, none or λ"
            )
        try:
            return cls(parts[0], parts[1], None if parts[2] == "none" else float(parts[2]))
        except ValueError:
            raise InputError(f"--rows: {parts[2]} in {word} is neither none nor a number") from None

    @property
    def name(self) -> str:
        return f"{self.merge} {self.policy}" + ("" if self.strength is None else f" {self.strength:g}")

    def method(self) -> dict[str, Any]:
        """Return the row as a config has it."""
        projection = "none" if self.strength is None else {"samples": SAMPLES, "strength": [self.strength]}
        return {
            **MERGES[self.merge],
            "label": self.name,
            "buffers": POLICIES[self.policy],
            "projection": projection,
        }


def all_rows(pool: str) -> Iterator[Row]:
    """Yield what is measured of a pool unless one says otherwise.

    A projected vector has no running statistics in it, so that negating them is keeping them: it has no row.
    """
    if pool == "frozen":
        for merge in ("mean", "consensus"):
            yield from (Row(merge, "keep", strength) for strength in (None, 1.0, 10.0))
        return
    for merge in MERGES:
        yield from (Row(merge, "forget", strength) for strength in (None, 1.0, 10.0))
    yield Row("mean", "forget", 100.0)
    for policy in ("keep", "negate", "retain"):
        yield Row("mean", policy, None)
        if policy != "negate":
            yield Row("mean", policy, 10.0)


def config_of(pool: str, rows: list[Row], words: list[str]) -> Config:
    """Return the config of a pool's run."""
    made = {
        "name": f"random-{pool}",
        "methods": [row.method() for row in rows],
        "pool.train.freeze_statistics": pool == "frozen",
        "projection": "none",
        "seeds": [0],
    }
    return load_config(CONFIG, [*words, *(f"{key}={json.dumps(value)}" for key, value in made.items())])


def lines(pool: str, rows: list[Row], results: Mapping[str, Any]) -> list[str]:
    """Return the lines of a pool's rows."""
    found = []
    for row in rows:
        values = results["methods"][row.name]
        told = [pool, POLICY_WORDS.get(row.policy, row.policy), row.merge]
        numbers = [f"{values[key]:.1f}" for key in SCORES]
        strength = "–" if row.strength is None else f"{row.strength:g}"
        found.append("| " + " | ".join([*told, strength, *numbers, f"{values['alpha']:.3g}"]) + " |")
    return found


def trimmed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of a row: its scores, α, and the curve that α was chosen on."""
    return {key: values[key] for key in (*SCORES, "alpha", "curve", "seconds")}


def bounds(results: Mapping[str, Any]) -> list[str]:
    """Return the lines of what is not merged: the base, and Retrain."""
    found = []
    for name, values in (("original", results["base"]), ("Retrain", results["reference"])):
        gap = average_gap(values, results["reference"]).total
        numbers = [f"{gap if key == 'gap' else values[key]:.1f}" for key in SCORES]
        found.append("| " + " | ".join([name, "–", "–", "–", *numbers, "–"]) + " |")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="words", metavar="KEY=VALUE")
    parser.add_argument("--pools", nargs="+", default=["moving", "frozen"], choices=["moving", "frozen"])
    parser.add_argument("--rows", nargs="+", metavar="MERGE:POLICY:STRENGTH", help="of all pools; all unless given")
    parser.add_argument("--frozen-rows", nargs="+", metavar="MERGE:POLICY:STRENGTH", help="of the pool frozen")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table between the marks of this page")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    options = parser.parse_args()
    table = ["| " + " | ".join(HEADER) + " |", "| --- | --- | --- |" + " ---: |" * (len(HEADER) - 3)]
    numbers = {}
    try:
        for pool in options.pools:
            asked = (options.frozen_rows if pool == "frozen" else None) or options.rows
            rows = [Row.of(word) for word in asked] if asked else list(all_rows(pool))
            results = run(config_of(pool, rows, options.words), options.folder / pool)
            numbers[pool] = {row.name: trimmed(results["methods"][row.name]) for row in rows}
            table += lines(pool, rows, results)
            print("\n".join(lines(pool, rows, results)), flush=True)
    except InputError as error:
        raise SystemExit(str(error)) from None
    table += bounds(results)
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=1) + "\n")
    if options.write:
        write(options.write, "\n".join(table) + "\n")


if __name__ == "__main__":
    main()
