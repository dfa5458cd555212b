"""Membership attacks whose answer is known: by hand, and on models that were or were not shown the rows."""

from dataclasses import replace

import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch import nn
from torch.utils.data import TensorDataset

from negmerge.checkpoints import write_state_dict
from negmerge.evidence.protocol import checked_settings, read_test
from negmerge.evidence.subject import Subject
from negmerge.evidence.telling import found_at, shares_below
from negmerge.evidence.tests.membership import relative_log_likelihood, rmia
from negmerge.requests.split_files import PARTS
from negmerge.tasks.user.batches import Loading, forward_batch, loss_of_batch
from negmerge.tasks.user.task import UserClassifier

ALL = ["loss", "rmia", "svc-confidence", "svc-correctness", "svc-entropy", "svc-modified-entropy", "svc-outputs"]


def test_auc_and_true_positives_are_scikit_learns():
    generator = torch.Generator().manual_seed(0)
    mine, others = torch.randn(60, generator=generator) + 1, torch.randn(300, generator=generator)
    truth = torch.cat([torch.ones(60), torch.zeros(300)])
    assert shares_below(mine, others).mean() == pytest.approx(100 * roc_auc_score(truth, torch.cat([mine, others])))
    alarms, found, _ = roc_curve(truth, torch.cat([mine, others]), drop_intermediate=False)
    assert found_at(mine, others, 0.05).mean() == pytest.approx(100 * found[alarms <= 0.05].max())


def test_rmia_by_hand():
    # p = 0.9; models that never saw the row give 0.5 and 0.3: p(x) = (1.3 · 0.4 + 0.7) / 2 = 0.61
    losses, out = -torch.log(torch.tensor([0.9])), -torch.log(torch.tensor([[0.5], [0.3]]))
    assert relative_log_likelihood(losses, out, 0.3).exp().item() == pytest.approx(0.9 / 0.61)
    population = torch.log(torch.tensor([0.5, 1.0, 1.2, 2.0]))
    row = torch.log(torch.tensor([1.2]))
    assert rmia(row, population, 1.0).item() == 0.75  # 1.2 ≥ 1.2 counts
    assert rmia(row, population, 2.0).item() == 0.25


@pytest.fixture(scope="module")
def memorised(tmp_path_factory):
    """Subjects of a network that memorised 80 rows of random labels, or never saw them."""
    sets = {"forget": rows(80, 1, at_random=True), "retain": rows(400, 3), "validation": rows(400, 4)}
    unseen = rows(400, 5, at_random=True)  # of the same kind as the forget rows
    sets["validation"] = TensorDataset(
        *(torch.cat(both) for both in zip(sets["validation"].tensors, unseen.tensors, strict=True))
    )
    folder, task = tmp_path_factory.mktemp("membership"), None
    files = {}
    for name, used, seed in (
        ("base", ("retain", "forget"), 0), ("reference", ("retain",), 0), ("control", ("retain",), 1),
        ("again", ("retain",), 2), ("further", ("retain",), 3),
    ):  # fmt: skip
        net = network(seed)
        x, y = (torch.cat([sets[one].tensors[i] for one in used]) for i in (0, 1))
        optimiser = torch.optim.AdamW(net.parameters(), lr=1e-2)
        for _ in range(100):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimiser.step()
        task = UserClassifier(net, sets, forward_batch, loss_of_batch, Loading(None, {}), classes=4)
        files[name] = folder / f"{name}.safetensors"
        write_state_dict(files[name], task.trained(net))
    parts = {**{name: torch.empty(0, dtype=torch.int64) for name in PARTS}, **task.parts()}
    parts["test"], parts["validation"] = parts["validation"][400:], parts["validation"][:400]
    memo = {}

    def subject(model, references=("control", "further")):
        others = tuple(files[name] for name in references if name != model)
        made = Subject(task, parts, files["base"], files["reference"], files[model], 0, "rows", memo=memo)
        return replace(made, references=others)

    return subject


def rows(n, seed, at_random=False):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 16, generator=generator)
    by_rule = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
    return TensorDataset(x, torch.randint(4, (n,), generator=generator) if at_random else by_rule)


def network(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 4))


def test_every_attack_finds_a_model_that_memorised_and_no_further_retrain(memorised):
    settings = checked_settings("membership", {"attacks": ALL})
    test = read_test("membership")
    found = {name: test.run(memorised(name), settings) for name in ("base", "again")}
    told = {one.name for one in found["base"].readings if one.informative}
    assert {"loss AUC", "RMIA AUC", "svc-confidence", "svc-entropy", "svc-modified-entropy"} <= told
    assert all(one.position == pytest.approx(1.0) for one in found["base"].readings if one.informative)
    control = test.run(memorised("control"), settings)
    again = found["again"].beside([control])
    assert again.counted.passes and not any(one.beyond for one in again.readings)
    assert "RMIA" not in [one.name for one in found["again"].readings if not one.informative and "Retrain" in one.why]


def test_without_further_retrains_rmia_says_so(memorised):
    found = read_test("membership").run(
        memorised("base", references=()), checked_settings("membership", {"attacks": ["rmia"]})
    )
    assert not found.counted.informative and "further Retrains" in found.text


def test_unseen_rows_stand_for_retrain_where_there_is_none(memorised):
    test, settings = read_test("membership"), checked_settings("membership", {})
    found = {
        name: test.against_unseen(replace(memorised(name), reference=None), settings).counted
        for name in ("base", "again", "reference")
    }
    assert found["base"].informative and found["base"].position == pytest.approx(1.0) and not found["base"].passes
    for name in ("again", "reference"):  # models that never saw these rows
        assert found[name].passes and not found[name].beyond
        assert abs(found[name].model - 50.0) < 10.0 and found[name].n == 80
    none = replace(memorised("base"), parts={**memorised("base").parts, "test": torch.empty(0, dtype=torch.int64)})
    assert "no unseen rows" in test.against_unseen(none, settings).text
