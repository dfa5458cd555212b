"""`forget: {hardest: n}`: rows that only a model that saw them knows, ranked by models trained on halves."""

import json

import pytest
import torch

from negmerge.errors import InputError
from negmerge.experiment.config import check_config
from negmerge.experiment.hardest import FILE, name_hardest
from negmerge.experiment.plan import plan
from negmerge.experiment.rows import find_rows
from negmerge.experiment.rundir import RunDir, read_json
from negmerge.requests.hardest import deal_halves, hardest_of, memorisation
from negmerge.requests.splits import load_split

SOURCE = '''
"""Two blots, and rows whose label is the other blot's: these can only be memorised."""
from pydantic import BaseModel
import torch
from negmerge.tasks.image_classification.images import ImageSet
from negmerge.tasks.image_classification.source_file import Source

SUMMARY = "blots"


class Settings(BaseModel):
    wrong: int = 12


def load(settings):
    draw = torch.Generator().manual_seed(0)

    def table(n, wrong):
        labels = torch.arange(n) % 2
        images = torch.randint(60, (n, 1, 8, 8), generator=draw, dtype=torch.uint8)
        images[labels == 0, :, :4] += 150
        images[labels == 1, :, 4:] += 150
        labels[:wrong] = 1 - labels[:wrong]
        return ImageSet(images, labels, ("up", "down"))

    return Source(table(240, settings.wrong), table(80, 0))
'''


@pytest.fixture
def asked(tmp_path):
    (tmp_path / "blots.py").write_text(SOURCE)

    def make(hardest=12, **changes):
        return check_config(
            {
                "name": "hardest",
                "device": "cpu",
                "workers": 1,
                "threads": 1,
                "model": {"family": "small-cnn", "width": 8},
                "data": {
                    "source": {"file": str(tmp_path / "blots.py")},
                    "forget": {"hardest": hardest},
                    "validation": {"rows": [200, 240]},
                    "train_rows": [0, 200],
                },
                "base": {"train": {"epochs": 30, "lr": 0.01, "batch_size": 50}},
                "reference": {"train": "base"},
                "pool": {"train": {"batch_size": 32}, "grid": {"lr": [1e-3], "epochs": [1]}},
                "methods": ["uniform"],
                **changes,
            }
        )

    return make


def test_halves_and_memorisation_by_hand():
    inside = deal_halves(7, 6, torch.Generator().manual_seed(3))
    assert inside.sum(0).tolist() == [3] * 7 and set(inside.sum(1).tolist()) == {3, 4}
    known = torch.tensor([[1.0, 0.5], [0.2, 0.5], [0.6, 1.0], [0.0, 0.0]])
    seen = torch.tensor([[True, False], [False, True], [True, True], [False, False]])
    assert memorisation(known, seen).tolist() == pytest.approx([0.8 - 0.1, 0.75 - 0.25])
    with pytest.raises(InputError, match="hardest: 3 of 4 training rows are too many; 2 at most"):
        hardest_of(torch.arange(4), torch.zeros(4), 3)


def test_rows_that_can_only_be_memorised_are_found(asked, tmp_path):
    place = RunDir(tmp_path / "run", None)
    rule = name_hardest(place, asked({"n": 12, "models": 2})).forget
    found = json.loads((place.path / FILE).read_text())
    assert rule.rows == place.path / FILE and len(found["forget_rows"]) == 12
    assert len(set(found["forget_rows"]) & set(range(12))) >= 10  # the rows with the other label
    assert min(found["memorisation"]) > 0.3 > found["mean_of_all"]
    before = (place.path / FILE).read_bytes()
    (place.path / FILE).unlink()
    name_hardest(place, asked({"n": 12, "models": 2}))
    assert (place.path / FILE).read_bytes() == before


def test_the_plan_counts_the_ranking_and_rows_are_not_guessed(asked):
    few, many = (plan(asked({"n": 12, "models": models})) for models in (2, 6))
    assert many.training_rows - few.training_rows == 4 * 30 * 100
    assert few.rows["forget"] == 12
    with pytest.raises(InputError, match="known once a run has ranked them"):
        find_rows(asked())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hardest": 0}, "greater than or equal to 1"),
        ({"hardest": {"n": 3, "models": 3}}, "multiple of 2"),
        ({"base": {"checkpoint": "x"}, "reference": "none"}, "hardest trains models from scratch"),
    ],
)
def test_what_is_refused(asked, changes, message):
    with pytest.raises(InputError, match=message):
        asked(**changes)


@pytest.mark.heavy(20)
def test_a_run_forgets_the_hardest_rows(asked, tmp_path):
    from negmerge.experiment.pipeline import run

    config = asked(evidence={"tests": ["who-paid", "disagreement"], "controls": 1})
    results = run(config, tmp_path / "run")
    rows = read_json(tmp_path / "run" / FILE)["forget_rows"]
    assert load_split(tmp_path / "run" / "split.json").forget.tolist() == rows
    assert "12 most memorised" in results["task"]["text"] or "12 most memorised" in json.dumps(results)
    own = results["evidence"]["tests"][0]["counted"]
    assert own["base"] > 90.0 > 30.0 > own["reference"]
    assert run(config, tmp_path / "run") == results
