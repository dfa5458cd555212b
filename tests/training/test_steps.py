"""Steps that end before the epochs do, and gradients of several passes in one step."""

import copy

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from negmerge.training import TrainSettings
from negmerge.training.loop import fit

DATA = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))


def train(batch, start=None, stop=None, rows=24, **settings):
    """Train a line on the mean squared output; return its weights, the rates of all steps, and the epochs."""
    model = nn.Linear(3, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -2.0, 3.0]]))
        model.bias.fill_(0.5)
    if start:
        model.load_state_dict(start[0])
    rates, epochs = [], []

    def after(epoch):
        epochs.append((copy.deepcopy(model.state_dict()), copy.deepcopy(epoch)))

    made = TrainSettings(optimizer="sgd", momentum=0.0, lr=0.1, batch_size=8, **settings)
    optimizers = []
    original = torch.optim.SGD.step

    def step(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        optimizers.append(self)
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", step)
        pieces = DATA[:rows].split(batch)
        fit(
            model, lambda _: pieces, lambda m, x: m(x).pow(2).mean(), made,
            steps_per_epoch=len(pieces), start=start[1] if start else None, on_epoch=after,
        )  # fmt: skip
    return model.weight.detach().clone(), rates, epochs


@pytest.mark.parametrize("clip", [None, 0.5])
def test_accumulated_passes_are_one_large_batch(clip):
    whole, rates, _ = train(8, epochs=2, clip=clip)
    parts, same_rates, _ = train(4, epochs=2, clip=clip, accumulate=2)
    assert torch.allclose(whole, parts, atol=1e-6) and rates == same_rates and len(rates) == 6


def test_the_last_step_of_an_epoch_averages_what_is_left():
    whole, rates, _ = train(12, epochs=1, schedule="constant", rows=12)
    parts, _, _ = train(4, epochs=1, schedule="constant", rows=12, accumulate=5)
    assert torch.allclose(whole, parts, atol=1e-6) and len(rates) == 1


def test_steps_end_the_training_and_its_schedule():
    _, rates, epochs = train(8, epochs=100, steps=7, warmup_steps=2)
    assert len(rates) == 7 and len(epochs) == 3
    assert rates[:3] == pytest.approx([0.05, 0.1, 0.1]) and rates[-1] == pytest.approx(
        0.1 * 0.5 * (1 - 0.80902), abs=1e-4
    )
    _, fewer, _ = train(8, epochs=2, steps=7)
    assert len(fewer) == 6
    with pytest.raises(ValidationError):
        TrainSettings(steps=0)


def test_steps_resume_after_an_epoch():
    weights, rates, epochs = train(4, epochs=100, steps=8, accumulate=2)
    again, rest, _ = train(4, start=epochs[0], epochs=100, steps=8, accumulate=2)
    assert torch.equal(weights, again) and rates[3:] == rest and len(rest) == 5
