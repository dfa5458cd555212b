"""The first passes of a method that wants to know something of whole tensors, or of the model, before it merges."""

from collections.abc import Collection

import torch
from torch import Tensor

from negmerge.checkpoints.base import elements
from negmerge.checkpoints.dtypes import FLOAT64
from negmerge.merging.merger import Merger
from negmerge.merging.passes.ranking import RankSearch
from negmerge.merging.passes.streaming import OnBytes, Tally, chunk_of, stream
from negmerge.merging.pool import Pool


def collect(
    pool: Pool,
    merger: Merger,
    fusible: Collection[str] = (),
    device: str = "cpu",
    workers: int | None = None,
    on_bytes: OnBytes | None = None,
) -> dict[str, Tensor]:
    """Return the `statistic` of each tensor that needs one, by name; `fusible` are those that compiled loops may read.

    A tensor that comes in one chunk may have none: the method sees all of it. With scope="model" each has that of the
    model. Raises InputError, naming file and tensor, for NaN or Inf.
    """
    if merger.statistics is None:
        return {}
    if not ranked(merger):
        return _shares(pool, merger, device, workers, on_bytes)
    searches = _searches(pool, merger)
    selected: dict[str, Tensor] = {}
    if fusible:
        from negmerge.merging.compiled.fused_ranks import FusedRanks

        fast = FusedRanks(pool, workers, on_bytes)
        if merger.scope == "tensor":
            fast.count({name: search for name, search in searches.items() if name in fusible})
            small = [name for name in fusible if name not in searches]
            selected = fast.select({name: _ranks(pool, merger, name) for name in small})
        elif all(name in fusible for name in searches):
            fast.count(searches)

    def visit(name: str, _: int, __: Tensor, deltas: Tensor) -> int:
        searches[name].add(deltas.to(device))
        return 0

    while names := [name for name, search in searches.items() if not search.done]:
        stream(pool, visit, workers=workers, on_bytes=on_bytes, names=names, tally=Tally(pool))
    return {**selected, **{name: search.values for name, search in searches.items()}}


def first_reads(pool: Pool, merger: Merger, fusible: Collection[str] = ()) -> dict[str, int]:
    """Return how often each tensor is read before the merge, by name; those that are not read are left out."""
    if merger.statistics is None:
        return {}
    if not ranked(merger):
        return {name: 1 for names in _groups(pool, merger).values() for name in names}
    counted = {name: search.passes for name, search in _searches(pool, merger).items()}
    return {**(dict.fromkeys(fusible, 1) if merger.scope == "tensor" else {}), **counted}


def ranked(merger: Merger) -> bool:
    """Whether a method wants magnitudes at ranks."""
    return hasattr(merger.statistics, "ranks")


def _groups(pool: Pool, merger: Merger) -> dict[str, list[str]]:
    """Return the tensors whose statistics are taken together: each that is cut into chunks by itself, or all."""
    if merger.scope == "model":
        return {"": list(pool.merged)}
    return {name: [name] for name in pool.merged if elements(pool.base.shape(name)) > chunk_of(pool)}


def _shares(
    pool: Pool, merger: Merger, device: str, workers: int | None, on_bytes: OnBytes | None
) -> dict[str, Tensor]:
    """Return the share of the elements that the method counts, of the group of each tensor."""
    groups = _groups(pool, merger)
    module = merger.statistics
    assert module is not None

    def visit(name: str, _: int, __: Tensor, deltas: Tensor) -> int:
        return int(module.count(deltas.to(device), **merger.at(name)))

    tally = Tally(pool)
    names = [name for group in groups.values() for name in group]
    stream(pool, visit, workers=workers, on_bytes=on_bytes, names=names, tally=tally)
    found = {}
    for group in groups.values():
        share = sum(tally.kept[name] for name in group) / max(1, _total(pool, group))
        found.update(dict.fromkeys(group, torch.tensor(share, dtype=torch.float64)))
    return found


def _searches(pool: Pool, merger: Merger) -> dict[str, RankSearch]:
    found = {}
    for names in _groups(pool, merger).values():
        doubles = any(pool.base.dtype(name) == FLOAT64 for name in names)
        search = RankSearch(
            len(pool.members),
            _ranks(pool, merger, *names),
            _total(pool, names),
            torch.float64 if doubles else torch.float32,
        )
        found.update(dict.fromkeys(names, search))
    return found


def _ranks(pool: Pool, merger: Merger, *names: str) -> tuple[int, ...]:
    assert merger.statistics is not None
    ranks: tuple[int, ...] = merger.statistics.ranks(_total(pool, names), **merger.at(names[0]))
    return ranks


def _total(pool: Pool, names: Collection[str]) -> int:
    return sum(elements(pool.base.shape(name)) for name in names)
