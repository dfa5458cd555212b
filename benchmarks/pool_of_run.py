"""The base, the Retrain model and the pool of a config, trained once in a run directory and opened again after that."""

from pathlib import Path

from negmerge.experiment.config import RunConfig
from negmerge.experiment.prepare import Material, prepare
from negmerge.experiment.rundir import RunDir
from negmerge.experiment.stages import SeedRun


def open_pool_of_run(place: RunDir, config: RunConfig) -> tuple[Material, SeedRun, dict[str, Path]]:
    """Return the rows of a config, its run of the first seed, and its members' checkpoints by name.

    What is not trained yet is trained; members that diverged are left out.
    """
    with place.lock():
        material = prepare(place, config)
        run = SeedRun(place, config, material, config.seeds[0])
        run.trainer.make_originals()
        run.ground = run._ground()
        jobs, _ = run._make_pool()
    return material, run, {job.name: job.checkpoint for job in jobs}
