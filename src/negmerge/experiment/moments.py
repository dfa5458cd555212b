"""`negmerge moments`: the moments of a config's base, in a file of their own."""

import os
import shutil
from pathlib import Path
from typing import Any

from negmerge.checkpoints import atomic_write
from negmerge.errors import InputError
from negmerge.execution import torch_threads
from negmerge.experiment.config import Config
from negmerge.experiment.prepare import check_inputs, prepare
from negmerge.experiment.projecting import Projector, moments_seconds
from negmerge.experiment.projection_config import ProjectionConfig
from negmerge.experiment.renewing import check_identity
from negmerge.experiment.rundir import OnEvent, RunDir, seed_place
from negmerge.experiment.trainer import Trainer
from negmerge.projection import Moments


def take_moments(
    config: Config, directory: Path | None, output: Path, *, overwrite: bool = False, on_event: OnEvent | None = None
) -> dict[str, Any]:
    """Take the moments of a config's base on its rows, and write them to OUT, for its owner only.

    Data and base are those of the run in `directory` (runs/NAME) on its first seed, made unless they are there. Returns
    what the file says of itself, with its `bytes` and the `seconds` that it took. Raises InputError for an OUT that is
    there, unless it holds moments and `overwrite` is given, or whose folder is not; and where methods of the config
    differ in the rows that they project on.
    """
    _check_output(output, overwrite)
    place = RunDir(directory if directory is not None else Path("runs") / config.name, on_event)
    chosen = chosen_projection(config)
    with place.lock():
        check_identity(place, config)
        check_inputs(place, config)
        if not (place.path / "config.yaml").exists():
            place.keep_config(config)
        with torch_threads(config.threads or os.cpu_count() or 1):
            with place.stage("data"):
                material = prepare(place, config)
            with material.compute.float_products():
                trainer = Trainer(seed_place(place, config, config.seeds[0]), config, material, config.seeds[0])
                trainer.make_originals()
                file = Projector(trainer).moments(chosen)
    with atomic_write(output) as target:
        os.fchmod(target.fileno(), 0o600)
        with file.open("rb") as source:
            shutil.copyfileobj(source, target)
    with Moments(output) as moments:
        return {**moments.facts, "bytes": output.stat().st_size, "seconds": moments_seconds(file)}


def chosen_projection(config: Config) -> ProjectionConfig:
    """Return the projection of a config, or else that of its methods; where none projects, that of an empty mapping.

    Raises InputError for methods whose projections differ in rows or samples, naming two.
    """
    if isinstance(config.projection, ProjectionConfig):
        return config.projection
    own = {method.row: method.projected for method in config.methods if method.projected is not None}
    found = {(str(one.rows), one.samples): row for row, one in reversed(own.items())}
    if len(found) > 1:
        ways = ", ".join(f"{row} {samples} rows of {rows}" for (rows, samples), row in reversed(found.items()))
        (rows, samples), *_ = reversed(found)
        raise InputError(
            f"the methods project on different rows ({ways}); choose one by "
            f"--set 'projection={{rows: {rows}, samples: {samples}}}'"
        )
    return next(iter(own.values()), ProjectionConfig())


def _check_output(output: Path, overwrite: bool) -> None:
    if not output.parent.is_dir():
        raise InputError(f"OUT {output}: there is no folder {output.parent}; make it first, or give another OUT")
    if not output.exists():
        return
    if not overwrite:
        raise InputError(f"{output} exists; give another OUT, or --overwrite")
    Moments(output).close()
