"""The work of a pass: pieces of tensors, gathered into jobs of one size, done by threads and handed back in order."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from negmerge.execution import torch_threads

Job = TypeVar("Job")
Result = TypeVar("Result")
Piece = tuple[str, int, int]  # tensor, first element, end
OnBytes = Callable[[int], None]
AHEAD = 4  # jobs for each thread that wait to be done or to be handed back


def cut(sizes: Mapping[str, int], names: Iterable[str], chunk: int) -> Iterator[list[Piece]]:
    """Cut large tensors and gather small ones, so that a job has about one chunk of elements; `sizes` of each name."""
    batch: list[Piece] = []
    size = 0
    for name in names:
        total = sizes[name]
        for start in range(0, total, chunk):
            stop = min(start + chunk, total)
            if size and size + stop - start > chunk:
                yield batch
                batch, size = [], 0
            batch.append((name, start, stop))
            size += stop - start
    if batch:
        yield batch


def in_threads(work: Callable[[Job], Result], jobs: Iterable[Job], workers: int | None = None) -> Iterator[Result]:
    """Yield work(job) of every job, in their order; `workers` threads, up to 8 as there are processors."""
    count = workers or min(8, os.cpu_count() or 1)
    # Where torch is not loaded, nothing here computes with it.
    alone: AbstractContextManager[None] = torch_threads(1) if "torch" in sys.modules else nullcontext()
    with alone, ThreadPoolExecutor(count) as threads:
        waiting = []
        try:
            for job in jobs:
                waiting.append(threads.submit(work, job))
                if len(waiting) > AHEAD * count:
                    yield waiting.pop(0).result()
            for future in waiting:
                yield future.result()
        except BaseException:
            threads.shutdown(wait=True, cancel_futures=True)
            raise
