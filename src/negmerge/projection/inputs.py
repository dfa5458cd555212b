"""Where in a module inputs meet weights, and what these inputs are as rows of a matrix."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrize

from negmerge.projection.layers import Kind

Arguments = tuple[tuple[Any, ...], Mapping[str, Any]]


@dataclass(frozen=True)
class Slot:
    """A weight of a module, and the way to its inputs.

    `weight` and `bias` are names of parameters inside the module. `find(arguments)` returns the tensor that the weight
    meets, and `unfold(tensor)` its pieces as rows, [groups, rows, columns]; slots with the same `geometry` unfold the
    same tensor into the same rows. Without `unfold` the input are token numbers.
    """

    module: str
    part: str
    kind: Kind
    weight: str
    bias: str | None
    find: Callable[[Arguments], Tensor]
    unfold: Callable[[Tensor], Tensor] | None
    geometry: tuple[Any, ...] = ()
    rows: tuple[int, int] | None = None
    groups: int = 1

    @property
    def place(self) -> str:
        """Where it is: the module, and the part of it where there are several."""
        return f"{self.module}:{self.part}" if self.part else self.module


def find_slots(model: nn.Module) -> list[Slot]:
    """Return every place of a model where a matrix meets inputs that can be seen, in the order of its modules.

    Linear layers, convolutions and transposed ones, transformers' Conv1D, embeddings and nn.MultiheadAttention, each
    with the forward of its own class; a module whose weights are parametrised has none.
    """
    found: list[Slot] = []
    inside: set[int] = set()  # asked for membership only
    for name, module in model.named_modules():
        if id(module) in inside or parametrize.is_parametrized(module):
            continue
        if isinstance(module, nn.MultiheadAttention):
            inside.add(id(module.out_proj))
            if not parametrize.is_parametrized(module.out_proj):
                found += _attention(name, module)
        elif slot := _plain(name, module):
            found.append(slot)
    return found


def _plain(name: str, module: nn.Module) -> Slot | None:
    own = type(module).forward
    bias = "bias" if getattr(module, "bias", None) is not None else None
    if isinstance(module, nn.Linear) and own is nn.Linear.forward:
        return Slot(name, "", "linear", "weight", bias, _first, _as_rows)
    if type(module).__name__ == "Conv1D" and hasattr(module, "nf") and getattr(module, "weight", None) is not None:
        return Slot(name, "", "conv1d", "weight", bias, _first, _as_rows)
    if isinstance(module, nn.Embedding) and own is nn.Embedding.forward:
        return Slot(name, "", "embedding", "weight", None, _first, None)
    if isinstance(module, _ConvTransposeNd) and own in (c.forward for c in TRANSPOSED):
        return _convolution(name, module, bias, "conv-transposed", _transposed_columns)
    if isinstance(module, _ConvNd) and own in (c.forward for c in CONVOLUTIONS):
        return _convolution(name, module, bias, "conv", _columns)
    return None


CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def _first(arguments: Arguments) -> Tensor:
    given, named = arguments
    found: Tensor = given[0] if given else next(iter(named.values()))
    return found


def _as_rows(values: Tensor) -> Tensor:
    return values.reshape(1, -1, values.shape[-1])


def _convolution(name: str, module: Any, bias: str | None, kind: Kind, unfold: Callable[[Any, Tensor], Tensor]) -> Slot:
    geometry = (
        kind, module.kernel_size, module.stride, module.padding, module.dilation, module.groups, module.padding_mode,
        module.output_padding,
    )  # fmt: skip
    return Slot(name, "", kind, "weight", bias, _first, lambda x: unfold(module, x), geometry, groups=module.groups)


def _batched(module: Any, values: Tensor) -> Tensor:
    return values if values.dim() == len(module.kernel_size) + 2 else values[None]


def _columns(module: Any, values: Tensor) -> Tensor:
    """Return the pieces of images that a convolution looks at, [groups, images · places, channels/groups · kernel]."""
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = functional.pad(_batched(module, values), module._reversed_padding_repeated_twice, mode)
    return _windows(padded, module.kernel_size, module.stride, module.dilation, module.groups)


def _transposed_columns(module: Any, values: Tensor) -> Tensor:
    """Return what each place of a transposed convolution's output is made of, its kernel in the weight's own order.

    The output is that of a plain convolution with the kernel turned round, stride 1, on the input with stride − 1 zeros
    between its elements: places that no input reaches are zero.
    """
    images = _batched(module, values)
    sizes = images.shape[2:]
    spread = images.new_zeros(*images.shape[:2], *((n - 1) * s + 1 for n, s in zip(sizes, module.stride, strict=True)))
    every: tuple[Any, ...] = (..., *(slice(None, None, s) for s in module.stride))
    spread[every] = images
    edges: list[int] = []
    for k, d, p, more in zip(module.kernel_size, module.dilation, module.padding, module.output_padding, strict=True):
        edge = d * (k - 1) - p
        edges = [edge, edge + more, *edges]
    padded = functional.pad(spread, edges)  # a negative edge cuts off
    ones = (1,) * len(module.kernel_size)
    windows = _windows(padded, module.kernel_size, ones, module.dilation, module.groups)
    groups, rows, _ = windows.shape
    turned = windows.reshape(groups, rows, -1, *module.kernel_size).flip(*range(3, 3 + len(module.kernel_size)))
    return turned.reshape(groups, rows, -1)


def _windows(
    images: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], groups: int
) -> Tensor:
    windows = images
    for i, (k, s, d) in enumerate(zip(kernel, stride, dilation, strict=True)):
        windows = windows.unfold(2 + i, d * (k - 1) + 1, s)[..., ::d]
    space = len(kernel)
    count, channels = images.shape[:2]
    split = windows.reshape(count, groups, channels // groups, *windows.shape[2:])
    places, inner = range(3, 3 + space), range(3 + space, 3 + 2 * space)
    ordered = split.permute(1, 0, *places, 2, *inner)
    size = channels // groups
    for k in kernel:
        size *= k
    return ordered.reshape(groups, -1, size)


def _attention(name: str, module: nn.MultiheadAttention) -> list[Slot]:
    """Return the four slots of nn.MultiheadAttention; its output projection sees what the heads put out."""
    width = module.embed_dim
    bias = "in_proj_bias" if module.in_proj_bias is not None else None
    found = []
    for i, part in enumerate(("query", "key", "value")):
        packed = module.in_proj_weight is not None
        weight = "in_proj_weight" if packed else f"{part[0]}_proj_weight"
        # A bias stays packed where the weights do not: it is then left to itself.
        rows, own = ((i * width, (i + 1) * width), bias) if packed else (None, None)
        find = _argument(i, part)
        found.append(Slot(name, part, "linear", weight, own, find, _as_rows, rows=rows))
    own = "out_proj.bias" if module.out_proj.bias is not None else None
    found.append(Slot(name, "output", "linear", "out_proj.weight", own, _heads_of(module), _as_rows))
    return found


def _argument(place: int, name: str) -> Callable[[Arguments], Tensor]:
    def find(arguments: Arguments) -> Tensor:
        given, named = arguments
        found: Tensor = given[place] if place < len(given) else named[name]
        return found

    return find


def _heads_of(module: nn.MultiheadAttention) -> Callable[[Arguments], Tensor]:
    """Return a function that gives the module's output before its output projection: what it gives with identity."""

    def find(arguments: Arguments) -> Tensor:
        weight = module.out_proj.weight
        instead = {"out_proj.weight": torch.eye(len(weight), dtype=weight.dtype, device=weight.device)}
        if module.out_proj.bias is not None:
            instead["out_proj.bias"] = torch.zeros_like(module.out_proj.bias)
        found: Tensor = functional_call(module, instead, arguments[0], dict(arguments[1]))[0]
        return found

    return find


def real_rows(rows: Tensor, shape: Sequence[int], real: Tensor | None, turned: bool | None = None) -> Tensor:
    """Return the rows [groups, n, columns] of an input of `shape` that are of real tokens, by a mask [batch, length].

    All rows, where the input has none for each token. Where a batch is as large as it is long, its shape does not tell
    which way it lies; then it is [length, batch, …] if `turned`.
    """
    if real is None or rows.shape[1] != real.numel():
        return rows
    told = lies_turned(shape[:-1] if len(shape) > 1 else shape, real)
    return rows[:, (real.T if (turned if told is None else told) else real).reshape(-1)]


def lies_turned(lead: Sequence[int], real: Tensor) -> bool | None:
    """Return whether an input whose shape begins so lies as [length, batch] and not as a mask [batch, length].

    None where it lies neither way, or the shape does not tell.
    """
    ways = [tuple(lead) == tuple(way.shape) for way in (real, real.T)]
    return None if ways[0] == ways[1] else ways[1]
