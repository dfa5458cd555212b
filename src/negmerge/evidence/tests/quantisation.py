"""Does rounding the weights bring back what was forgotten? A small edit may vanish where the weights are rounded."""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from negmerge.evidence.protocol import Cost, EvidenceSettings, Found
from negmerge.evidence.scale import Reading, Role, read_scale
from negmerge.evidence.subject import ROLES, Subject

SUMMARY = "what comes back where the weights are rounded to int8 and int4, to the nearest, per channel"
COLUMNS = ("correct",)
WEIGHT = "refutation"  # that rounding restores nothing does not tell that nothing is there
REFERENCE = "Zhang et al., Catastrophic Failure of LLM Unlearning via Quantization, 2024 (arXiv 2410.16454)"


class Settings(EvidenceSettings):
    """How many bits a weight has."""

    bits: tuple[Literal[2, 3, 4, 8], ...] = Field((8, 4), min_length=1, description="of a weight; the worst counts")


def rounded(weight: Tensor, bits: int) -> Tensor:
    """Return a weight [out, …] rounded to the nearest of 2^bits − 1 values per output channel, symmetric about 0.

    The step of a channel is max|w| / (2^(bits−1) − 1); halves are rounded to even; a channel of zeros stays as it is.
    The same dtype; computed in float32 (float64 of float64).

    >>> rounded(torch.tensor([[0.0, 0.3, -1.0], [0.0, 0.0, 0.0]]), 2)
    tensor([[ 0.,  0., -1.],
            [ 0.,  0.,  0.]])
    """
    exact = weight if weight.dtype == torch.float64 else weight.float()
    rows = exact.flatten(1)
    step = rows.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    levels = torch.where(step > 0, rows / step, torch.zeros_like(rows)).round()
    nearest: Tensor = (levels * step).view_as(exact)
    return nearest.to(weight.dtype)


def round_weights(model: nn.Module, bits: int) -> nn.Module:
    """Round every parameter of two dimensions or more, in place, and return the model; norms and biases stay."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2 and parameter.is_floating_point():
                parameter.copy_(rounded(parameter, bits))
    return model


def cost(settings: Settings, rows: Mapping[str, int]) -> Cost:
    """Return the rows that pass through the three models, rounded and not."""
    return Cost(evaluated=3 * (1 + len(settings.bits)) * rows["forget"])


def run(subject: Subject, settings: Settings) -> Found:
    """Round all three models alike and look at the forget rows again.

    Score: the share of forget rows that are right, in percent. Facts: that share before and after for each model, and
    Q = min(before / after, 1) of the judged one (1 where after is 0): below 1, rounding brought something back.
    """
    rows = subject.rows("forget")
    before = {role: float(subject.share_right(subject.kept(role), rows).mean()) for role in ROLES}
    readings: list[Reading] = []
    facts: dict[str, dict[str, float]] = {}
    for bits in settings.bits:
        right: dict[Role, Tensor] = {
            role: subject.share_right(round_weights(subject.open(role), bits), rows) for role in ROLES
        }
        readings.append(read_scale(f"int{bits}", right, span=100.0))
        after = float(right["model"].mean())
        kept = min(before["model"] / after, 1.0) if after else 1.0
        facts[f"int{bits}"] = {"q": kept, **{str(role): float(right[role].mean()) for role in ROLES}}
    found = ", ".join(f"{facts[name]['model']:.0f} % at {name}" for name in facts)
    text = f"With rounded weights the forgotten rows are right in {found}; unrounded in {before['model']:.0f} %."
    return Found(tuple(readings), text, {"before": before, **facts})
