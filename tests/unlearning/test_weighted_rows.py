"""Rows whose vector is weighted by importance, or taken at another model, against the same made by hand."""

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from negmerge.checkpoints import read_state_dict
from negmerge.errors import InputError
from negmerge.experiment.config import check_config
from negmerge.experiment.methods import needs_of
from negmerge.experiment.workload import workload
from negmerge.merging.engine import merge_vector
from negmerge.training.settings import TrainSettings
from negmerge.unlearning.gradients import fisher_diagonal
from negmerge.unlearning.methods import importance, msa
from negmerge.unlearning.methods.importance import importance_of

DIGITS = {
    "name": "digits",
    "model": {"family": "small-cnn"},
    "data": {"source": "digits", "forget": {"classes": ["3"]}},
    "base": {"train": {"epochs": 2}},
    "pool": {"grid": {"lr": [1e-3, 3e-3], "epochs": [2, 4]}},
}


def mean_of(members, origin):
    start = read_state_dict(origin)
    states = [read_state_dict(member) for member in sorted(members)]
    floats = [name for name, value in start.items() if value.is_floating_point()]
    return {name: sum(state[name] - start[name] for state in states) / len(states) for name in floats}


def assert_vector(found, expected):
    vector = read_state_dict(found)
    for name, value in vector.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-8)
    assert len(vector) > 4 and any(value.abs().max() > 0 for value in vector.values())


def test_importance_by_hand():
    own, other = [torch.tensor([4.0, 0.0]), torch.tensor([[0.0, 4.0]])], [torch.tensor([4.0, 0.0]), torch.zeros(1, 2)]
    first, second = importance_of(own, other, 2.0, 0.0)
    assert first.tolist() == pytest.approx([4 / 12, 0.0]) and second.tolist() == [[0.0, 1.0]]
    first, second = importance_of(own, None, 0.0, 1.0)  # the mean of F_f is 2
    assert first.tolist() == pytest.approx([4 / 6, 0.0]) and second.tolist() == [[0.0, pytest.approx(4 / 6)]]


@pytest.mark.parametrize("method", ["uniform", "consensus"])
def test_a_row_is_the_merge_times_its_weights(method, make_context, tmp_path):
    context = make_context("importance")
    settings = importance.Settings(method=method, weight=2.0, samples=8)
    outcome = importance.unlearn(context, settings)
    data, task = context.data, context.data.task
    model = task.open(context.base)
    rows = {part: importance._sample(data, part, getattr(data, part), 8) for part in ("forget", "retain")}
    assert all(len(own) == 8 and set(own.tolist()) <= set(getattr(data, p).tolist()) for p, own in rows.items())
    own, other = (fisher_diagonal(data, model, some) for some in rows.values())
    mean = torch.cat([values.flatten() for values in own]).double().mean()
    merge_vector(context.base, context.members, tmp_path / "plain.safetensors", method=method)
    plain = read_state_dict(tmp_path / "plain.safetensors")
    names = [name for name, _ in model.named_parameters()]
    weights = {n: f / (f + 2 * r + 1e-6 * mean) for n, f, r in zip(names, own, other, strict=True)}
    assert_vector(outcome.vector, {name: value * weights.get(name, 1.0) for name, value in plain.items()})
    assert outcome.seconds["importance"] > 0 and outcome.selection.alpha > 0
    beside = replace(make_context("importance", "b"), common=context.common)  # another row of the same run
    others = importance.unlearn(beside, settings)
    assert others.seconds["importance"] == outcome.seconds["importance"]  # made once for all rows


def test_vectors_at_the_base_are_those_of_the_pool(make_context):
    context = make_context("msa")
    outcome = msa.unlearn(context, msa.Settings(origin="base"))
    assert_vector(outcome.vector, mean_of(context.members, context.base))
    members, _ = context.train_pool(context.base, context.data.forget, None)
    pool = [read_state_dict(member) for member in context.members]
    assert all(torch.equal(v, pool[i][n]) for i, m in enumerate(members) for n, v in read_state_dict(m).items())


