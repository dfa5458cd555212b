"""State dicts of every kind of tensor, and members that drifted from them."""

import json

import torch
from safetensors import safe_open


def make_state(seed, scale=1.0):
    """A state dict with everything that models have: matrices, vectors, scalars, statistics, counters, flags."""
    g = torch.Generator().manual_seed(seed)
    return {
        "stem.weight": scale * torch.randn(7, 5, generator=g),
        "stem.bias": scale * torch.randn(7, generator=g),
        "bn.running_mean": torch.randn(7, generator=g),
        "bn.running_var": torch.rand(7, generator=g) + 0.5,
        "bn.num_batches_tracked": torch.tensor(3 + seed),
        "scale": scale * torch.randn((), generator=g),
        "empty": torch.empty(0, 4),
        "mask": torch.tensor([True, False, True]),
        "half": (scale * torch.randn(33, generator=g)).to(torch.float16),
        "brain": (scale * torch.randn(2, 17, generator=g)).to(torch.bfloat16),
        "exact": (scale * torch.randn(9, generator=g)).to(torch.float64),
        "head.weight": scale * torch.randn(3, 7, generator=g),
    }


def drift(base, seed, size=0.1):
    """A member: the base with every float moved."""
    g = torch.Generator().manual_seed(1000 + seed)
    return {
        name: (value.double() + size * torch.randn(value.shape, generator=g, dtype=torch.float64)).to(value.dtype)
        if value.is_floating_point()
        else value + 1
        if value.dtype == torch.int64
        else value
        for name, value in base.items()
    }


def of_the_fit(warnings):
    """The warnings without those of how far random members agree."""
    return [line for line in warnings if not line.startswith("unstable-signs")]


def load_record(path):
    """Return the record in the metadata of a merged file."""
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["negmerge"])
