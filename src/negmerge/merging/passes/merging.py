"""How a pool is merged: which tensors take the compiled way, and which the plain one."""

import torch
from torch import Tensor

from negmerge.checkpoints.base import elements
from negmerge.errors import InputError
from negmerge.merging.applying import Outlet
from negmerge.merging.merger import Merger
from negmerge.merging.methods import Place
from negmerge.merging.passes.collecting import collect, first_reads, ranked
from negmerge.merging.passes.streaming import OnBytes, Tally, TensorCount, stream
from negmerge.merging.pool import Pool

COMPILED = ("consensus", "uniform", "task-arithmetic", "ties", "majority-sign")
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
    fusible = _fusible(pool, merger, device)
    statistics = collect(pool, merger, fusible, device, workers, on_bytes)
    tally = Tally(pool)
    done: set[str] = set()
    if fusible and merger.name in COMPILED:
        from negmerge.merging.compiled import fused

        for part, names in merger.groups(fusible):
            rule = fused.rule_of(part, len(pool.members))
            ready = part.statistics is None or all(statistics[name].dtype == torch.float32 for name in names)
            if rule is not None and ready:
                fused.merge_fused(
                    pool, names, rule, part, outlet, tally, statistics, workers=workers, on_bytes=on_bytes
                )
                done.update(names)

    def visit(name: str, start: int, base: Tensor, deltas: Tensor) -> int:
        delta, kept = merger.merge(deltas, device, Place(name, start), statistics.get(name))
        outlet.put(name, start, base, delta)
        return kept

    rest = [name for name in pool.merged if name not in done]
    stream(pool, visit, workers=workers, on_bytes=on_bytes, names=rest, tally=tally)
    return tally.counts()


def check_device(device: str) -> None:
    """Raise InputError unless torch can compute on `device`."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {device} cannot be used: {reason}; choose cpu") from None


def bytes_to_read(pool: Pool, merger: Merger, device: str = "cpu") -> int:
    """Return how many bytes of base and members a merge reads, those of its first passes included."""
    more = first_reads(pool, merger, _fusible(pool, merger, device))
    return sum((1 + more.get(name, 0)) * _bytes(pool, name) for name in pool.merged)


def _fusible(pool: Pool, merger: Merger, device: str) -> list[str]:
    """Return the names that compiled loops can read, where it is worth loading them for this method."""
    if device != "cpu" or not (merger.name in COMPILED or ranked(merger)):
        return []
    if sum(_bytes(pool, name) for name in pool.merged) < WORTH:
        return []
    from negmerge.merging.compiled import fused, kernels

    return fused.fusible(pool) if kernels.AVAILABLE else []


def _bytes(pool: Pool, name: str) -> int:
    return elements(pool.base.shape(name)) * sum(c.dtype(name).itemsize for c in (pool.base, *pool.members))
