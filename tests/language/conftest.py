"""A run on a tiny language model that knows twenty facts and is to forget those about one person in four."""

import pytest
from tiny_language import config_of, facts, save, write

from contexts import context_maker
from negmerge.experiment.config import check_config
from negmerge.experiment.pipeline import run
from negmerge.experiment.prepare import prepare
from negmerge.experiment.rundir import RunDir
from negmerge.experiment.stages import SeedRun


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("facts")
    save(place / "model")
    write(place / "facts.jsonl", facts(22))
    write(place / "unseen.jsonl", facts(8, seed=1))
    return place


@pytest.fixture(scope="session")
def finished(folder):
    """Config, results and directory of a run with base, reference and pool."""
    config = check_config(config_of(folder))
    return config, run(config, folder / "run"), folder / "run"


@pytest.fixture(scope="session")
def seed_run(finished):
    config, _, place = finished
    run_dir = RunDir(place)
    return SeedRun(run_dir, config, prepare(run_dir, config), 0)


@pytest.fixture
def make_context(seed_run, tmp_path):
    return context_maker(seed_run, tmp_path)
