"""One pass over a pool in chunks: read a chunk of every member, hand it on, forget it."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from negmerge.checkpoints.adapter import BoundAdapter
from negmerge.checkpoints.base import elements
from negmerge.checkpoints.dtypes import exact, is_finite
from negmerge.errors import InputError
from negmerge.execution import torch_threads
from negmerge.merging.pool import Pool

CHUNK = 2**18  # elements of one member in a job: 1 MiB of float32
MEMBERS_IN_FULL = 8  # with more members the chunks get shorter, so that memory stays the same

Job = TypeVar("Job")
Result = TypeVar("Result")
Piece = tuple[str, int, int]
Visit = Callable[[str, int, Tensor, Tensor], int]
OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class TensorCount:
    """How much of one merged tensor was kept."""

    name: str
    shape: tuple[int, ...]
    elements: int
    kept: int


class Tally:
    """What the passes over a pool found: how much of each tensor was kept, and which members differ from the base."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.kept = dict.fromkeys(pool.merged, 0)
        self.differs = [False] * len(pool.members)

    def counts(self) -> list[TensorCount]:
        """Return the count of each merged tensor.

        Raises InputError for a member that equals the base everywhere.
        """
        for member, different in zip(self._pool.members, self.differs, strict=True):
            if not different:
                raise InputError(
                    f"{member.path} equals the base in every merged tensor; it was not fine-tuned, leave it out"
                )
        shapes = {name: self._pool.base.shape(name) for name in self._pool.merged}
        return [TensorCount(name, shape, elements(shape), self.kept[name]) for name, shape in shapes.items()]


def stream(
    pool: Pool,
    visit: Visit,
    *,
    workers: int | None = None,
    on_bytes: OnBytes | None = None,
    names: Sequence[str] | None = None,
    tally: Tally | None = None,
) -> list[TensorCount]:
    """Visit every merged tensor of the pool in chunks, and return how much of each was kept.

    `visit(name, start, base, deltas)` gets every chunk once, from `workers` threads, in no order: the base's elements
    [n] in their own dtype, the task vectors [N, n] in float32 (float64 where the base is float64). It returns how many
    elements were kept. At most `workers` chunks of all members are in memory, shorter ones for a large pool.

    With a `tally` only `names` are visited, and what was found goes into it: others may add to it.
    Raises InputError, naming file and tensor, for NaN or Inf, and for a member that equals the base everywhere.
    """
    found = tally or Tally(pool)

    def work(batch: list[Piece]) -> list[tuple[str, int]]:
        counts = []
        for name, start, stop in batch:
            base, deltas = read_deltas(pool, name, start, stop)
            for i, known in enumerate(found.differs):
                found.differs[i] = known or bool(torch.count_nonzero(deltas[i]))
            counts.append((name, visit(name, start, base, deltas)))
            if on_bytes:
                on_bytes((stop - start) * pool.base.dtype(name).itemsize * (1 + len(pool.members)))
        return counts

    batches = cut(pool, pool.merged if names is None else names, chunk_of(pool))
    for counts in in_threads(work, batches, workers):
        for name, count in counts:
            found.kept[name] += count
    return found.counts() if tally is None else []


def chunk_of(pool: Pool) -> int:
    """Return how many elements of a tensor `stream` hands on at a time."""
    return max(1, CHUNK * MEMBERS_IN_FULL // max(MEMBERS_IN_FULL, len(pool.members)))


def in_threads(work: Callable[[Job], Result], jobs: Iterable[Job], workers: int | None = None) -> Iterator[Result]:
    """Yield work(job) of every job, in their order; `workers` threads, up to 8 as there are processors."""
    with torch_threads(1), ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as threads:
        futures = [threads.submit(work, job) for job in jobs]
        try:
            for future in futures:
                yield future.result()
        except BaseException:
            threads.shutdown(wait=True, cancel_futures=True)
            raise


def cut(pool: Pool, names: Iterable[str], chunk: int) -> Iterator[list[Piece]]:
    """Cut large tensors and gather small ones, so that a job has about one chunk of work."""
    batch: list[Piece] = []
    size = 0
    for name in names:
        total = elements(pool.base.shape(name))
        for start in range(0, total, chunk):
            stop = min(start + chunk, total)
            if size and size + stop - start > chunk:
                yield batch
                batch, size = [], 0
            batch.append((name, start, stop))
            size += stop - start
    if batch:
        yield batch


def read_deltas(pool: Pool, name: str, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Return the base's chunk in its own dtype and the task vectors [N, n] in the dtype of the arithmetic.

    Raises InputError, naming file and tensor, for NaN or Inf.
    """
    base = pool.base.read(name, start, stop)
    wide = exact(pool.base.dtype(name)).torch
    origin = base.to(wide)
    deltas = torch.empty(len(pool.members), stop - start, dtype=wide)
    for i, member in enumerate(pool.members):
        if isinstance(member, BoundAdapter):
            deltas[i] = member.read_delta(name, start, stop)
        else:
            torch.sub(member.read(name, start, stop).to(wide), origin, out=deltas[i])
    if not torch.isfinite(deltas).all():
        _blame(pool, name, start, stop)
    return base, deltas


def _blame(pool: Pool, name: str, start: int, stop: int) -> None:
    for checkpoint in (pool.base, *pool.members):
        if not is_finite(checkpoint.raw(name, start, stop), checkpoint.dtype(name)):
            raise InputError(f"{checkpoint.path}: tensor {name} holds NaN or Inf; a diverged run cannot be merged")
    raise InputError(f"tensor {name}: a difference to the base overflows; a diverged run cannot be merged")
