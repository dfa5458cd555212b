"""The first passes of a method that wants to know something of whole tensors, or of the model, before it merges."""

import torch
from torch import Tensor

from negmerge.checkpoints.base import elements
from negmerge.merging.merger import Merger
from negmerge.merging.pool import Pool
from negmerge.merging.ranking import RankSearch
from negmerge.merging.streaming import OnBytes, Tally, chunk_of, stream, work_dtype


def collect(
    pool: Pool, merger: Merger, device: str = "cpu", workers: int | None = None, on_bytes: OnBytes | None = None
) -> dict[str, Tensor]:
    """Return what the chunks of each tensor need to know: the `statistic` of its method, by name.

    A tensor that comes in one chunk has none: the method sees all of it. With scope="model" each has that of the model.
    Raises InputError, naming file and tensor, for NaN or Inf.
    """
    groups = grouped(pool, merger)
    if not groups or merger.statistics is None:
        return {}
    find = _cutoffs if hasattr(merger.statistics, "ranks") else _shares
    found = find(pool, merger, groups, device, workers, on_bytes)
    return {name: found[group] for group, names in groups.items() for name in names}


def passes_of(pool: Pool, merger: Merger) -> dict[str, int]:
    """Return how often each tensor is read before the merge, by name; those that are not read are left out."""
    groups = grouped(pool, merger)
    ranked = hasattr(merger.statistics, "ranks")
    return {n: 1 if not ranked else _digits(pool, names) for names in groups.values() for n in names}


def grouped(pool: Pool, merger: Merger) -> dict[str, list[str]]:
    """Return the tensors whose statistics are taken together: each by itself, or all of them."""
    if merger.statistics is None:
        return {}
    if merger.scope == "model":
        return {"": list(pool.merged)}
    return {name: [name] for name in pool.merged if elements(pool.base.shape(name)) > chunk_of(pool)}


Groups = dict[str, list[str]]


def _shares(
    pool: Pool, merger: Merger, groups: Groups, device: str, workers: int | None, on_bytes: OnBytes | None
) -> dict[str, Tensor]:
    """Return the share of the elements of each group that the method counts."""
    module = merger.statistics
    assert module is not None

    def visit(name: str, _: int, __: Tensor, deltas: Tensor) -> int:
        return int(module.count(deltas.to(device), **merger.at(name)))

    tally = Tally(pool)
    names = [name for group in groups.values() for name in group]
    stream(pool, visit, workers=workers, on_bytes=on_bytes, names=names, tally=tally)
    return {
        group: torch.tensor(sum(tally.kept[name] for name in names) / max(1, _total(pool, names)), dtype=torch.float64)
        for group, names in groups.items()
    }


def _cutoffs(
    pool: Pool, merger: Merger, groups: Groups, device: str, workers: int | None, on_bytes: OnBytes | None
) -> dict[str, Tensor]:
    """Return the magnitudes [N, ranks] at the ranks that the method asks for in each group."""
    module = merger.statistics
    assert module is not None
    members = len(pool.members)
    searches: dict[str, RankSearch] = {}
    of: dict[str, RankSearch] = {}
    for group, names in groups.items():
        total = _total(pool, names)
        ranks = module.ranks(total, **merger.at(group))
        searches[group] = RankSearch(members, ranks, total, _dtype(pool, names), done=total == 0)
        of.update(dict.fromkeys(names, searches[group]))

    def visit(name: str, _: int, __: Tensor, deltas: Tensor) -> int:
        of[name].add(deltas.to(device))
        return 0

    while names := [name for name, search in of.items() if not search.done]:
        stream(pool, visit, workers=workers, on_bytes=on_bytes, names=names, tally=Tally(pool))
    return {group: search.values for group, search in searches.items()}


def _total(pool: Pool, names: list[str]) -> int:
    return sum(elements(pool.base.shape(name)) for name in names)


def _dtype(pool: Pool, names: list[str]) -> torch.dtype:
    doubles = any(work_dtype(pool.base.dtype(name)) == torch.float64 for name in names)
    return torch.float64 if doubles else torch.float32


def _digits(pool: Pool, names: list[str]) -> int:
    return 4 if _dtype(pool, names) == torch.float64 else 2
