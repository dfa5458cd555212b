"""How models are computed: the layout of images, the precision, and whether forward passes are compiled."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch

from negmerge.tasks.narrow_convolutions import autocast_on_cpu

Precision = Literal["float32", "tf32", "bf16"]


@dataclass(frozen=True)
class Compute:
    """Settings of every pass through a model, in training and in evaluation.

    `channels_last` lays images and convolutions out as [b, H, W, C] in memory: the same numbers up to the order of
    sums. `precision`: float32; tf32, the same with 10 bits of mantissa inside products, on CUDA; bf16, autocast, where
    the weights, their gradients and the loss stay float32, as do the convolutions that a CPU gets wrong in bf16
    (`narrow_convolutions`). `compile` has the forward passes of training compiled, not those of evaluation. The
    defaults are the plain path.
    """

    channels_last: bool = False
    precision: Precision = "float32"
    compile: bool = False

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout of 4-dimensional tensors."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self, device: str) -> AbstractContextManager[Any]:
        """Return the context of a forward pass on a kind of device."""
        if self.precision != "bf16":
            return nullcontext()
        return autocast_on_cpu() if device == "cpu" else torch.autocast(device, torch.bfloat16)

    @contextmanager
    def float_products(self) -> Iterator[None]:
        """Inside the block products of float32 tensors on CUDA are computed as `precision` says, and then as before.

        torch's own defaults are mixed, TF32 in convolutions only, so they are set in any case. Convolutions sum in one
        order (`cudnn.deterministic`), whatever else the card does, so that a model is the same however many are
        trained at a time.
        """
        reduced = self.precision != "float32"
        matmul: Any = torch.backends.cuda.matmul
        convolution: Any = torch.backends.cudnn
        before = matmul.allow_tf32, convolution.allow_tf32, convolution.deterministic
        try:
            matmul.allow_tf32, convolution.allow_tf32, convolution.deterministic = reduced, reduced, True
            yield
        finally:
            matmul.allow_tf32, convolution.allow_tf32, convolution.deterministic = before


@cache
def compiled(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function compiled by torch, once in a process: models of the same shapes share the code.

    Shapes are fixed, so each size of a batch is compiled on its own; a last, shorter batch is one more.
    """
    return torch.compile(forward, dynamic=False)
