"""The merge that `negmerge unlearn` chooses: by what goes, and by how many members there are after all changes."""

import csv

import pytest

from negmerge.checkpoints import write_state_dict
from negmerge.errors import InputError
from negmerge.experiment.direct import Request
from negmerge.experiment.direct_choices import checked_request
from negmerge.tasks.text_classification.families import small_transformer

SMALL = ("model.width=16", "model.vocabulary=256")
TWO, FOUR = "pool.grid={lr: [3e-3, 1e-2], epochs: [4]}", "pool.grid={lr: [3e-3, 1e-2], epochs: [4, 8]}"


@pytest.fixture
def request_for(tmp_path):
    """A function that returns a request on a small text classifier, with or without unseen rows."""
    own = small_transformer.Settings(width=16, vocabulary=256)
    write_state_dict(tmp_path / "w.safetensors", small_transformer.build(own, 3).state_dict())
    rows = [(f"word{i} word{i % 7}", ("food", "tech", "sport")[i % 3]) for i in range(90)]
    for name, part in (("all", rows[:60]), ("gone", rows[:9]), ("unseen", rows[60:])):
        with (tmp_path / f"{name}.csv").open("w", newline="") as opened:
            writer = csv.writer(opened)
            writer.writerows([("text", "label"), *part])

    def make(unseen=True, **given):
        place = tmp_path / "unseen.csv" if unseen else None
        files = (tmp_path / "w.safetensors", tmp_path / "gone.csv", tmp_path / "all.csv", place)
        return Request(*files, family="small-transformer", **given)

    return make


@pytest.mark.parametrize(
    ("unseen", "changes", "method", "why"),
    [
        (True, (), "uniform", "6 members and rows that are to look like unseen ones"),
        (True, (FOUR,), "uniform", "4 members and rows that are to look like unseen ones"),
        (True, (TWO,), "consensus", "2 members and rows that are to look like unseen ones"),
        (True, (TWO, "selection.objective=retain-floor"), "consensus", "what is to go as a whole"),
        (False, (), "consensus", "what is to go as a whole"),
    ],
)
def test_the_merge_follows_what_goes_and_how_many_members_there_are(request_for, unseen, changes, method, why):
    request = request_for(unseen)
    config = checked_request(request, (*SMALL, *changes))
    assert {one.name for one in config.methods} == {method}
    assert [line for line in request.assumed if line.startswith("merge: ")] == [
        f"merge: {method}, for {why} (--method NAME asks for another)"
    ]


@pytest.mark.parametrize(("given", "changes"), [({"method": "ties"}, ()), ({}, ("methods=[ties]",))])
def test_a_merge_that_was_named_is_taken(request_for, given, changes):
    request = request_for(**given)
    config = checked_request(request, (*SMALL, TWO, *changes))
    assert {one.name for one in config.methods} == {"ties"}
    assert not [line for line in request.assumed if line.startswith("merge: ")]


def test_what_is_wrong_with_a_change_is_said(request_for):
    with pytest.raises(InputError, match="'lrr' is no training setting"):
        checked_request(request_for(), (*SMALL, "pool.grid={lrr: [1]}"))
