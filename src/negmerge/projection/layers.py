"""Layers as the projection sees them: which tensors they have, and how these are a matrix times the layer's inputs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor

# How a weight lies: [out, in] · [out, in/groups, …] · [in, out/groups, …] · [in, out] · [tokens, width] · both.
Kind = Literal["linear", "conv", "conv-transposed", "conv1d", "embedding", "tied-embedding"]


@dataclass(frozen=True)
class Layer:
    """One matrix of a model, or some rows of a packed one, with the bias that rides along, and where its moments are.

    `weight` and `bias` are all names that the tensor has in the state dict, `rows` the part of a packed matrix,
    `source` the place whose moments of inputs hold here (layers that share an input share them), and `tokens` that of
    the token counts of an embedding. `columns` is the number of inputs of one group, without the ones of the bias;
    `ones` says that the moments of the source have a last row and column for these.
    """

    kind: Kind
    weight: tuple[str, ...]
    bias: tuple[str, ...] = ()
    rows: tuple[int, int] | None = None
    groups: int = 1
    columns: int = 0
    ones: bool = False
    source: str = ""
    tokens: str = ""

    @property
    def name(self) -> str:
        """What the layer is called: the name of its weight, with the rows of a packed one."""
        return self.weight[0] + (f"[{self.rows[0]}:{self.rows[1]}]" if self.rows else "")

    @property
    def tensors(self) -> tuple[str, ...]:
        """All names of its tensors."""
        return (*self.weight, *self.bias)

    def matrices(self, weight: Tensor) -> Tensor:
        """Return the weight as matrices [groups, out, columns] that its inputs are multiplied by.

        Of an embedding the matrix is [1, tokens, width], as it is stored.
        """
        part = weight if self.rows is None else weight[slice(*self.rows)]
        if self.kind == "conv1d":
            return part.T[None]
        if self.kind == "conv-transposed":
            split = part.reshape(self.groups, part.shape[0] // self.groups, *part.shape[1:])
            return split.transpose(1, 2).reshape(self.groups, part.shape[1], -1)
        return part.reshape(self.groups, part.shape[0] // self.groups, -1)

    def put(self, weight: Tensor, matrices: Tensor) -> None:
        """Write matrices as `matrices` returns them into the weight, in place."""
        part = weight if self.rows is None else weight[slice(*self.rows)]
        if self.kind == "conv1d":
            part.copy_(matrices[0].T)
        elif self.kind == "conv-transposed":
            inner = part.shape[0] // self.groups
            split = matrices.reshape(self.groups, part.shape[1], inner, *part.shape[2:])
            part.copy_(split.transpose(1, 2).reshape(part.shape))
        else:
            part.copy_(matrices.reshape(part.shape))

    def as_json(self) -> dict[str, Any]:
        """Return the layer as it stands in a moments file."""
        return asdict(self)


def layer_of(facts: dict[str, Any]) -> Layer:
    """Return a layer from what `as_json` gave."""
    rows = facts["rows"]
    return Layer(
        **{
            **facts,
            "weight": tuple(facts["weight"]),
            "bias": tuple(facts["bias"]),
            "rows": None if rows is None else (rows[0], rows[1]),
        }
    )


def units(layers: Sequence[Layer]) -> list[tuple[Layer, ...]]:
    """Return the layers in groups that have tensors in common, such as the three of a packed projection, in order."""
    found: list[list[Layer]] = []
    place: dict[str, int] = {}
    for layer in layers:
        at = next((place[name] for name in layer.tensors if name in place), len(found))
        if at == len(found):
            found.append([])
        found[at].append(layer)
        place.update(dict.fromkeys(layer.tensors, at))
    return [tuple(unit) for unit in found]
