"""Evaluation on the CPU: torch's threads take a batch each."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor, nn

from negmerge.execution import torch_threads

Result = TypeVar("Result")


def on_threads(work: Callable[[Tensor], Result], model: nn.Module, batches: Iterable[Tensor]) -> list[Result]:
    """Return what `work` makes of each batch that has rows, in their order."""
    full = [batch for batch in batches if len(batch)]
    threads = min(torch.get_num_threads(), len(full))
    alone = any(getattr(module, "ONE_CALL_AT_A_TIME", False) for module in model.modules())
    if device_of(model) != "cpu" or alone or threads < 2:
        return [work(batch) for batch in full]
    with torch_threads(1), ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, full))


def device_of(model: nn.Module) -> str:
    """Return the kind of device that a model is on: `cpu`, `cuda`, …"""
    return next(model.parameters()).device.type
