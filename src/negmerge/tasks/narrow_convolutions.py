"""Convolutions that a CPU gets wrong in bf16 are computed in float32."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

CONVOLUTIONS = frozenset([torch.conv1d, torch.conv2d, torch.conv3d])


def in_one_column(width: int, stride: int | Sequence[int]) -> bool:
    """Whether a convolution steps over its whole input at once: its stride is above 1 and no smaller than the width.

    >>> in_one_column(1, (2, 2)), in_one_column(2, (2, 2)), in_one_column(3, (2, 2)), in_one_column(1, 1)
    (True, True, False, False)
    """
    step = stride if isinstance(stride, int) else stride[-1]
    return step > 1 and width <= step


class NarrowInFloat32(TorchFunctionMode):
    """Inside, a convolution that is `in_one_column` is computed in float32, and its result rounded to bfloat16.

    oneDNN, as torch 2.13 calls it on CPUs with bfloat16 instructions, leaves memory unwritten there: the gradient of
    the weight where padding is all that a column of the kernel ever sees (3 × 3, stride 2, padding 1 on a width of 1),
    and, for some numbers of channels in channels-last layout, the output itself (4 × 4, stride 4 on a width of 4). What
    is read is whatever the memory held: NaN, or plausible numbers. float32 has neither fault. Modules (nn.Conv2d) are
    seen, and calls that give the stride by its place.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute what a function of torch returns."""
        kwargs = kwargs or {}
        narrow = func in CONVOLUTIONS and len(args) > 3 and in_one_column(args[0].shape[-1], args[3])
        if not narrow or args[0].device.type != "cpu":
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            floats = [arg.float() if isinstance(arg, torch.Tensor) else arg for arg in args]
            return func(*floats, **kwargs).to(torch.bfloat16)


@contextmanager
def autocast_on_cpu() -> Iterator[None]:
    """Inside the block products are computed in bfloat16, but for those that `NarrowInFloat32` takes out."""
    with torch.autocast("cpu", torch.bfloat16), NarrowInFloat32():
        yield
