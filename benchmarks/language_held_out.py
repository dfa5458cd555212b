"""What each row of a language run keeps of the retain rows that its projection read, and of those that it did not.

    python benchmarks/language_held_out.py RUN… [--write PAGE]

Opens the model that each row wrote, at the α that was chosen, and scores every retain row on it. The rows whose moments
the projection took and the rest stand in columns of their own: where it kept only what it read, they would differ. The
rows that the search for α saw are among both.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from negmerge.experiment.config import RunConfig, load_config
from negmerge.experiment.prepare import prepare
from negmerge.experiment.projection_config import ProjectionConfig
from negmerge.experiment.rundir import RunDir
from negmerge.experiment.stages import SeedRun
from training import write

HEAD = ("row", "probability, read", "probability, not read", "extraction, read", "extraction, not read")


def held_out(directory: Path) -> str:
    """Return the table of one run as Markdown. Raises ValueError where no row of it is projected."""
    config = load_config(directory / "config.yaml")
    chosen = next((m.projected for m in config.methods if isinstance(m.projected, ProjectionConfig)), None)
    if chosen is None:
        raise ValueError(f"{directory}: no row is projected")
    with opened(directory, config) as run:
        retain, read = run.material.parts["retain"], run.projector.rows(chosen)["retain"]
        parts = {"read": retain[torch.isin(retain, read)], "not read": retain[~torch.isin(retain, read)]}
        lines = []
        for name, file in written(directory, run).items():
            model = run.material.task.open(file, run.material.device)
            found = run.material.task.observe(model, parts, dict.fromkeys(parts, ("confidence", "extraction")))
            cells = [100 * found[part][key].double().mean() for key in ("confidence", "extraction") for part in parts]
            lines.append([name, *(f"{cell:.1f}" for cell in cells)])
    counted = " and ".join(f"{len(rows)} {part}" for part, rows in parts.items())
    table = ["| " + " | ".join(line) + " |" for line in (HEAD, ["---"] * len(HEAD), *lines)]
    return "\n".join([f"### {config.name}: {counted} by the projection", "", *table, ""])


@contextmanager
def opened(directory: Path, config: RunConfig) -> Iterator[SeedRun]:
    """Open the first seed of a run directory, on the threads of its config, and keep others out of it meanwhile."""
    place = RunDir(directory)
    torch.set_num_threads(config.threads or torch.get_num_threads())
    with place.lock():
        yield SeedRun(place, config, prepare(place, config), config.seeds[0])


def written(directory: Path, run: SeedRun) -> dict[str, Path]:
    """Return the checkpoints of a run by name: base, its rows in the order in which they were made, and Retrain."""
    rows = sorted(directory.glob("methods/*/model.safetensors"), key=lambda path: path.stat().st_mtime)
    files = {"base": run.base, **{path.parent.name: path for path in rows}}
    return files if run.reference is None else {**files, "Retrain": run.reference}


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    options: Any = parser.parse_args(words)
    text = "\n".join(held_out(run) for run in options.runs)
    print(text)
    if options.write:
        write(options.write, text, "held out")


if __name__ == "__main__":
    main()
