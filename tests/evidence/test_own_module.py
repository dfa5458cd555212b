"""Evidence on a user's own module and data sets: rows that were memorised by construction, and hidden knowledge."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import negmerge
from negmerge.checkpoints import write_state_dict
from negmerge.errors import InputError
from negmerge.evidence.protocol import checked_settings, read_test
from negmerge.evidence.subject import Subject
from negmerge.requests.split_files import PARTS
from negmerge.tasks.user.batches import Loading, forward_batch, loss_of_batch
from negmerge.tasks.user.task import UserClassifier


def drawn(n, seed, width=16):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def labelled(x, seed=None):
    """Rows with the class that a rule gives them, or with one drawn at random, which can only be memorised."""
    if seed is None:
        return TensorDataset(x, (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long())
    return TensorDataset(x, torch.randint(4, (len(x),), generator=torch.Generator().manual_seed(seed)))


SETS = {
    "forget": labelled(drawn(60, 1), seed=2),
    "retain": labelled(drawn(400, 3)),
    "validation": labelled(drawn(200, 4)),
}


def network(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 4))


def trained(names, seed, steps=150):
    net = network(seed)
    x, y = (torch.cat([SETS[name].tensors[i] for name in names]) for i in (0, 1))
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimiser.step()
    return net.eval()


@pytest.fixture(scope="module")
def models():
    made = {"base": trained(["retain", "forget"], 0), "reference": trained(["retain"], 0)}
    return {**made, "control": trained(["retain"], 1), "again": trained(["retain"], 2)}


@pytest.fixture
def judge(models, tmp_path):
    task = UserClassifier(network(0), SETS, forward_batch, loss_of_batch, Loading(None, {}), classes=4)
    files = {name: tmp_path / f"{name}.safetensors" for name in models}
    for name, file in files.items():
        write_state_dict(file, task.trained(models[name]))
    parts = {**{name: torch.empty(0, dtype=torch.int64) for name in PARTS}, **task.parts()}
    parts["test"] = parts["validation"]
    memo = {}

    def found(name, model):
        subjects = (
            Subject(task, parts, files["base"], files["reference"], files[one], 0, "rows", memo=memo)
            for one in (model, "control")
        )
        one, control = (read_test(name).run(subject, checked_settings(name, {})) for subject in subjects)
        return one.beside([control])

    return found


@pytest.mark.parametrize("name", ["quantisation", "pruning", "fine-tuning", "disagreement", "who-paid", "three-sample"])
def test_memorised_rows_are_found_and_a_further_retrain_is_not(judge, name):
    base, again = judge(name, "base").counted, judge(name, "again").counted
    assert base.informative and base.position == pytest.approx(1.0) and not base.passes
    assert again.informative and again.passes


def test_the_most_memorised_rows_are_those_that_retrain_has_wrong(judge):
    hardest, others = judge("who-paid", "base").readings
    assert (hardest.base, hardest.reference) == (100.0, 0.0) and others.reference > 10.0
    facts = judge("who-paid", "base").facts
    assert facts["memory"]["hardest"] > 0.9 > facts["memory"]["others"] and facts["groups"] == {
        "retain": [],
        "test": [],
    }


class Corners(nn.Module):
    """Answers by three hidden units of (x, y): `product` makes the third |x + y|, which a line on x and y is not."""

    def __init__(self, product):
        super().__init__()
        self.product = nn.Parameter(torch.tensor(float(product)))
        self.hidden, self.last = nn.Identity(), nn.Linear(3, 2)

    def forward(self, x):
        third = self.product * x.sum(1, keepdim=True).abs()
        return self.last(self.hidden(torch.cat([x, third], 1)))


@pytest.fixture
def corners(tmp_path):
    """A subject of each model: the kind to forget are rows whose two inputs have one sign."""
    signs = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]]).repeat(40, 1)
    rows = TensorDataset(signs + 0.3 * drawn(160, 5, width=2), (signs.prod(1) < 0).long())
    task = UserClassifier(Corners(1), {"validation": rows}, forward_batch, loss_of_batch, Loading(None, {}), classes=2)
    kind = rows.tensors[1] == 0
    parts = {**{name: torch.empty(0, dtype=torch.int64) for name in PARTS}, "test": (~kind).nonzero()[:, 0]}
    parts["test_forget"] = kind.nonzero()[:, 0]
    files = {}
    for name, product in (("base", 1), ("reference", 0), ("head", 1), ("again", 0)):
        net = Corners(product)
        nn.init.zeros_(net.last.weight)
        net.last.bias.data = torch.tensor([-20.0, 0.0]) if name == "head" else torch.zeros(2)
        files[name] = tmp_path / f"{name}.safetensors"
        write_state_dict(files[name], task.trained(net))
    return lambda model: Subject(task, parts, files["base"], files["reference"], files[model], 0, "rows")


def test_a_probe_finds_what_only_the_head_lost(corners):
    found = {name: read_test("probe").run(corners(name), checked_settings("probe", {})) for name in ("head", "again")}
    assert found["head"].counted.informative and found["head"].counted.position == pytest.approx(1.0)
    assert found["head"].counted.base > 95.0 > 65.0 > found["head"].counted.reference
    assert found["again"].counted.passes and found["again"].counted.position == 0.0
    named = read_test("probe").run(corners("head"), checked_settings("probe", {"layer": "hidden"}))
    assert named.facts["share"] == found["head"].facts["share"]
    with pytest.raises(InputError, match=r"probe: the model has no layer 'hiden'.*did you mean 'hidden'"):
        read_test("probe").run(corners("head"), checked_settings("probe", {"layer": "hiden"}))


POOL = {"train": {"optimizer": "adamw", "batch_size": 20}, "grid": {"lr": [1e-3, 3e-3], "epochs": [2]}}


@pytest.mark.heavy(5)
def test_unlearn_ends_in_a_verdict(models):
    done = negmerge.unlearn(
        models["base"],
        **SETS,
        reference=models["reference"],
        pool=POOL,
        evidence={"tests": ["quantisation", "pruning", "who-paid"], "most": 200},
    )
    evidence = done.results["evidence"]
    assert [one["name"] for one in evidence["tests"]] == ["own-rows", "quantisation", "pruning", "who-paid"]
    assert evidence["method"] == "consensus projected" and evidence["controls"] == 0 and evidence["most"] == 200
    assert done.verdict == done.results["verdict"]["word"] != "forgotten"
    bare = negmerge.unlearn(models["base"], **SETS, pool=POOL, evidence=["pruning"])
    assert bare.verdict in ("not", "partly", "too far", "not refuted")


def test_what_unlearn_refuses_of_evidence(models):
    for evidence, message in (
        (["prunning"], "unknown test 'prunning'"),
        ({"tests": [], "mos": 3}, "unlearn: evidence"),
        ({"tests": ["pruning"], "method": "uniform"}, "no row 'uniform'"),
    ):
        with pytest.raises(InputError, match=message):
            negmerge.unlearn(models["base"], **SETS, pool=POOL, evidence=evidence)
