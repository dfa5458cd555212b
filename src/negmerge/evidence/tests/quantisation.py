"""Does rounding the weights bring back what was forgotten? A small edit may vanish where the weights are rounded."""

from collections.abc import Mapping
from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from negmerge.evidence.altering import change_matrices, read_altered
from negmerge.evidence.protocol import Cost, EvidenceSettings, Found
from negmerge.evidence.subject import Subject

SUMMARY = "what comes back where the weights are rounded to int8 and int4, per channel, and to NF4, in blocks of 64"
COLUMNS = ("correct",)
WEIGHT = "refutation"  # that rounding restores nothing does not tell that nothing is there
REFERENCE = "Zhang et al., Catastrophic Failure of LLM Unlearning via Quantization, 2024 (arXiv 2410.16454)"

Format = Literal["int8", "int4", "int3", "int2", "nf4"]
BLOCK = 64  # consecutive weights that share a scale in NF4
# The 16 values of 4-bit NormalFloat: Dettmers et al., QLoRA, 2023 (arXiv 2305.14314), appendix E.
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


class Settings(EvidenceSettings):
    """How a weight is stored."""

    formats: tuple[Format, ...] = Field(
        ("int8", "int4", "nf4"), min_length=1, description="of a weight; the worst counts"
    )


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


def normal_floats(weight: Tensor) -> Tensor:
    """Return a weight, of any shape, with each block of 64 consecutive elements rounded to max|w| times a value of NF4.

    Blocks are those of the flattened tensor, the last may be shorter. Halfway between two values the smaller is taken;
    a block of zeros stays as it is. The scales are not quantised themselves. The same dtype; computed in float32.

    >>> normal_floats(torch.tensor([[2.0, -1.0, 0.3, 0.0]]))
    tensor([[ 2.0000, -1.0501,  0.3219,  0.0000]])
    """
    flat = weight.float().flatten()
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scale = padded.abs().amax(1, keepdim=True)
    values = torch.tensor(NF4, device=weight.device)
    shares = padded / torch.where(scale > 0, scale, torch.ones_like(scale))
    nearest = values[torch.bucketize(shares, (values[1:] + values[:-1]) / 2)]
    return (nearest * scale).flatten()[: len(flat)].view_as(weight).to(weight.dtype)


def round_weights(model: nn.Module, wanted: Format) -> nn.Module:
    """Round every parameter of two dimensions or more, in place, and return the model; norms and biases stay."""
    return change_matrices(model, normal_floats if wanted == "nf4" else partial(rounded, bits=int(wanted[3:])))


def cost(settings: Settings, rows: Mapping[str, int]) -> Cost:
    """Return the rows that pass through the three models, rounded and not."""
    return Cost(evaluated=3 * (1 + len(settings.formats)) * rows["forget"])


def run(subject: Subject, settings: Settings) -> Found:
    """Round all three models alike and look at the forget rows again; scores and facts as in `read_altered`."""
    readings, facts = read_altered(subject, {name: partial(round_weights, wanted=name) for name in settings.formats})
    found = ", ".join(f"{facts[name]['model']:.0f} % at {name}" for name in settings.formats)
    are, of = ("are right in", "in") if subject.counts else (f"have a mean {subject.task.MEASURE} of", "of")
    before = f"{facts['before']['model']:.0f} %"
    return Found(readings, f"With rounded weights the forgotten rows {are} {found}; unrounded {of} {before}.", facts)
