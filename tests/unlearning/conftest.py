"""A finished run on the digits whose base, split and pool the methods work on."""

import pytest

from contexts import context_maker
from negmerge.experiment.config import check_config
from negmerge.experiment.pipeline import run
from negmerge.experiment.prepare import prepare
from negmerge.experiment.rundir import RunDir
from negmerge.experiment.stages import SeedRun

DIGITS = {
    "name": "digits",
    "workers": 1,
    "threads": 1,
    "model": {"family": "small-cnn", "width": 8},
    "data": {"source": "digits", "forget": {"classes": ["3"]}},
    "base": {"train": {"epochs": 12, "lr": 0.01, "batch_size": 64, "schedule": "one-cycle", "augment": "crop1"}},
    "pool": {"train": {"batch_size": 32}, "grid": {"lr": [1e-3, 3e-3], "epochs": [2, 4]}},
    "methods": ["consensus"],
}


@pytest.fixture(scope="session")
def seed_run(tmp_path_factory):
    """The stages of one seed; base and pool are trained."""
    place = tmp_path_factory.mktemp("digits") / "run"
    config = check_config(DIGITS)
    run(config, place)
    run_dir = RunDir(place)
    return SeedRun(run_dir, config, prepare(run_dir, config), 0)


@pytest.fixture
def make_context(seed_run, tmp_path):
    return context_maker(seed_run, tmp_path)
