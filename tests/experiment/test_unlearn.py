"""`unlearn`: a module of one's own, in memory."""

import copy
import json

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from negmerge import unlearn
from negmerge.checkpoints import read_state_dict
from negmerge.errors import InputError
from negmerge.experiment.exporting.export import export
from negmerge.experiment.record import verify_run
from negmerge.tasks.user.task import UserRows

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
    shown = done._repr_html_()
    assert shown.startswith("<table><caption>unlearn: forget 100 rows") and "<td>consensus</td>" in shown
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


def test_the_same_call_gives_the_same_weights_and_a_directory_keeps_the_run(trained, tmp_path):
    model, forget, retain = trained
    seen = []
    first = unlearn(model, forget, retain, pool=POOL)
    kept = unlearn(model, forget, retain, pool=POOL, directory=tmp_path)
    again = unlearn(
        model, forget, retain, pool=POOL, directory=tmp_path, on_event=lambda event: seen.append(event["event"])
    )
    assert seen == [] and again.results == kept.results and len(list(tmp_path.glob("private/pool/*"))) == 4
    for name, value in first.model.state_dict().items():
        assert torch.equal(kept.model.state_dict()[name], value)
        assert torch.equal(again.model.state_dict()[name], value)
    shipped = export(tmp_path, tmp_path.with_name("shipped"))
    assert read_state_dict(shipped.path / "model.safetensors").keys() == kept.model.state_dict().keys()
    assert verify_run(tmp_path) > 3 and 'id="verdict"' in (tmp_path / "report.html").read_text()


def test_a_directory_takes_over_only_what_was_made_from_the_same(trained, tmp_path):
    model, forget, retain = trained
    small = {"pool": {"grid": {"lr": [1e-2], "epochs": [1]}}, "method": "uniform", "directory": tmp_path}
    unlearn(model, forget, retain, **small)
    moved = copy.deepcopy(model)
    moved[0].bias.data += 0.01
    for what, arguments in {
        "model": (moved, forget, retain),
        "forget": (model, TensorDataset(*(part[1:] for part in forget.tensors)), retain),
        "retain": (model, forget, forget),
    }.items():
        with pytest.raises(InputError, match=f"holds a run of another config(.|\n)*{what}: "):
            unlearn(*arguments, **small)
    with pytest.raises(InputError, match=r"another config(.|\n)*loss: "):
        unlearn(model, forget, retain, loss=lambda out, batch: 2 * nn.functional.cross_entropy(out, batch[1]), **small)
    with pytest.raises(InputError, match=r"another config(.|\n)*- 1"):
        unlearn(model, forget, retain, seed=1, **small)


def test_what_cannot_be_hashed_is_named_by_a_key(trained, tmp_path):
    model, forget, retain = trained
    weight = torch.tensor(2.0)

    def loss(out, batch):
        return weight * nn.functional.cross_entropy(out, batch[1])

    class Noisy(torch.utils.data.Dataset):
        def __len__(self):
            return len(forget)

        def __getitem__(self, i):
            x, y = forget[i]
            return x + torch.randn(()), y

    small = {"pool": {"grid": {"lr": [1e-2], "epochs": [1]}}, "method": "uniform"}
    for arguments, what in (
        ({"forget": forget, "loss": loss}, "loss"),
        ({"forget": Noisy()}, "forget"),
        ({"forget": Noisy(), "loss": loss}, "forget, loss"),
    ):
        place = tmp_path / what
        with pytest.raises(InputError, match=f"unlearn: {what} cannot be hashed .*: give key"):
            unlearn(model, retain=retain, directory=place, **arguments, **small)
        assert not place.exists()
        unlearn(model, retain=retain, directory=place, key="a", **arguments, **small)
        with pytest.raises(InputError, match=r"another config(.|\n)*key b"):
            unlearn(model, retain=retain, directory=place, key="b", **arguments, **small)


