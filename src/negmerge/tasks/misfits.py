"""How a state dict differs from the one that a module wants."""

from collections.abc import Mapping

from torch import Tensor


def misfits(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Return a line for each tensor that is missing, unexpected, or of another shape."""
    return [
        *(f"missing: {name}" for name in wanted if name not in weights),
        *(f"unexpected: {name}" for name in weights if name not in wanted),
        *(
            f"{name}: shape {list(weights[name].shape)}, expected {list(value.shape)}"
            for name, value in wanted.items()
            if name in weights and weights[name].shape != value.shape
        ),
    ]
