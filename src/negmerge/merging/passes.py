"""How a pool is merged: which tensors take the compiled way, and which the plain one."""

import torch
from torch import Tensor

from negmerge.checkpoints.base import elements
from negmerge.errors import InputError
from negmerge.merging.applying import Outlet
from negmerge.merging.collecting import collect, passes_of
from negmerge.merging.merger import Merger
from negmerge.merging.methods import Place
from negmerge.merging.pool import Pool
from negmerge.merging.streaming import OnBytes, Tally, TensorCount, stream

COMPILED = ("consensus", "uniform", "task-arithmetic")
WORTH = 128 * 2**20  # bytes of a pool that win back the half second of loading the compiled loops


def merge_pool(
    pool: Pool,
    merger: Merger,
    outlet: Outlet,
    workers: int | None = None,
    device: str = "cpu",
    on_bytes: OnBytes | None = None,
) -> list[TensorCount]:
    """Merge every tensor of the pool, hand the chunks to `outlet`, and return how much of each was kept.

    Raises InputError for whatever is wrong in the numbers of the inputs, and a device that is not there.
    """
    check_device(device)
    statistics = collect(pool, merger, device, workers, on_bytes)
    tally = Tally(pool)
    fused = _merge_compiled(pool, merger, outlet, tally, workers, on_bytes) if device == "cpu" else frozenset()

    def visit(name: str, start: int, base: Tensor, deltas: Tensor) -> int:
        delta, kept = merger.merge(deltas, device, Place(name, start), statistics.get(name))
        outlet.put(name, start, base, delta)
        return kept

    rest = [name for name in pool.merged if name not in fused]
    stream(pool, visit, workers=workers, on_bytes=on_bytes, names=rest, tally=tally)
    return tally.counts()


def check_device(device: str) -> None:
    """Raise InputError unless torch can compute on `device`."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {device} cannot be used: {reason}; choose cpu") from None


def bytes_to_read(pool: Pool, merger: Merger) -> int:
    """Return how many bytes of base and members a merge reads, those of its first passes included."""
    every = (pool.base, *pool.members)
    more = passes_of(pool, merger)
    return sum(
        (1 + more.get(name, 0)) * elements(c.shape(name)) * c.dtype(name).itemsize
        for c in every
        for name in pool.merged
    )


def _merge_compiled(
    pool: Pool, merger: Merger, outlet: Outlet, tally: Tally, workers: int | None, on_bytes: OnBytes | None
) -> frozenset[str]:
    """Merge what the compiled loops can, where it is worth loading them; return the names done."""
    if merger.name not in COMPILED or bytes_to_read(pool, merger) < WORTH:
        return frozenset()
    from negmerge.merging import fused, kernels

    done: list[str] = []
    for part, names in merger.groups(fused.fusible(pool)) if kernels.AVAILABLE else []:
        rule = fused.rule_of(part, len(pool.members))
        if rule is not None:
            fused.merge_fused(pool, names, rule, part, outlet, tally, workers=workers, on_bytes=on_bytes)
            done += names
    return frozenset(done)
