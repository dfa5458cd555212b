"""A run: split → base → reference → pool → methods → results → record → report."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from negmerge.errors import InputError
from negmerge.execution import torch_threads
from negmerge.experiment.aggregate import aggregate
from negmerge.experiment.config import Config, RunConfig
from negmerge.experiment.plan import estimate
from negmerge.experiment.prepare import Material, prepare
from negmerge.experiment.record import machine, peak_rss, verify_run, versions, write_record
from negmerge.experiment.results import collect
from negmerge.experiment.rundir import OnEvent, RunDir, read_json, seed_place, write_json
from negmerge.experiment.stages import SeedRun

__all__ = ["run", "verify_run"]


def run(
    config: Config,
    directory: Path | str | None = None,
    *,
    on_event: OnEvent | None = None,
    purge_pool: bool = False,
    command: str = "",
) -> dict[str, Any]:
    """Run an experiment in `directory` (runs/NAME unless given) and return its results, as in `results.json`.

    The same call again goes on where an interrupted one stopped and gives the same numbers; a finished run is read
    back. With `purge_pool` the private folder (images, members, vectors) is removed at the end. Members are trained in
    processes of their own, so a script that calls this needs the usual `if __name__ == "__main__":`.

    Raises InputError for wrong input and for a directory that holds another run, NegmergeError where training diverges
    or another process is at work in the directory.
    """
    place = RunDir(Path(directory) if directory is not None else Path("runs") / config.name, on_event)

    def prepared() -> Material:
        with place.stage("data"):
            material = prepare(place, config)
        place.emit("estimate", **estimate(config, material).as_json())
        return material

    with place.lock():
        results = run_stages(place, config, prepared, command)
        if purge_pool:
            for private in (place.path / "private", *place.path.glob("seed-*/private")):
                shutil.rmtree(private, ignore_errors=True)
        from negmerge.report import write_report

        write_report(place.path)
        place.emit("finished", results=str(place.path / "results.json"))
        return results


def run_stages(place: RunDir, config: RunConfig, prepared: Callable[[], Material], command: str = "") -> dict[str, Any]:
    """Do what is not done of a run in its directory, which is locked, and return its results.

    `prepared` makes what the stages work on, if any is to be done. Raises InputError for a directory of another run.
    """
    place.keep_config(config)
    results_file = place.path / "results.json"
    if not results_file.exists() or not (place.path / "record.json").exists():
        with torch_threads(config.threads or os.cpu_count() or 1):
            started = time.perf_counter()
            material = prepared()
            with material.compute.float_products():
                rows = _all_seeds(place, config, material)
            _write_results(place, config, material, rows, command, started)
    results: dict[str, Any] = read_json(results_file)
    return results


def _write_results(
    place: RunDir, config: RunConfig, material: Material, rows: list[dict[str, Any]], command: str, started: float
) -> None:
    write_json(place.path / "results.json", rows[0] if len(rows) == 1 else aggregate(rows))
    record = {
        "command": command,
        "config": config.resolved(),
        "seeds": config.seeds,
        "versions": versions(),
        "machine": machine(material.device),
        "inputs": list(material.inputs),
        "stages": place.stages,
        "seconds": time.perf_counter() - started,
        "peak_rss": peak_rss(),
    }
    write_record(place.path, record, _outputs(place.path))


def _all_seeds(place: RunDir, config: RunConfig, material: Material) -> list[dict[str, Any]]:
    rows = []
    for seed in config.seeds:
        first = None if seed == config.seeds[0] else place.path / f"seed-{config.seeds[0]}"
        own = seed_place(place, config, seed)
        rows.append(collect(config, material, SeedRun(own, config, material, seed, first).finish()))
    return rows


def _outputs(directory: Path) -> list[Path]:
    names = {"results.json", "split.json", "scores.json", "model.safetensors", "config.yaml"}
    found = [p for p in directory.rglob("*") if p.name in names and p.is_file()]
    return [p for p in found if "private" not in p.relative_to(directory).parts]


def load_results(directory: Path) -> dict[str, Any]:
    """Return the results of a finished run. Raises InputError where there are none."""
    file = directory / "results.json"
    if not file.exists():
        raise InputError(f"{directory} has no results.json; `negmerge run CONFIG -o {directory}` makes it")
    results: dict[str, Any] = read_json(file)
    return results