def test_any_method_that_the_model_and_data_allow(trained):
    model, forget, retain = trained
    settings = {"lr": 0.05, "epochs": 4, "batch_size": 32}
    small = {"pool": {"grid": {"lr": [1e-2], "epochs": [1]}}}
    for method in ("salun", "random-labels", "fine-tune", "influence", "boundary-expanding"):
        own = {"scale": 1.0, "samples": 50} if method == "influence" else settings
        done = unlearn(model, forget, retain, method=method, settings=own, **small)
        assert done.selection is None and done.alpha == 0.0 and not done.model.training
        row = done.results["methods"][method]
        assert row["retain"] > 80 and not torch.equal(done.model[0].weight, model[0].weight)
        assert repr(done).startswith(f"Unlearned({method}: forget {row['forget']:.1f}, retain ")
    searched = unlearn(model, forget, retain, method="gradient-ascent", settings={"lr": [1e-3, 1e-2]}, **small)
    assert searched.results["methods"]["gradient-ascent"]["search"]["winner"]["lr"] in (1e-3, 1e-2)
    for method, what in (
        ("retrain", "models that can be trained from scratch"),
        ("sisa", "models that can be trained from scratch"),
        ("boundary-shrink", "inputs that can be moved across a boundary"),
    ):
        with pytest.raises(InputError, match=f"the method {method} needs {what}, which the task user does not have"):
            unlearn(model, forget, retain, method=method, **small)
    with pytest.raises(InputError, match=r"the method fine-tune needs retain \(a data set\)"):
        unlearn(model, forget, evaluate=lambda m: {"forget": 1.0, "retain": 1.0}, method="fine-tune", **small)


def test_what_is_returned(trained, tmp_path):
    model, forget, retain = trained
    seen = []
    done = unlearn(model, forget, retain, pool=POOL, report=tmp_path / "page", on_event=seen.append)
    names = {"results.json", "record.json", "split.json", "report.html"}
    assert {file.name for file in (tmp_path / "page").iterdir()} == names
    listed = json.loads((tmp_path / "page" / "split.json").read_text())["forgotten"]
    assert [row["id"] for row in listed] == [str(i) for i in range(len(forget))]
    assert len({row["hash"] for row in listed}) == len(forget)
    assert listed[-1]["hash"] in (tmp_path / "page" / "report.html").read_text()
    saved = read_state_dict(done.save(tmp_path / "new" / "model.safetensors"))
    assert all(torch.equal(saved[name], value) for name, value in done.model.state_dict().items())
    assert len(repr(done)) < 100 and f"α = {done.alpha:g}" in repr(done) and "4 members" in repr(done)
    assert [score["name"] for score in done.results["scores"]] == ["forget", "retain", "retain_loss"]
    assert done.results["task"]["noun"] == "row" and {"stage-started", "trained", "evaluated"} <= {
        event["event"] for event in seen
    }


def test_a_row_is_named_by_its_index_in_the_whole_data_set_and_hashed_unless_it_changes():
    class Noisy(TensorDataset):
        def __getitem__(self, index):
            return torch.randn(3)

    x = torch.arange(12.0).view(6, 2)
    data = TensorDataset(x)
    rows = UserRows((Subset(Subset(data, [5, 4, 3]), [2, 0]), Noisy(x)), "")
    assert len(rows) == 8 and rows.ids[:3] == ["3", "5", "0"]
    assert rows.row_hash(0) == UserRows((data,), "").row_hash(3) != rows.row_hash(1)
    assert rows.row_hash(2) is None


def test_nothing_left_to_forget_is_a_warning(trained):
    model, _, retain = trained
    x, y = retain.tensors
    wrong = TensorDataset(x[:40], (y[:40] + 1) % 3)
    done = unlearn(model, wrong, retain, pool={"grid": {"lr": [1e-4], "epochs": [1]}}, selection={"max_alpha": 1.0})
    assert done.alpha == 0.0 or done.selection.scores["forget"] == 0.0
    assert any(line.startswith("weak-forgetting") for line in done.warnings) and "2 warnings)" in repr(done)


