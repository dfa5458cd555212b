"""A run: split → base → reference → pool → methods → results → record → report."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from negmerge.errors import InputError
from negmerge.execution import torch_threads
from negmerge.experiment.aggregate import aggregate
from negmerge.experiment.config import Config, RunConfig, load_config
from negmerge.experiment.hardest import asks_for_hardest, name_hardest
from negmerge.experiment.keys import Keys
from negmerge.experiment.plan import estimate
from negmerge.experiment.prepare import Material, check_inputs, prepare
from negmerge.experiment.purging import remove_private, write_on_disk
from negmerge.experiment.record import add_byproducts, begin, has_statement, verify_run, write_record
from negmerge.experiment.renewing import IDENTITY, check_identity, identity_of, results_key
from negmerge.experiment.results import collect
from negmerge.experiment.rundir import OnEvent, RunDir, read_json, seed_place, write_json
from negmerge.experiment.stages import SeedRun

__all__ = ["Results", "run", "verify_run"]


class Results(dict[str, Any]):
    """What stands in `results.json`; notebooks show it as its table, with the warnings below it."""

    def _repr_html_(self) -> str:
        from negmerge.report import html_table

        return html_table(self)


def run(
    config: Config | Path | str,
    directory: Path | str | None = None,
    *,
    on_event: OnEvent | None = None,
    fresh: bool = False,
    purge: bool = False,
    purge_base: bool = False,
    command: str = "",
) -> Results:
    """Run an experiment in `directory` (runs/NAME unless given) and return its results, as in `results.json`.

    `config` is a file, as `negmerge run` takes it, or what `load_config` makes of one.
    The same call again goes on where an interrupted one stopped and gives the same numbers; a finished run is read
    back. A changed floor, objective, grid, method, evaluation or policy for buffers goes on with the base, the members
    and whatever else does not hang on it. With `fresh` what is there is removed first. With `purge` everything that
    knows the forget set is removed at the end (images, members, vectors; see `negmerge.experiment.purging`), with
    `purge_base` the base too. Members are trained in processes of their own, so a script that calls this needs the
    usual `if __name__ == "__main__":`.

    Raises InputError for wrong input, for a directory that holds a run of other data, another model, base or reference,
    and, by name, for files that changed under the run; NegmergeError where training diverges or another process is at
    work in the directory.
    """
    config = load_config(Path(config)) if isinstance(config, (str, Path)) else config
    place = RunDir(Path(directory) if directory is not None else Path("runs") / config.name, on_event)

    def prepared() -> Material:
        with place.stage("data"):
            material = prepare(place, config, name_hardest if asks_for_hardest(config) else None)
        for note in material.notes:
            place.emit("note", text=note)
        with place.stage("estimate"):
            estimated = estimate(config, material).as_json()
        place.emit("estimate", **estimated)
        return material

    with place.lock():
        if fresh and place.is_run:
            place.clear()
            Keys(place.path).put(IDENTITY, identity_of(config))
        results = run_stages(place, config, prepared, command, check=lambda: check_inputs(place, config))
        if purge or purge_base:
            place.emit("purged", **remove_private(place, base=purge_base))
        write_on_disk(place, config.resolved())
        from negmerge.report import write_report

        write_report(place.path)
        place.emit("finished", results=str(place.path / "results.json"))
        add_byproducts(place.path)
        return Results(results)


def run_stages(
    place: RunDir,
    config: RunConfig,
    prepared: Callable[[], Material],
    command: str = "",
    check: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Do what is not done of a run in its directory, which is locked, and return its results.

    `prepared` makes what the stages work on, if any is to be done; `check` raises InputError where files changed that
    the run was begun with. Raises InputError for a directory of another run.
    """
    check_identity(place, config)
    if check is not None:
        check()
    results_file, key = place.path / "results.json", results_key(config)
    keys = Keys(place.path)
    if keys.get("results") != key:
        for name in ("results.json", "record.json", "report.html"):
            (place.path / name).unlink(missing_ok=True)
        keys.put("results", key)
    place.keep_config(config)
    begin(place)
    if not results_file.exists() or not has_statement(place.path):
        with torch_threads(config.threads or os.cpu_count() or 1):
            material = prepared()
            with material.compute.float_products():
                rows = _all_seeds(place, config, material)
            _write_results(place, config, material, rows, command)
    results: dict[str, Any] = read_json(results_file)
    return results


def _write_results(
    place: RunDir, config: RunConfig, material: Material, rows: list[dict[str, Any]], command: str
) -> None:
    write_json(place.path / "results.json", rows[0] if len(rows) == 1 else aggregate(rows))
    write_record(place, config, material, command)


def _all_seeds(place: RunDir, config: RunConfig, material: Material) -> list[dict[str, Any]]:
    runs, found = [], []
    for seed in config.seeds:
        first = None if seed == config.seeds[0] else place.path / f"seed-{config.seeds[0]}"
        runs.append(SeedRun(seed_place(place, config, seed), config, material, seed, first))
        found.append(runs[-1].finish())
    found[0].evidence = runs[0].judge(found[0], runs)
    return [collect(config, material, one) for one in found]


def load_results(directory: Path) -> dict[str, Any]:
    """Return the results of a finished run. Raises InputError where there are none."""
    file = directory / "results.json"
    if not file.exists():
        raise InputError(f"{directory} has no results.json; `negmerge run CONFIG -o {directory}` makes it")
    results: dict[str, Any] = read_json(file)
    return results
