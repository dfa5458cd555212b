"""`unlearn` by what Retrain, or unseen rows, show: how α is chosen for a module of one's own."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from negmerge import unlearn

POOL = {"train": {"batch_size": 16}, "grid": {"lr": [3e-3, 1e-2], "epochs": [4, 8]}}


@pytest.fixture(scope="module")
def memorised():
    """A model that knows 60 noisy rows by heart, its twin that saw only 40 of them, and 200 rows that neither saw."""
    g = torch.Generator().manual_seed(3)
    y = torch.arange(260) % 2
    x = torch.randn(260, 20, generator=g) + 0.7 * nn.functional.one_hot(y, 20)

    def train(rows):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2))
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
        return model.eval()

    def rows(start, stop):
        return TensorDataset(x[start:stop], y[start:stop])

    return train(slice(0, 60)), train(slice(20, 60)), rows(0, 20), rows(20, 60), rows(60, 260)


RANDOM_POOL = {"train": {"batch_size": 10, "optimizer": "sgd"}, "grid": {"lr": [0.3, 1.0], "epochs": [20, 40]}}


def test_match_reference_chooses_the_smallest_gap_to_the_twin(memorised):
    model, twin, forget, retain, unseen = memorised
    done = unlearn(
        model, forget, retain, validation=unseen, reference=twin, pool=RANDOM_POOL,
        selection={"objective": "match-reference", "search": "grid", "max_alpha": 16.0, "step": 0.5},
    )  # fmt: skip
    gaps = [point.scores["gap"] for point in done.selection.curve]
    assert done.selection.floor is None and done.selection.scores["gap"] == min(gaps) < gaps[0] / 2
    rows = done.results["methods"]
    assert list(rows) == ["uniform", "uniform projected"]  # both, without being asked
    assert [one["strength"] for one in rows["uniform projected"]["projection"]["strengths"]] == [1.0, 10.0]
    assert min(gaps) == min(point["gap"] for row in rows.values() for point in row["curve"])

    def correct(module, data):
        x, y = data.tensors
        return 100 * float((module(x).argmax(1) == y).float().mean())

    from negmerge.scores import membership_svc

    def attack(module):
        answers = [(module(data.tensors[0]).detach().double().softmax(1), data) for data in (retain, unseen, forget)]
        sure = [shares.gather(1, data.tensors[1][:, None])[:, 0] for shares, data in answers]
        return membership_svc(*sure, seed=7)

    sets = {"retain": retain, "forget": forget, "validation": unseen}
    by_hand = [abs(correct(done.model, data) - correct(twin, data)) for data in sets.values()]
    by_hand.append(abs(attack(done.model) - attack(twin)))
    assert done.selection.scores["gap"] == pytest.approx(sum(by_hand) / 4, abs=3)  # the attack draws other rows


def test_match_holdout_makes_the_forget_rows_look_unseen_without_a_twin(memorised):
    model, _, forget, retain, unseen = memorised
    done = unlearn(
        model, forget, retain, validation=unseen, pool=RANDOM_POOL,
        selection={"objective": "match-holdout", "floor": 0.8, "max_alpha": 16.0, "step": 0.5},
    )  # fmt: skip
    base = done.selection.curve[0].scores
    assert base["forget"] == 100.0 and base["validation"] < 85
    assert done.selection.scores["holdout"] < base["holdout"] / 2 and done.alpha > 0
    assert done.selection.scores["retain"] >= 0.8 * base["retain"]


def test_match_reference_compares_scores_of_ones_own(memorised):
    model, twin, forget, _, _ = memorised
    x, y = forget.tensors

    def evaluate(module):
        return {"forget": 100 * float((module(x).argmax(1) == y).float().mean()), "retain": 90.0, "other": 50.0}

    done = unlearn(
        model, forget, evaluate=evaluate, reference=twin, pool=RANDOM_POOL,
        selection={"objective": "match-reference", "search": "grid"},
    )  # fmt: skip
    for point in done.selection.curve:
        assert point.scores["gap"] == pytest.approx(abs(point.scores["forget"] - evaluate(twin)["forget"]) / 3)


@pytest.fixture(scope="module")
def normalised():
    """A network with batch normalisation that knows 240 noisy rows by heart, 120 of them to forget, and unseen rows."""
    g = torch.Generator().manual_seed(5)
    y = torch.arange(440) % 2
    x = torch.randn(440, 20, generator=g) + 0.5 * nn.functional.one_hot(y, 20)
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(20, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 2))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[:240]), y[:240]).backward()
        optimizer.step()
    parts = (slice(0, 120), slice(120, 240), slice(240, 440))
    return model.eval(), *(TensorDataset(x[own], y[own]) for own in parts)


@pytest.mark.parametrize(
    ("changes", "policy"),
    [
        ({}, "recalibrate on 2000 forget rows"),
        ({"buffers": "keep"}, "keep"),
        ({"buffers": {"recalibrate": "retain", "rows": 50}}, "recalibrate on 50 retain rows"),
        ({"selection": {"objective": "retain-floor"}}, "keep"),
        ({"pool": {"freeze_statistics": True}}, "keep"),
        ({"few": 40}, "keep"),
    ],
    ids=["single rows", "asked to keep", "asked for retain rows", "by the floor", "frozen members", "few rows"],
)
def test_running_statistics_are_taken_anew_where_many_single_rows_are_forgotten(normalised, changes, policy):
    model, forget, retain, unseen = normalised
    changes = dict(changes)
    pool = {"train": {"batch_size": 40, **changes.pop("pool", {})}, "grid": {"lr": [1e-2], "epochs": [3]}}
    few = changes.pop("few", len(forget))
    forget = TensorDataset(*(tensor[:few] for tensor in forget.tensors))
    done = unlearn(model, forget, retain, validation=unseen, method="uniform", pool=pool, **changes)
    (row,) = (one for name, one in done.results["methods"].items() if name == "uniform")
    assert row["buffers"] == policy and done.alpha > 0
    moved = not torch.equal(done.model[1].running_mean, model[1].running_mean)
    assert moved == policy.startswith("recalibrate")
