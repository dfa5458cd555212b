"""The argument `projection` of `unlearn`: what it may be, and whose rows it may not protect."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from negmerge import unlearn
from negmerge.errors import InputError
from negmerge.experiment.user_projection import asked_projection


@pytest.mark.parametrize(
    ("given", "understood"),
    [
        ("auto", "auto"),
        ("none", "none"),
        (None, "none"),
        ("retain", {"rows": "retain"}),
        ("validation", {"rows": "validation"}),
        (10, {"strength": [10.0]}),
        (2.5, {"strength": [2.5]}),
        ([10, 1], {"strength": [1.0, 10.0]}),
        ((1, 10), {"strength": [1.0, 10.0]}),
        (np.float32(10), {"strength": [10.0]}),
        (np.int64(3), {"strength": [3.0]}),
        (np.array([1, 10]), {"strength": [1.0, 10.0]}),
        (torch.tensor(10.0), {"strength": [10.0]}),
        ({}, {}),
        ({"strength": np.float64(4), "samples": np.int64(50)}, {"strength": [4.0], "samples": 50}),
        ({"rows": "validation", "strength": (1, torch.tensor(2))}, {"rows": "validation", "strength": [1.0, 2.0]}),
    ],
)
def test_every_form_is_understood(given, understood):
    assert asked_projection(given) == understood


@pytest.mark.parametrize(
    ("given", "said"),
    [
        *((one, r'projection: give "auto", "none", "retain"') for one in (True, False, "Auto", "all", "", {1}, object)),
        *((one, r'projection: give "auto"') for one in ([], [True], ["1"], float("nan"), [float("inf")], "retain ")),
        *((one, "give different numbers above 0") for one in (0, -1, [1, 1], {"strength": 0})),
        ({"strength": float("inf")}, r"projection\.strength: give a number"),
        ({"strength": True}, r"projection\.strength: give a number"),
        ({"samples": 1}, r"projection\.samples: give a whole number from 2"),
        ({"samples": 2.5}, r"projection\.samples"),
        ({"row": "retain"}, "'row' is not known here; its keys are rows, samples, strength"),
        *(({"rows": one}, r"projection\.rows: give") for one in ("test", Path("rows.txt"), [1, 2], 3, None)),
        (TensorDataset(torch.ones(3, 2)), "got a TensorDataset"),
    ],
)
def test_anything_else_is_refused_in_one_line(given, said):
    with pytest.raises(InputError, match=said) as caught:
        asked_projection(given)
    assert "\n" not in str(caught.value)


class Inputs(Dataset):
    """The inputs of a data set, without labels."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        return (self.data[i][0],)


@pytest.fixture(scope="module")
def given():
    """A module that knows nothing, forget rows of class 0, retain rows of 1 and 2, and 30 further rows of class 0."""
    torch.manual_seed(0)
    x, y = torch.randn(120, 4), torch.arange(120) % 3
    first = x[y == 0]
    forget, more = TensorDataset(first[:10], y[y == 0][:10]), TensorDataset(first[10:], y[y == 0][10:])
    return nn.Linear(4, 3), forget, TensorDataset(x[y != 0], y[y != 0]), more


POOL = {"train": {"batch_size": 16}, "grid": {"lr": [1e-2], "epochs": [1]}}


def rows_of(model, forget, retain, projection, **more):
    return list(unlearn(model, forget, retain, projection=projection, pool=POOL, **more).results["methods"])


def test_words_and_numbers_project(given):
    model, forget, retain, _ = given
    both = ["consensus", "consensus projected"]
    assert rows_of(model, forget, retain, "retain") == both
    assert rows_of(model, forget, retain, np.float32(10)) == both
    assert rows_of(model, forget, retain, None) == ["consensus"]


def test_rows_that_are_to_be_forgotten_are_not_protected(given):
    model, forget, retain, more = given
    x, y = forget.tensors
    whole = TensorDataset(torch.cat([retain.tensors[0], x]), torch.cat([retain.tensors[1], y]))
    count = len(retain)
    cases = (
        (forget, forget, "its rows are those to be forgotten"),
        (forget, TensorDataset(x.clone(), y.clone()), "its rows hold 10 that are to be forgotten"),
        (forget, Inputs(Subset(forget, [0, 1])), "its rows hold 2 that"),
        (Subset(whole, range(count, count + 10)), Subset(whole, range(count - 5, count + 3)), "its rows hold 3 that"),
        (forget, more, "30 of its rows are of a class that is to be forgotten as a whole, such as class 0"),
    )
    for asked, rows, said in cases:
        with pytest.raises(InputError, match=said):
            unlearn(model, asked, retain, projection={"rows": rows}, pool=POOL)


def test_what_is_no_data_set_is_named_before_rows_are_compared(given):
    model, forget, retain, more = given
    with pytest.raises(InputError, match="forget is a DataLoader"):
        unlearn(model, DataLoader(forget), retain, projection={"rows": more}, pool=POOL)
    with pytest.raises(InputError, match="the projection set is empty"):
        unlearn(model, forget, retain, projection={"rows": Subset(retain, [])}, pool=POOL)


def test_other_rows_are_protected_whatever_is_known_of_their_labels(given):
    model, forget, retain, more = given
    both = ["consensus", "consensus projected"]
    assert rows_of(model, forget, retain, {"rows": Inputs(more), "strength": 10}) == both
    # Rows of the class of single rows that are to be forgotten are among others of it.
    x, y = (torch.cat(two) for two in zip(retain.tensors, more.tensors, strict=True))
    assert len(rows_of(model, forget, TensorDataset(x, y), {"rows": more, "strength": 10})) == 2


def test_a_projected_row_is_called_by_what_became_of_its_statistics(given, tmp_path):
    _, forget, retain, _ = given
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    with torch.no_grad():
        model[1].running_mean.normal_()
    done = unlearn(model, forget, retain, projection=10, buffers="negate", pool=POOL, directory=tmp_path / "run")
    rows = done.results["methods"]
    assert {name: row["buffers"] for name, row in rows.items()} == {
        "consensus": "negate",
        "consensus projected": "keep",
    }
    # Without the statistics in its vector a projected model has those of the base, whatever α is.
    folder = tmp_path / "run" / "methods" / "consensus projected"
    assert torch.equal(load_file(folder / "model.safetensors")["1.running_mean"], model[1].running_mean)
