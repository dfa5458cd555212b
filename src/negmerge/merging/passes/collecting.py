"""The first passes of a method that wants to know something of whole tensors, or of the model, before it merges."""

import threading
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from negmerge.checkpoints.base import elements
from negmerge.checkpoints.dtypes import FLOAT64
from negmerge.merging.merger import Merger
from negmerge.merging.passes.jobs import OnBytes
from negmerge.merging.passes.plain import Array, visit_deltas
from negmerge.merging.passes.ranking import RankSearch
from negmerge.merging.pool.fitted import Pool

if TYPE_CHECKING:
    from negmerge.merging.compiled.sources import Sources


def collect(
    pool: Pool,
    merger: Merger,
    chunk: int,
    sources: "Sources | None" = None,
    device: str = "cpu",
    workers: int | None = None,
    on_bytes: OnBytes | None = None,
) -> dict[str, Array]:
    """Return the `statistic` of each tensor that needs one, by name; `sources` has those that compiled
    loops read, `chunk` is how many elements the merge computes at a time.

    A tensor that comes in one chunk may have none: the method sees all of it. With scope="model" each has that of the
    model. Raises InputError, naming file and tensor, for NaN or Inf.
    """
    if merger.method.reach == "element":
        return {}
    if not ranked(merger):
        return _shares(pool, merger, chunk, device, workers, on_bytes)
    searches = _searches(pool, merger, chunk)
    selected: dict[str, Array] = {}
    if sources is not None:
        compiled = sources.index
        from negmerge.merging.compiled.fused_ranks import FusedRanks

        fast = FusedRanks(pool, sources, workers, on_bytes)
        if merger.scope == "tensor":
            fast.count({name: search for name, search in searches.items() if name in compiled})
            small = [name for name in sources.names if name not in searches]
            selected = fast.select({name: _ranks(pool, merger, name) for name in small})
        elif all(name in compiled for name in searches):
            fast.count(searches)

    def visit(name: str, _: int, deltas: Array) -> None:
        searches[name].add(deltas)

    while names := [name for name, search in searches.items() if not search.done]:
        visit_deltas(pool, names, visit, workers, on_bytes)
    return {**selected, **{name: search.values for name, search in searches.items()}}


def first_reads(pool: Pool, merger: Merger, chunk: int, compiled: Collection[str] = ()) -> dict[str, int]:
    """Return how often each tensor is read before the merge, by name; those that are not read are left out."""
    if merger.method.reach == "element":
        return {}
    if not ranked(merger):
        return {name: 1 for names in _groups(pool, merger, chunk).values() for name in names}
    counted = {name: search.passes for name, search in _searches(pool, merger, chunk).items()}
    return {**(dict.fromkeys(compiled, 1) if merger.scope == "tensor" else {}), **counted}


def ranked(merger: Merger) -> bool:
    """Whether a method wants magnitudes at ranks."""
    return merger.method.ranks is not None


def _groups(pool: Pool, merger: Merger, chunk: int) -> dict[str, list[str]]:
    """Return the tensors whose statistics are taken together: each that is cut into chunks by itself, or all."""
    if merger.scope == "model":
        return {"": list(pool.merged)}
    return {name: [name] for name in pool.merged if elements(pool.base.shape(name)) > chunk}


def _shares(
    pool: Pool, merger: Merger, chunk: int, device: str, workers: int | None, on_bytes: OnBytes | None
) -> dict[str, Array]:
    """Return the share of the elements that the method counts, of the group of each tensor."""
    groups = _groups(pool, merger, chunk)
    count = merger.method.count
    assert count is not None
    kept = {name: 0 for group in groups.values() for name in group}
    lock = threading.Lock()

    def visit(name: str, _: int, deltas: Array) -> None:
        import torch

        found = count(torch.from_numpy(deltas).to(device), merger.at(name))
        with lock:
            kept[name] += found

    visit_deltas(pool, list(kept), visit, workers, on_bytes)
    found = {}
    for group in groups.values():
        share = sum(kept[name] for name in group) / max(1, _total(pool, group))
        found.update(dict.fromkeys(group, np.array(share)))
    return found


def _searches(pool: Pool, merger: Merger, chunk: int) -> dict[str, RankSearch]:
    found = {}
    for names in _groups(pool, merger, chunk).values():
        doubles = any(pool.base.dtype(name) == FLOAT64 for name in names)
        search = RankSearch(
            len(pool.members),
            _ranks(pool, merger, *names),
            _total(pool, names),
            np.dtype(np.float64 if doubles else np.float32),
        )
        found.update(dict.fromkeys(names, search))
    return found


def _ranks(pool: Pool, merger: Merger, *names: str) -> tuple[int, ...]:
    assert merger.method.ranks is not None
    return merger.method.ranks(_total(pool, names), merger.at(names[0]))


def _total(pool: Pool, names: Collection[str]) -> int:
    return sum(elements(pool.base.shape(name)) for name in names)