class Mapped(torch.utils.data.Dataset):
    """Rows as mappings, as tokenisers make them."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        x, y = self.data[i]
        return {"inputs": x, "labels": y}


class Answer:
    """Outputs as transformers returns them."""

    def __init__(self, logits, loss):
        self.logits, self.loss = logits, loss


class Wrapped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, inputs, labels):
        logits = self.inner(inputs)
        return Answer(logits, nn.functional.cross_entropy(logits, labels))


def test_batches_may_be_mappings_and_made_by_ones_own_function(trained):
    model, forget, retain = trained
    plain = unlearn(model, forget, retain, pool=POOL)
    mapped = unlearn(Wrapped(model), Mapped(forget), Mapped(retain), pool=POOL)
    assert mapped.alpha == plain.alpha
    assert [p.scores for p in mapped.selection.curve] == [p.scores for p in plain.selection.curve]
    assert torch.equal(mapped.model.inner[0].weight, plain.model[0].weight)
    calls = []

    def collate(rows):
        calls.append(len(rows))
        return torch.stack([x for x, _ in rows]), torch.stack([y for _, y in rows])

    again = unlearn(model, forget, retain, pool=POOL, collate_fn=collate, loader={"drop_last": False})
    assert calls and torch.equal(again.model[0].weight, plain.model[0].weight)
    labels = unlearn(Wrapped(model), Mapped(forget), Mapped(retain), pool=POOL, method="random-labels",
                     settings={"lr": 0.05, "epochs": 2})  # fmt: skip
    assert labels.results["methods"]["random-labels"]["forget"] < 100


X, Y = torch.randn(32, 6, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"forget": DataLoader(TensorDataset(X, Y))}, "forget is a DataLoader; give its data set"),
        ({"loader": {"batch_size": 3}}, "loader: batch_size is set by the run; batch_size stands in pool"),
        ({"retain": iter([1])}, r"retain is a list_iterator; give a data set with len\(\)"),
        ({"model": nn.Linear(6, 3).requires_grad_(False)}, "every parameter is frozen"),
        ({"model": nn.ReLU()}, "it has no parameters"),
        ({"model": "a"}, "model is a str; give a torch module"),
        ({"forget": TensorDataset(X, X[:, 0])}, r"labels are torch.float32, no class numbers .* give loss\("),
        ({"model": nn.Linear(6, 1)}, "the model has one output a row, no logits of classes; give loss"),
        ({"model": nn.Sequential(nn.Linear(6, 1), nn.Flatten(0))}, r"must be logits \[rows, classes\], got \[32\]"),
        ({"forget": TensorDataset(X)}, "a batch has no labels"),
        ({"forget": TensorDataset(X, Y + 1)}, r"labels \[32\] from 1 to 3 do not fit logits \[32, 3\]"),
        ({"loss": lambda out, batch: out}, r"loss\(outputs, batch\) must return a finite scalar tensor, got \[32, 3\]"),
        ({"loss": lambda out, batch: out.detach().sum()}, "the loss does not depend on a parameter"),
        ({"evaluate": lambda m: 3}, "evaluate.* must return a mapping of scores, got int"),
        ({"evaluate": lambda m: {"forget": 101, "retain": 1}}, "must return 'forget' as a percentage .* got 101"),
    ],
)
def test_what_is_not_understood_is_refused_before_anything_is_trained(changes, message):
    arguments = {"model": nn.Linear(6, 3), "forget": TensorDataset(X, Y), "retain": TensorDataset(X, Y), **changes}
    seen = []
    with pytest.raises(InputError, match=message):
        unlearn(**arguments, pool=POOL, on_event=seen.append)
    assert seen == []


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
    assert len(scores) == 1 + 21 + 2  # before the training, for each α, and of base and result at the end
    assert done.alpha == 1.0 and done.consensus == 1.0 and done.results["base"]["retain"] == 90.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selection": {"objective": "match-holdout"}}, "match-holdout needs validation"),
        ({"selection": {"objective": "match-reference"}}, "match-reference needs validation"),
        (
            {"selection": {"objective": "match-reference"}, "validation": TensorDataset(torch.ones(2, 6))},
            "match-reference needs reference",
        ),
        ({"reference": nn.Linear(6, 3)}, "match-reference needs validation"),
        (
            {"reference": nn.Linear(6, 3), "selection": {"objective": "retain-floor"}},
            "retain-floor does not look at a reference",
        ),
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
        ({"forget": TensorDataset(torch.ones(0, 6))}, "the forget set is empty; give at least one row"),
        ({"pool": {"grid": {"lrr": [1]}}}, "'lrr' is no training setting"),
        ({"pool": {"gird": {}}}, r"unlearn: pool.grid: Field required|unlearn: pool.gird"),
        ({"pool": {"train": {"augment": "flip"}, "grid": {"lr": [0.1]}}}, "augment and label_smoothing belong into"),
        ({"selection": {"floor": 3}}, "unlearn: selection.floor"),
        ({"method": "consensuss"}, "unknown method 'consensuss'"),
        ({"settings": {"threshold": 0.1}}, r"threshold must be a number from 0\.5"),
    ],
)
def test_bad_requests(trained, changes, message):
    model, forget, retain = trained
    arguments = {"forget": forget, "retain": retain, "pool": POOL, **changes}
    with pytest.raises(InputError, match=message):
        unlearn(model, arguments.pop("forget"), arguments.pop("retain"), **arguments)
