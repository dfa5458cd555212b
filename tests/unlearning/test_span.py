"""Coefficients by member and tensor: what they make, and that they find a known combination."""

import pytest
import torch
from torch import nn

from negmerge.checkpoints import write_state_dict
from negmerge.errors import InputError
from negmerge.unlearning.span import Span, margins, quantiles


class Lines:
    """Rows are numbers; a model of two layers with batch normalisation says which of two labels a row has."""

    NAME = "lines"
    rows = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))

    def template(self):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))

    def open(self, checkpoint, device="cpu"):
        from negmerge.checkpoints import read_state_dict

        model = self.template()
        model.load_state_dict(read_state_dict(checkpoint))
        return model.eval()

    def batch(self, rows, device):
        return self.rows[rows]

    def outputs(self, model, batch):
        return model(batch)

    def labels(self, batch):
        return (batch[:, 0] > 0).long()


@pytest.fixture
def pool(tmp_path):
    task, files = Lines(), []
    state = task.template().state_dict()
    for i in range(3):
        generator = torch.Generator().manual_seed(i)
        moved = {
            name: value
            + (0.3 * torch.randn(value.shape, generator=generator) if i and value.is_floating_point() else 0)
            for name, value in state.items()
        }
        moved = {name: value.abs() if "var" in name else value for name, value in moved.items()}
        files.append(tmp_path / f"{i}.safetensors")
        write_state_dict(files[-1], moved)
    return task, files[0], files[1:]


def test_coefficients_make_the_model_that_they_say(pool):
    task, base, members = pool
    span = Span(task, base, members, "cpu")
    coefficients = torch.zeros(2, len(span.units))
    at = span.units.index("2.weight")
    coefficients[0, at], coefficients[1, at] = 2.0, -1.0
    rows = torch.arange(10)
    expected = task.open(base)
    with torch.no_grad():
        own = [task.open(member).state_dict()["2.weight"] for member in members]
        origin = expected[2].weight.clone()
        expected[2].weight.copy_(origin - 2.0 * (own[0] - origin) + (own[1] - origin))
        logits, labels = span.outputs(coefficients, rows)
        assert torch.allclose(logits, expected(task.rows[rows]), atol=1e-6)
    assert torch.equal(labels, task.labels(task.rows[rows]))


def test_own_statistics_are_those_of_the_batch_and_leave_no_trace(pool):
    task, base, members = pool
    span = Span(task, base, members, "cpu", own_statistics=True)
    before = {name: value.clone() for name, value in span.model.state_dict().items()}
    rows = torch.arange(32)
    logits, _ = span.outputs(span.coefficients, rows)
    expected = task.open(base)
    expected[1].train()
    assert torch.allclose(logits, expected(task.rows[rows]), atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in span.model.state_dict().items())
    assert torch.allclose(span.base_outputs(rows)[0], task.open(base)(task.rows[rows]), atol=1e-6)


@pytest.mark.parametrize(("by", "count"), [("member", 1), ("layer", 3), ("tensor", 6)])
def test_a_known_combination_is_found(pool, by, count):
    task, base, members = pool
    span = Span(task, base, members, "cpu", by=by)
    assert len(span.units) == count
    rows, wanted = torch.arange(64), torch.full_like(span.coefficients, 1.5)
    with torch.no_grad():
        aim = span.outputs(wanted, rows)[0]
    losses = span.minimise(
        lambda free, step: (span.outputs(free, rows)[0] - aim).square().mean(), start=0.5, steps=60, lr=0.1
    )
    assert losses[-1] < 0.01 * losses[0]
    delta = span.deltas["0.weight"]
    at = span._unit_of["0.weight"]
    assert torch.allclose(span.vector()["0.weight"], torch.tensordot(span.coefficients[:, at], delta, dims=1))


def test_patterns_and_units_are_checked(pool):
    task, base, members = pool
    assert Span(task, base, members, "cpu", include=[r"^2\."]).units == ["2.weight", "2.bias"]
    with pytest.raises(InputError, match="no parameter merges"):
        Span(task, base, members, "cpu", include=["nothing"])
    with pytest.raises(InputError, match="member, layer or tensor"):
        Span(task, base, members, "cpu", by="row")


def test_margins_and_quantiles_by_hand():
    found = margins(torch.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]]), torch.tensor([1, 0]))
    assert found.tolist() == [1.0, -2.0]
    assert quantiles(torch.tensor([3.0, 1.0, 2.0]), 1).tolist() == [2.0]
