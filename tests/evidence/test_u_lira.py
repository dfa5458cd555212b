"""U-LiRA where the answer is known: by hand, on draws, on networks that memorised or never saw, and in a run."""

import json
from dataclasses import replace
from statistics import NormalDist

import pytest
import torch
from test_hardest import SOURCE
from test_membership import network, rows
from torch import nn

from negmerge.checkpoints import read_state_dict, write_state_dict
from negmerge.errors import InputError
from negmerge.evidence.protocol import checked_settings, read_test
from negmerge.evidence.subject import Shadows, Subject
from negmerge.evidence.tests.u_lira import fit_normals, held_out_ratios, log_ratio
from negmerge.execution import torch_threads
from negmerge.experiment import shadows as making
from negmerge.experiment.config import check_config
from negmerge.experiment.halves import deal_shadows
from negmerge.experiment.pipeline import run, verify_run
from negmerge.experiment.plan import plan
from negmerge.experiment.prepare import load_unwritten
from negmerge.requests.hardest import deal_halves
from negmerge.requests.split_files import PARTS
from negmerge.tasks.user.batches import Loading, forward_batch, loss_of_batch
from negmerge.tasks.user.task import UserClassifier

TEST = read_test("u-lira")
PAIRS = 17


def draw(seed):
    return torch.Generator().manual_seed(seed)


