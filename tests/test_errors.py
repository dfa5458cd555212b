"""Errors of workers reach their parent by pickle, as they were raised."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from negmerge.checking import MistakesError, mistakes_of
from negmerge.checkpoints.atomic import NotWrittenError
from negmerge.errors import DivergedError, InputError, InterruptedRunError, NegmergeError

RAISED: list[NegmergeError] = [
    NotWrittenError(Path("out/model.safetensors"), "No space left on device"),
    MistakesError("run.yaml", ["alpha: is negative", "seeds: is empty"]),
    MistakesError("", ["alpha: is negative"]),
    InputError("x: is missing"),
    DivergedError("NaN"),
    InterruptedRunError("stopped"),
]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickle(error):
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)
    assert back.exit_code == error.exit_code


def test_the_mistakes_of_an_error_that_crossed_a_process_are_still_told_one_by_one():
    error = MistakesError("run.yaml", ["alpha: is negative", "seeds: is empty"])
    assert mistakes_of(pickle.loads(pickle.dumps(error))) == [
        "run.yaml: alpha: is negative",
        "run.yaml: seeds: is empty",
    ]


def subclasses(cls: type) -> Iterator[type]:
    for one in cls.__subclasses__():
        yield one
        yield from subclasses(one)


def test_every_error_with_a_signature_of_its_own_is_among_these():
    own = {
        cls for cls in subclasses(NegmergeError) if "__init__" in vars(cls) and cls.__module__.startswith("negmerge.")
    }
    assert own <= {type(error) for error in RAISED}
