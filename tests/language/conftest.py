"""A run on a tiny language model that knows twenty facts and is to forget those about one person in four."""

from dataclasses import replace

import pytest
from tiny_language import config_of, facts, save, write

from negmerge.experiment.config import MethodConfig, check_config
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
    """Contexts as the pipeline makes them, for a method by name, in a folder of the test's own."""
    pool = tuple(sorted((seed_run.place.private / "pool").glob("*/model.safetensors")))

    def make(name, folder="a"):
        context = seed_run.contexts.make(MethodConfig(name=name), [], 1.0)
        place = tmp_path / folder
        return replace(context, members=pool, directory=place / "own", shared=place / "shared")

    return make
