"""`unlearn`: a module of one's own, in memory."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from negmerge import unlearn
from negmerge.errors import InputError

POOL = {"train": {"batch_size": 16}, "grid": {"lr": [3e-3, 1e-2], "epochs": [4, 8]}}


@pytest.fixture(scope="module")
def trained():
    g = torch.Generator().manual_seed(0)
    y = torch.arange(300) % 3
    x = torch.randn(300, 6, generator=g) + 3 * nn.functional.one_hot(y, 6)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Dropout(0.1), nn.Linear(24, 3))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval(), TensorDataset(x[y == 0], y[y == 0]), TensorDataset(x[y != 0], y[y != 0])


def test_a_class_is_forgotten_and_the_given_model_is_as_it_was(trained):
    model, forget, retain = trained
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    seen = []
    done = unlearn(model, forget, retain, pool=POOL, on_event=lambda event: seen.append(event["event"]))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    curve = done.selection.curve
    assert curve[0].scores["forget"] > 90 and done.selection.scores["forget"] < 50
    assert done.selection.scores["retain"] >= 0.95 * curve[0].scores["retain"]
    assert len(done.members) == 4 == seen.count("trained") and 0 < done.consensus < 1 and done.alpha > 0
    x, y = forget.tensors
    assert 100 * (done.model(x).argmax(1) == y).float().mean() == pytest.approx(
        done.selection.scores["forget"], abs=1e-3
    )


def test_the_same_call_gives_the_same_weights_and_a_directory_keeps_members(trained, tmp_path):
    model, forget, retain = trained
    first = unlearn(model, forget, retain, pool=POOL)
    kept = unlearn(model, forget, retain, pool=POOL, directory=tmp_path)
    times = {p: p.stat().st_mtime_ns for p in tmp_path.glob("0*.safetensors")}
    again = unlearn(model, forget, retain, pool=POOL, directory=tmp_path)
    assert len(times) == 4 and {p: p.stat().st_mtime_ns for p in tmp_path.glob("0*.safetensors")} == times
    for name, value in first.model.state_dict().items():
        assert torch.equal(kept.model.state_dict()[name], value) and torch.equal(again.model.state_dict()[name], value)
    other = unlearn(model, forget, retain, pool=POOL, directory=tmp_path, seed=1)
    assert not torch.equal(other.model.state_dict()["0.weight"], first.model.state_dict()["0.weight"])
    moved = copy.deepcopy(model)
    moved[0].bias.data += 0.01
    anew = unlearn(moved, forget, retain, pool=POOL)
    taken = unlearn(moved, forget, retain, pool=POOL, directory=tmp_path)
    assert torch.equal(anew.model.state_dict()["0.bias"], taken.model.state_dict()["0.bias"])


def test_nothing_assumes_a_classifier(trained):
    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, i):
            return {"x": torch.full((2,), i / 40), "y": torch.tensor([2 * i / 40])}

    model = nn.Linear(2, 1)
    scores = []

    def evaluate(m):
        error = float((m(torch.ones(1, 2)) - 2).abs())
        scores.append(error)
        return {"forget": 100 / (1 + error), "retain": 90.0}

    done = unlearn(
        model, Rows(),
        forward=lambda m, batch: m(batch["x"]), loss=lambda out, batch: (out - batch["y"]).pow(2).mean(),
        evaluate=evaluate, pool={"grid": {"lr": [1e-2, 1e-3], "epochs": [3]}}, method="uniform",
        selection={"max_alpha": 1.0, "search": "grid"},
    )  # fmt: skip
    assert len(scores) == 21 and done.alpha == 1.0 and done.consensus == 1.0


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

    def correct(module, data):
        x, y = data.tensors
        return 100 * float((module(x).argmax(1) == y).float().mean())

    from negmerge.scores import membership_svc_confidence

    def attack(module):
        answers = [(module(data.tensors[0]).detach().double().softmax(1), data) for data in (retain, unseen, forget)]
        sure = [shares.gather(1, data.tensors[1][:, None])[:, 0] for shares, data in answers]
        return membership_svc_confidence(*sure, seed=7)

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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selection": {"objective": "match-holdout"}}, "match-holdout needs validation"),
        ({"selection": {"objective": "match-reference"}}, "match-reference needs validation"),
        (
            {"selection": {"objective": "match-reference"}, "validation": TensorDataset(torch.ones(2, 6))},
            "match-reference needs reference",
        ),
        ({"reference": nn.Linear(6, 3)}, "retain-floor does not look at a reference"),
        (
            {"selection": {"objective": "match-reference", "floor": 0.9}},
            "match-reference knows no floor: leave floor and floor_on out",
        ),
        (
            {"selection": {"objective": "match-holdout"}, "evaluate": lambda m: {"forget": 1.0, "retain": 1.0}},
            "must return 'holdout'",
        ),
    ],
)
def test_an_objective_that_lacks_something(trained, changes, message):
    model, forget, retain = trained
    with pytest.raises(InputError, match=message):
        unlearn(model, forget, retain, pool={"grid": {"lr": [0.01], "epochs": [1]}}, method="uniform", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"retain": None}, r"give retain \(a data set\) or evaluate"),
        ({"forget": TensorDataset(torch.ones(0, 6))}, "the forget set is empty"),
        ({"pool": {"grid": {"lrr": [1]}}}, "'lrr' is no training setting"),
        ({"pool": {"gird": {}}}, r"unlearn: pool.grid: Field required|unlearn: pool.gird"),
        (
            {"pool": {"train": {"augment": "flip"}, "grid": {"lr": [0.1]}}},
            "augment and label_smoothing belong into your data set",
        ),
        ({"selection": {"floor": 3}}, "unlearn: selection.floor"),
        ({"method": "consensuss"}, "unknown method 'consensuss'"),
        ({"settings": {"threshold": 0.1}}, r"threshold must be from 0\.5"),
    ],
)
def test_bad_requests(trained, changes, message):
    model, forget, retain = trained
    arguments = {"forget": forget, "retain": retain, "pool": POOL, **changes}
    with pytest.raises(InputError, match=message):
        unlearn(model, arguments.pop("forget"), arguments.pop("retain"), **arguments)
