"""One pass over a pool in chunks: read a chunk of every member, merge it, hand it on, forget it."""

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from negmerge import registry
from negmerge.checkpoints.base import elements
from negmerge.errors import InputError, nearest
from negmerge.execution import torch_threads
from negmerge.merging.pool import Pool

CHUNK = 2**18  # elements of one member in a job: 1 MiB of float32

Piece = tuple[str, int, int]
Visit = Callable[[str, int, Tensor, Tensor], int]


@dataclass(frozen=True)
class TensorCount:
    """How much of one merged tensor was kept."""

    name: str
    shape: tuple[int, ...]
    elements: int
    kept: int


class Merger:
    """A merge method with its settings checked.

    Raises InputError for an unknown method, a setting that it does not take, or a value that it refuses.
    """

    def __init__(self, method: str, settings: Mapping[str, Any]) -> None:
        module = registry.load("methods", method)
        if not hasattr(module, "merge"):
            raise InputError(f"method {method!r} does not merge checkpoints; it belongs to `negmerge run`")
        check_names(method, method_settings(module), settings)
        self.name = method
        self.settings = dict(settings)
        self._with_mask = getattr(module, "merge_with_mask", None)
        self._merge = module.merge
        self.merge(torch.ones(1, 1))  # the method is the judge of its values: ask it before files are opened

    def merge(self, deltas: Tensor, device: str = "cpu") -> tuple[Tensor, int]:
        """Return the merged delta [n], on the CPU, of deltas [N, n], and how many elements were kept."""
        deltas = deltas.to(device)
        if self._with_mask is None:
            return self._merge(deltas, **self.settings).cpu(), deltas.shape[1]
        merged, mask = self._with_mask(deltas, **self.settings)
        return merged.cpu(), int(torch.count_nonzero(mask))


def check_names(method: str, known: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise InputError for a setting that is not among those the method takes."""
    for key in settings:
        if key not in known:
            takes = ", ".join(known) or "none"
            raise InputError(f"method {method} does not take {key!r}{nearest(key, known)}; its settings: {takes}")


def method_settings(module: ModuleType) -> dict[str, Any]:
    """Return the settings of a merge method with their defaults: the keyword-only parameters of its function."""
    parameters = inspect.signature(module.merge).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def stream(
    pool: Pool,
    visit: Visit,
    *,
    workers: int | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> list[TensorCount]:
    """Visit every merged tensor of the pool in chunks, and return how much of each was kept.

    `visit(name, start, base, deltas)` gets every chunk once, from `workers` threads, in no order: the base's elements
    [n] in their own dtype, the task vectors [N, n] in float32 (float64 where the base is float64). It returns how many
    elements were kept. At most `workers` chunks of all members are in memory.

    Raises InputError, naming file and tensor, for NaN or Inf, and for a member that equals the base everywhere.
    """
    differs = [False] * len(pool.members)
    kept = dict.fromkeys(pool.merged, 0)

    def work(batch: list[Piece]) -> list[tuple[str, int]]:
        counts = []
        for name, start, stop in batch:
            base, deltas = _read(pool, name, start, stop)
            for i in range(len(differs)):
                differs[i] = differs[i] or bool(torch.count_nonzero(deltas[i]))
            counts.append((name, visit(name, start, base, deltas)))
            if on_bytes:
                on_bytes((stop - start) * pool.base.dtype(name).itemsize * (1 + len(pool.members)))
        return counts

    with torch_threads(1), ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as threads:
        futures = [threads.submit(work, batch) for batch in _batches(pool)]
        try:
            for future in futures:
                for name, count in future.result():
                    kept[name] += count
        except BaseException:
            threads.shutdown(wait=True, cancel_futures=True)
            raise
    for member, different in zip(pool.members, differs, strict=True):
        if not different:
            raise InputError(
                f"{member.path} equals the base in every merged tensor; it was not fine-tuned, leave it out"
            )
    shapes = {name: pool.base.shape(name) for name in pool.merged}
    return [TensorCount(name, shape, elements(shape), kept[name]) for name, shape in shapes.items()]


def _batches(pool: Pool) -> Iterator[list[Piece]]:
    """Cut large tensors and gather small ones, so that a job has about one chunk of work."""
    batch: list[Piece] = []
    size = 0
    for name in pool.merged:
        total = elements(pool.base.shape(name))
        for start in range(0, total, CHUNK):
            stop = min(start + CHUNK, total)
            batch.append((name, start, stop))
            size += stop - start
            if size >= CHUNK:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _read(pool: Pool, name: str, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Return the base's chunk in its own dtype and the task vectors [N, n] in the dtype of the arithmetic."""
    base = pool.base.read(name, start, stop)
    exact = work_dtype(base.dtype)
    origin = base.to(exact)
    deltas = torch.empty(len(pool.members), stop - start, dtype=exact)
    for i, member in enumerate(pool.members):
        torch.sub(member.read(name, start, stop).to(exact), origin, out=deltas[i])
    if not torch.isfinite(deltas).all():
        _blame(pool, name, start, stop)
    return base, deltas


def work_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which weights of `dtype` are subtracted, merged and applied."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _blame(pool: Pool, name: str, start: int, stop: int) -> None:
    for checkpoint in (pool.base, *pool.members):
        if not torch.isfinite(checkpoint.read(name, start, stop)).all():
            raise InputError(f"{checkpoint.path}: tensor {name} holds NaN or Inf; a diverged run cannot be merged")
    raise InputError(f"tensor {name}: a difference to the base overflows; a diverged run cannot be merged")