def test_vectors_at_the_start_and_against_retain_rows(make_context):
    context = make_context("msa")
    grid = {"lr": [1e-3, 3e-3], "epochs": [1]}
    outcome = msa.unlearn(context, msa.Settings(retain=0.5, grid=grid))
    origin = context.start()
    twins = context.data.twin_rows()
    assert len(twins) == len(context.data.forget) and set(twins.tolist()) <= set(context.data.retain.tolist())
    forget, _ = context.train_pool(origin, context.data.forget, grid)
    retain, _ = context.train_pool(origin, twins, grid)
    assert len(forget) == len(retain) == 2
    parts = mean_of(forget, origin), mean_of(retain, origin)
    assert_vector(outcome.vector, {name: value - 0.5 * parts[1][name] for name, value in parts[0].items()})


def test_what_rows_need_and_refuse(tmp_path):
    assert needs_of("importance", {"weight": 0}) == ("pool", "forget")
    assert needs_of("importance", {"against": "validation"}) == ("pool", "forget", "validation")
    assert needs_of("msa", {}) == ("forget",) and needs_of("msa", {"retain": 1.0}) == ("forget", "retain")
    with pytest.raises(InputError, match="unknown method"):
        importance.Settings(method="uniforn")
    with pytest.raises(InputError, match="'lrr' is no training setting"):
        msa.Settings(grid={"lrr": [1.0]})
    with pytest.raises(ValidationError):
        msa.Settings(retain=-1)
    lost = {"name": "msa", "origin": str(tmp_path / "none.safetensors")}
    with pytest.raises(InputError, match=r"method msa: .*none.safetensors: no such file"):
        check_config({**DIGITS, "methods": [lost]})
    given = {**DIGITS, "base": {"checkpoint": "base.safetensors"}, "methods": ["msa"]}
    with pytest.raises(InputError, match="method msa: nobody knows where the training of a base that was given began"):
        check_config(given)


@pytest.mark.parametrize("name", ["alpha-by-layer", "contrast", "importance", "msa", "two-step", "unlearning-pool"])
@pytest.mark.parametrize(
    ("merge", "message"),
    [
        ({"method": "uniforn"}, "unknown method 'uniforn'"),
        ({"method": "salun"}, "'salun' does not merge checkpoints"),
        ({"method": "ties", "settings": {"density": 7}}, "method ties: density must be a number above 0"),
        ({"method": "uniform", "settings": {"density": 0.2}}, "method uniform: it does not take 'density'"),
    ],
)
def test_a_row_refuses_a_wrong_merge_before_anything_is_trained(name, merge, message):
    with pytest.raises(InputError, match=rf"^config: method {name}: .*{message}"):
        check_config({**DIGITS, "methods": [{"name": name, **merge}]})


def test_the_work_of_own_pools_counts():
    rows = {"forget": 10, "retain": 100}
    config = check_config({**DIGITS, "methods": [{"name": "msa", "retain": 1.0}]})
    passes = sum(TrainSettings(epochs=e).epochs for e in (2, 4)) * 2 * 10  # two rates
    assert workload(config, 4, rows).trained == 2 * passes and workload(config, 4, rows).vectors == 1


@pytest.mark.parametrize(
    ("row", "trained"),
    [
        ({"name": "contrast"}, (2 + 4) * 2 * 10),  # a twin of each member, on as many rows
        ({"name": "two-step", "members": 2, "share": 0.5}, (2 + 4) * 10 // 2),
        ({"name": "unlearning-pool", "epochs": 3}, 2 * 2 * 3 * 10),  # two rates, twice, on forget rows alone
    ],
)
def test_a_dry_run_counts_what_rows_train_themselves(row, trained):
    assert workload(check_config({**DIGITS, "methods": [row]}), 4, {"forget": 10, "retain": 100}).trained == trained


def test_a_pool_of_no_runs_is_refused():
    with pytest.raises(InputError, match=r"grid.lr: give a list of at least one value"):
        check_config({**DIGITS, "methods": [{"name": "unlearning-pool", "grid": {"lr": []}}]})
