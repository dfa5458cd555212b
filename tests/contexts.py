"""Contexts as the pipeline makes them, for tests of methods."""

from dataclasses import replace

from negmerge.experiment.config import MethodConfig


def context_maker(seed_run, tmp_path):
    """Return a function that makes the context of a method by name, in a folder of the test's own."""
    pool = tuple(sorted((seed_run.place.private / "pool").glob("*/model.safetensors")))

    def make(name, folder="a"):
        context = seed_run.contexts.make(MethodConfig(name=name), [], 1.0)
        place = tmp_path / folder
        own = {key: place / key for key in ("shared", "common")}
        return replace(context, members=pool, directory=place / "own", **own)

    return make
