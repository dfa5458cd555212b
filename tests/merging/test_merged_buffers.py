"""Running statistics in a merge: kept as the base's, or negated like weights with variances that stay positive."""

import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch import nn

from negmerge import merge_state_dicts
from negmerge.checkpoints import write_state_dict
from negmerge.errors import InputError
from negmerge.execution import compiling
from negmerge.merging.engine import merge_checkpoints
from negmerge.merging.output.verifying import read_record

ALPHA = 30.0  # added: one class varies less than all, so variances shrink


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """A small network with batch norm trained on digits, and two fine-tuned on those of one class; states and files."""
    images, labels = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
    images = images.float() / 16
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))

    def train(rows, steps, rate):
        optimiser = torch.optim.SGD(model.parameters(), rate)
        for i in range(steps):
            batch = rows[torch.arange(64 * i, 64 * (i + 1)) % len(rows)]
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimiser.step()
        return {name: value.clone() for name, value in model.state_dict().items()}

    folder = tmp_path_factory.mktemp("networks")
    states = [train(torch.arange(len(labels)), 60, 0.2)]
    forget = torch.nonzero(labels == 3).flatten()
    for i in range(2):
        model.load_state_dict(states[0])
        states.append(train(forget.roll(17 * i), 10, 0.05 * (i + 1)))
    paths = [folder / f"{i}.safetensors" for i in range(3)]
    for path, state in zip(paths, states, strict=True):
        write_state_dict(path, state)
    return states, paths


@pytest.mark.parametrize("compiled", [True, False])
def test_negate_merges_statistics_and_holds_variances(networks, tmp_path, monkeypatch, compiled):
    monkeypatch.setattr(compiling, "AVAILABLE", compiled and compiling.AVAILABLE)
    (base, *members), (place, *others) = networks
    outs = {}
    for policy in ("keep", "negate"):
        out = tmp_path / f"{policy}.safetensors"
        merge_checkpoints(place, others, out, method="uniform", alpha=ALPHA, add=True, buffers=policy)
        outs[policy] = load_file(out)
    kept, negated = outs["keep"], outs["negate"]
    assert read_record(tmp_path / "negate.safetensors")["buffers"] == "negate"
    for name, value in base.items():
        tau = sum(member[name].double() - value.double() for member in members) / 2
        moved = value.double() + ALPHA * tau
        if name.endswith("running_var"):
            assert moved.min() < 1e-5  # without the clamp there would be no root
            torch.testing.assert_close(negated[name].double(), moved.clamp(min=1e-5), rtol=1e-4, atol=1e-6)
            assert (negated[name] >= 1e-5).all()
        elif name.endswith("running_mean"):
            torch.testing.assert_close(negated[name].double(), moved, rtol=1e-4, atol=1e-6)
        else:
            assert torch.equal(negated[name], kept[name])
        if "running" in name or "tracked" in name:
            assert torch.equal(kept[name], value)
    assert torch.equal(negated["1.num_batches_tracked"], base["1.num_batches_tracked"])
    assert not torch.equal(members[0]["1.num_batches_tracked"], base["1.num_batches_tracked"])
    in_memory = merge_state_dicts(base, members, method="uniform", alpha=ALPHA, add=True, buffers="negate")
    assert all(torch.equal(in_memory[name], value) for name, value in negated.items())


def test_half_precision_stays_at_the_least_variance(tmp_path):
    base = {"bn.running_var": torch.tensor([1.0, 2.0], dtype=torch.float16), "w": torch.ones(2)}
    member = {"bn.running_var": torch.tensor([3.0, 2.5], dtype=torch.float16), "w": torch.zeros(2)}
    for dtype in (torch.float16, torch.bfloat16):
        found = merge_state_dicts(
            {k: v.to(dtype) for k, v in base.items()}, [{k: v.to(dtype) for k, v in member.items()}], buffers="negate"
        )
        assert found["bn.running_var"].tolist() == [torch.tensor(1e-5, dtype=dtype).item(), 1.5]
        assert found["bn.running_var"].min() >= 1e-5


def test_an_unknown_policy_is_one_line(networks, tmp_path):
    _, (place, *others) = networks
    with pytest.raises(InputError, match="buffers must be keep or negate, got 'melt'"):
        merge_checkpoints(place, others, tmp_path / "o.safetensors", buffers="melt")
