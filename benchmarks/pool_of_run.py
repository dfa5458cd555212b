"""The base, the Retrain model and the pool of a config, trained once in a run directory and opened again after that."""

from pathlib import Path

from negmerge.experiment.config import RunConfig
from negmerge.experiment.keys import Keys
from negmerge.experiment.prepare import Material, prepare
from negmerge.experiment.renewing import IDENTITY, check_identity, identity_of
from negmerge.experiment.rundir import RunDir
from negmerge.experiment.stages import SeedRun


def open_pool_of_run(place: RunDir, config: RunConfig) -> tuple[Material, SeedRun, dict[str, Path]]:
    """Return the rows of a config, its run of the first seed, and its members' checkpoints by name.

    What is not trained yet is trained; members that diverged are left out. The folder is a run directory then, in which
    `negmerge run` of the same config makes rows. Raises InputError where it is one of another config.
    """
    with place.lock():
        keys = Keys(place.path)
        if keys.get(IDENTITY) is not None:
            check_identity(place, config)
        material = prepare(place, config)
        run = SeedRun(place, config, material, config.seeds[0])
        run.trainer.make_originals()
        run.ground = run._ground()
        jobs, _ = run._make_pool()
        keys.put(IDENTITY, identity_of(config))  # everything that is there is of this config: others were trained anew
    return material, run, {job.name: job.checkpoint for job in jobs}