def test_the_likelihood_ratio_by_hand():
    margins = torch.tensor([[3.0, 0.0], [1.0, 1.0], [5.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    inside = torch.tensor([[True, True], [False, False], [True, False], [False, True]])
    found = fit_normals(margins, inside)
    assert found.seen.tolist() == [4.0, 0.5] and found.unseen.tolist() == [1.0, 0.5]
    assert found.variance.tolist() == [(1 + 1) / 2, 4 * 0.25 / 2]
    ratio = NormalDist(4.0, 1.0).pdf(2.0) / NormalDist(1.0, 1.0).pdf(2.0)
    assert log_ratio(torch.tensor([2.0, 9.0]), found).exp().tolist() == pytest.approx([ratio, 1.0])
    alike = fit_normals(torch.full((4, 2), 7.0, dtype=torch.float64), inside)
    assert log_ratio(torch.tensor([7.0, 7.0]), alike).tolist() == [0.0, 0.0]  # no division by a variance of nothing


@pytest.mark.parametrize(("apart", "expected"), [(0.0, 50.0), (1.0, 73.0), (-1.0, 73.0)])
def test_draws_that_lie_apart_are_told_apart_and_others_are_not(apart, expected):
    # Two Normals a deviation apart have an AUC of Φ(1 / √2) = 76 % where they are known; less where they are fitted.
    inside = deal_halves(300, 2 * PAIRS, draw(0))
    margins = torch.randn(2 * PAIRS, 300, generator=draw(1), dtype=torch.float64) + apart * inside
    ratios = held_out_ratios(margins, inside)
    below = (ratios[inside][:, None] > ratios[~inside][None]).double().mean()
    assert 100 * float(below) == pytest.approx(expected, abs=2.5)
    rest = torch.ones(2 * PAIRS, dtype=torch.bool)
    rest[4:6] = False
    assert torch.equal(ratios[5], log_ratio(margins[5], fit_normals(margins[rest], inside[rest])))


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """Networks on rows with random labels: base, three Retrains, and shadows, trained side by side as one stack."""
    sets = {"forget": rows(80, 1, at_random=True), "retain": rows(240, 3), "validation": rows(80, 4)}
    folder = tmp_path_factory.mktemp("u-lira")
    net = network(0)
    task = UserClassifier(net, sets, forward_batch, loss_of_batch, Loading(None, {}), classes=4)
    parts = {**{name: torch.empty(0, dtype=torch.int64) for name in PARTS}, **task.parts()}
    halves = deal_halves(80, 2 * PAIRS, draw(2))
    names = ["base", "reference", "control", "again", *(f"shadow-{i}" for i in range(2 * PAIRS))]
    saw = torch.cat([torch.ones(1, 80, dtype=torch.bool), torch.zeros(3, 80, dtype=torch.bool), halves])
    states = train_stack([network(i).state_dict() for i in range(len(names))], sets, saw)
    files = {name: folder / f"{name}.safetensors" for name in names}
    for name, state in zip(names, states, strict=True):
        write_state_dict(files[name], state)
    bases = tuple(files[name] for name in names[4:])
    blurred = []  # what never saw any of the rows, each a little different
    for i in range(2 * PAIRS):
        state = read_state_dict(files["reference"])
        noise = draw(100 + i)
        write_state_dict(
            folder / f"blurred-{i}.safetensors",
            {key: value + 0.02 * torch.randn(value.shape, generator=noise) for key, value in state.items()},
        )
        blurred.append(folder / f"blurred-{i}.safetensors")
    seen = tuple(parts["forget"][half] for half in halves)

    def find(unlearned, model, count=2 * PAIRS, **changes):
        after = {"alpha 0": bases, "never seen": tuple(blurred)}[unlearned]
        subject = Subject(task, parts, files["base"], files["reference"], files[model], 0, "rows")
        subject = replace(subject, references=(files["control"],), **changes)
        subject = replace(subject, shadows=lambda n: Shadows(seen[:n], bases[:n], after[:n], 1.0, {"alpha": 0.0}))
        return TEST.run(subject, checked_settings("u-lira", {"shadows": count}))

    return find


def train_stack(states, sets, saw):
    x, y = (torch.cat([sets[name].tensors[i] for name in ("retain", "forget")]) for i in (0, 1))
    weights = torch.cat([torch.ones(len(saw), len(x) - saw.shape[1]), saw.float()], 1)
    stacked = {key: torch.stack([state[key] for state in states]).requires_grad_() for key in states[0]}
    optimiser = torch.optim.AdamW(list(stacked.values()), lr=1e-2)
    with torch_threads(1):
        for _ in range(80):
            optimiser.zero_grad()
            hidden = torch.relu(x @ stacked["0.weight"].mT + stacked["0.bias"][:, None])
            logits = hidden @ stacked["2.weight"].mT + stacked["2.bias"][:, None]
            losses = nn.functional.cross_entropy(logits.flatten(0, 1), y.repeat(len(states)), reduction="none")
            (losses.view_as(weights) * weights).sum(1).div(weights.sum(1)).sum().backward()
            optimiser.step()
    return [{key: value.detach()[i].clone() for key, value in stacked.items()} for i in range(len(states))]


def test_what_was_not_unlearned_is_told_and_what_never_saw_is_not(known):
    kept = known("alpha 0", "base")
    auc, found, model = kept.readings
    assert auc.base > 95.0 and auc.reference == 50.0 and auc.position == 1.0 and auc.informative and not auc.passes
    assert found.position == 1.0 and found.model > 50.0
    assert model.informative and model.position == 1.0 and model.base > 90.0
    assert kept.facts["shadows"] == 34 and kept.facts["fitted"] == 16 and "34 shadow models" in kept.text
    gone = known("never seen", "again")
    auc = gone.readings[0]
    assert auc.informative and auc.passes and auc.model == pytest.approx(50.0, abs=4.0)
    again = known("alpha 0", "again").readings[2]  # a Retrain in the place of the model
    assert again.informative and again.passes and len(again.controls) == 1


def test_few_shadows_say_so_and_none_are_not_made(known):
    few = known("alpha 0", "base", count=6)
    assert few.facts["fitted"] == 2 and few.text.endswith("make a weak attack.")
    assert "1 % are too few" in known("alpha 0", "base", count=8).readings[1].why
    with pytest.raises(InputError, match="u-lira: shadows: Value error, give an even number"):
        checked_settings("u-lira", {"shadows": 35})
    with pytest.raises(InputError, match="u-lira: shadows: Input should be greater than or equal to 6"):
        checked_settings("u-lira", {"shadows": 4})


@pytest.fixture
def asked(tmp_path):
    (tmp_path / "blots.py").write_text(SOURCE)

    def make(shadows=6, **changes):
        forget = changes.pop("forget", {"fraction": 0.06})
        return check_config(
            {
                "name": "shadows",
                "device": "cpu",
                "workers": 1,
                "threads": 1,
                "model": {"family": "small-cnn", "width": 4},
                "data": {
                    "source": {"file": str(tmp_path / "blots.py")},
                    "forget": forget,
                    "validation": {"rows": [200, 240]},
                    "train_rows": [0, 200],
                },
                "base": {"train": {"epochs": 2, "lr": 0.01, "batch_size": 50}},
                "reference": {"train": "base"},
                "pool": {"train": {"batch_size": 32}, "grid": {"lr": [1e-3, 2e-3], "epochs": [1]}},
                "methods": ["consensus"],
                "evidence": {"tests": [{"name": "u-lira", "shadows": shadows}], "controls": 1},
                **changes,
            }
        )

    return make


def test_halves_are_pairs_and_as_large_as_the_request(asked):
    material = load_unwritten(asked())
    forget = material.parts["forget"]
    halves = deal_shadows(material, 6, 0)
    assert [len(seen) for seen in halves.seen] == [12] * 6
    for first, second in zip(halves.seen[::2], halves.seen[1::2], strict=True):
        both = torch.cat([first, second])
        assert len(both.unique()) == 24 and set(forget.tolist()) <= set(both.tolist())
        assert int(torch.isin(first, forget).sum()) == 6 and not torch.isin(both, halves.retain).any()
    assert all(torch.equal(*pair) for pair in zip(deal_shadows(material, 8, 0).seen, halves.seen, strict=False))
    whole = load_unwritten(asked(forget={"classes": ["up"]}))
    assert all(set(seen.tolist()) <= set(whole.parts["forget"].tolist()) for seen in deal_shadows(whole, 6, 0).seen)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.heavy(15)
def test_a_run_makes_shadows_goes_on_after_a_kill_and_states_them(asked, tmp_path, monkeypatch):
    place = tmp_path / "run"
    unlearn, done = making.Shadow.unlearn, []

    def dies(shadow):
        if len(done) == 2:
            raise Killed
        done.append(shadow.number)
        unlearn(shadow)

    with monkeypatch.context() as patched:
        patched.setattr(making.Shadow, "unlearn", dies)
        with pytest.raises(Killed):
            run(asked(), place)
    with monkeypatch.context() as patched:
        patched.setattr(making.Shadow, "unlearn", lambda shadow: (done.append(shadow.number), unlearn(shadow)))
        results = run(asked(), place)
    assert done == [0, 1, 2, 3, 4, 5]
    test = results["evidence"]["tests"][1]
    assert test["name"] == "u-lira" and test["weight"] == "description"
    assert test["facts"]["shadows"] == 6 and test["facts"]["rows_unlearned"] == [12] * 6
    assert test["facts"]["alpha"] == results["methods"]["consensus"]["alpha"] and test["facts"]["seconds"] > 0
    assert verify_run(place) > 0
    kept = {path.name for path in (place / "private" / "shadows" / "3").iterdir()}
    assert kept == {"base", "unlearned", "shadow.json"}
    record = json.loads((place / "record.json").read_text())
    assert any(entry["name"] == "private/shadows/5/unlearned/model.safetensors" for entry in record["subject"])


@pytest.mark.heavy(8)
def test_an_interrupted_run_has_the_results_of_one_that_was_not(asked, tmp_path, monkeypatch):
    tests = ["reversibility", {"name": "u-lira", "shadows": 6}]
    config = asked(methods=[{"name": "uniform", "projection": {"strength": [1, 10]}}], evidence={"tests": tests})
    merge, done = making.Shadow.unlearn, []

    def dies(shadow):
        if len(done) == 3:
            raise Killed
        merge(shadow)
        done.append(shadow.number)

    with monkeypatch.context() as patched:
        patched.setattr(making.Shadow, "unlearn", dies)
        with pytest.raises(Killed):
            run(config, tmp_path / "killed")
    killed, whole = (run(config, tmp_path / name)["evidence"]["tests"][1:] for name in ("killed", "whole"))
    for one, other in zip(killed, whole, strict=True):
        for test in (one, other):
            test.pop("seconds", None)
            test["facts"].pop("seconds", None)
        assert one == other
    for made in sorted((tmp_path / "whole" / "private" / "shadows").rglob("model.safetensors")):
        twin = tmp_path / "killed" / made.relative_to(tmp_path / "whole")
        assert made.read_bytes() == twin.read_bytes()


@pytest.mark.heavy(120)
def test_digits_of_a_small_network_are_told_where_accuracy_is_full(tmp_path):
    config = check_config(
        {
            "name": "digits-u-lira",
            "device": "cpu",
            "threads": 1,
            "workers": 2,
            "model": {"family": "small-cnn", "width": 8},
            "data": {
                "source": "digits",
                "forget": {"fraction": 0.1},
                "validation": {"fraction": 0.1},
                "train_rows": [0, 600],
            },
            "base": {"train": {"epochs": 16, "lr": 3e-3, "batch_size": 64, "schedule": "one-cycle"}},
            "reference": {"train": "base"},
            "pool": {
                "train": {"optimizer": "adamw", "batch_size": 32, "schedule": "cosine"},
                "grid": {"lr": [1e-3, 3e-3], "epochs": [4, 8]},
            },
            "methods": ["consensus"],
            "evidence": {"tests": ["u-lira"]},
        }
    )
    own, test = run(config, tmp_path / "run")["evidence"]["tests"]
    assert not own["counted"]["informative"]
    auc, _, model = test["readings"]
    assert 66.0 < auc["base"] < 76.0 and 50.0 < auc["model"] < auc["base"] and auc["informative"]
    assert max(model["controls"]) < 0.3 and model["base"] - model["reference"] > 8.0


def test_the_plan_counts_the_shadows(asked):
    few, many = ({one["name"]: one["minutes"] for one in plan(asked(n)).as_json()["evidence"]} for n in (6, 60))
    assert many["u-lira"] > 3 * few["u-lira"] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": {"checkpoint": "x"}, "reference": {"train": {"epochs": 1, "lr": 0.1}}}, "this one was given"),
        ({"methods": ["consensus", "fine-tune"], "judged": "fine-tune"}, "fine-tune is no merge of the pool"),
        ({"methods": ["best-single"]}, "best-single is no merge of the pool"),
        ({"methods": [{"name": "uniform", "projection": {"rows": "x.txt"}}]}, "projected by rows of a file"),
    ],
)
def test_what_cannot_be_made_again_is_refused(asked, changes, message):
    from negmerge.experiment.evidence import judged_row
    from negmerge.experiment.halves import check_shadows

    row = changes.pop("judged", None)
    config = asked(**changes, evidence={"tests": ["u-lira"], "method": row})
    with pytest.raises(InputError, match=rf"evidence: u-lira .*{message}.* leave u-lira out"):
        check_shadows(config, judged_row(config))
