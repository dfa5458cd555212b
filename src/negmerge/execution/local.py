"""Jobs on this machine: in this process, or in worker processes that end with it."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

from negmerge.registry import import_files, imported_files

Spec = TypeVar("Spec")
Result = TypeVar("Result")


def run_jobs(
    job: Callable[[Spec], Result],
    specs: Sequence[Spec],
    *,
    workers: int = 1,
    threads: int = 1,
    on_done: Callable[[Spec, Result], None] | None = None,
) -> list[Result]:
    """Return `[job(spec) for spec in specs]`, computed by at most `workers` processes of `threads` threads each.

    `job` is a function of a module and `specs` can be pickled. Each worker computes with `threads` torch threads,
    and so does this process when `workers` is 1: results do not depend on how many workers there are. A worker
    ends as soon as this process is gone, however it went. The first error of a job is raised here, once those
    already running have ended; what other jobs had finished stays on disk.
    """
    if workers <= 1 or len(specs) <= 1:
        with torch_threads(threads):
            return [_run_here(job, spec, on_done) for spec in specs]
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    arguments = (os.getpid(), threads, imported_files())
    pool = ProcessPoolExecutor(
        min(workers, len(specs)), mp_context=context, initializer=_start_worker, initargs=arguments
    )
    with pool:
        futures = {pool.submit(job, spec): i for i, spec in enumerate(specs)}
        try:
            waiting = set(futures)
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in sorted(done, key=futures.__getitem__):
                    result = future.result()
                    if on_done:
                        on_done(specs[futures[future]], result)
        except KeyboardInterrupt:  # nobody waits for jobs that were stopped: they go on from what they wrote
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
            raise
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [future.result() for future in futures]


def _run_here(job: Callable[[Any], Any], spec: Any, on_done: Callable[[Any, Any], None] | None) -> Any:
    result = job(spec)
    if on_done:
        on_done(spec, result)
    return result


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Compute with `count` torch threads inside the block, and as before after it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _start_worker(parent: int, threads: int, plug_ins: list[str]) -> None:
    import torch

    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent as well, which ends its workers

    def end_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    import_files(plug_ins)  # jobs hold objects of classes that stand in them
