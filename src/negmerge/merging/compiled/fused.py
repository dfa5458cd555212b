"""The quick way for the common methods: whole jobs in one compiled call, outside the interpreter's lock.

It gives the same bits as the plain functions; what it cannot read (float64, adapters, tensors that are no plain bytes
of a file or of memory) takes the plain way, and so does a pool too small to be worth loading the compiler for.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from negmerge.checkpoints import Checkpoint
from negmerge.checkpoints.dtypes import BFLOAT16, FLOAT16, FLOAT32
from negmerge.merging.applying import Outlet
from negmerge.merging.compiled import kernels
from negmerge.merging.merger import Merger
from negmerge.merging.methods.consensus import votes_needed
from negmerge.merging.passes.streaming import OnBytes, Piece, Tally, cut, in_threads, read_deltas
from negmerge.merging.pool import Pool

CHUNK = 2**19  # elements of a tensor in one call: members are read in blocks, so only the result is held
KINDS = {FLOAT32: kernels.FLOAT32, BFLOAT16: kernels.BFLOAT16, FLOAT16: kernels.FLOAT16}
OPERATIONS = {"delta": kernels.DELTA, "subtract": kernels.SUBTRACT, "add": kernels.ADD}


@dataclass(frozen=True)
class Rule:
    """How the compiled loop decides: its kind, and the votes that m non-zero members must give, for m from 0 to N."""

    kind: int
    need: np.ndarray


def rule_of(merger: Merger, members: int) -> Rule | None:
    """Return the rule of a method that has a compiled loop, or None."""
    nothing = np.zeros(members + 1, np.int32)
    if merger.name == "uniform" or (merger.name == "task-arithmetic" and not merger.settings and members == 1):
        return Rule(kernels.SUM, nothing)
    if merger.name in ("ties", "majority-sign"):
        by_count = merger.settings.get("elect_by", "mass") == "count"
        return Rule(kernels.ELECT_COUNT if by_count else kernels.ELECT_MASS, nothing)
    if merger.name != "consensus":
        return None
    threshold = merger.settings.get("threshold", 1.0)
    zeros = merger.settings.get("zeros", "veto")
    agreeing = merger.settings.get("mean", "all") == "agreeing"
    if zeros == "veto":
        votes = [votes_needed(threshold, members)] * (members + 1)
        if votes[0] == members and not agreeing:
            return Rule(kernels.STRICT, nothing)
    else:
        quorum, never = -(-members // 2), members + 1
        votes = [max(1, votes_needed(threshold, m)) if m >= quorum else never for m in range(members + 1)]
    return Rule(kernels.COUNT_AGREEING if agreeing else kernels.COUNT_ALL, np.array(votes, np.int32))


def fusible(pool: Pool) -> list[str]:
    """Return the merged names that every checkpoint can point at, in a dtype that the compiled loop reads."""

    def plain(checkpoint: Checkpoint, name: str) -> bool:
        return checkpoint.dtype(name) in KINDS and checkpoint.locate(name) is not None

    return [name for name in pool.merged if all(plain(c, name) for c in (pool.base, *pool.members))]


def merge_fused(
    pool: Pool,
    names: Sequence[str],
    rule: Rule,
    merger: Merger,
    outlet: Outlet,
    tally: Tally,
    statistics: Mapping[str, Tensor],
    *,
    workers: int | None = None,
    on_bytes: OnBytes | None = None,
) -> None:
    """Merge the tensors `names` and hand them to `outlet`; what was found goes into `tally`.

    `statistics` has the cutoffs [N, 1] of each tensor for a method that trims.

    Raises InputError, naming file and tensor, for NaN or Inf.
    """
    checkpoints = (pool.base, *pool.members)
    places = {name: [located(c, name) for c in checkpoints] for name in names}
    kinds = {name: [KINDS[c.dtype(name)] for c in checkpoints] for name in names}
    width = {name: sum(c.dtype(name).itemsize for c in checkpoints) for name in names}
    cutoffs = {name: value[:, 0].numpy() for name, value in statistics.items()}
    untrimmed = np.zeros(len(pool.members), np.float32)
    scratch = threading.local()
    differs = np.array(tally.differs, np.uint8)
    with np.errstate(over="ignore"):  # an α beyond float32 is found by what it makes of the weights
        alpha = np.float32(outlet.alpha)

    def work(batch: list[Piece]) -> list[tuple[str, int]]:
        if not hasattr(scratch, "floats"):
            scratch.floats = np.empty((4, kernels.BLOCK), np.float32)
            scratch.group = np.empty((kernels.GROUP, kernels.BLOCK), np.float32)
            scratch.counts = np.empty((2, kernels.BLOCK), np.int32)
            scratch.raw = np.empty(kernels.BLOCK, np.uint16)
            scratch.out = np.empty(CHUNK, np.float32)
        located = np.array([places[name] for name, _, _ in batch], np.int64)
        lengths = np.array([stop - start for _, start, stop in batch], np.int64)
        kept = np.zeros(len(batch), np.int64)
        states = kernels.merge_pieces(
            np.ascontiguousarray(located[:, :, 0]),
            np.ascontiguousarray(located[:, :, 1]),
            np.array([kinds[name] for name, _, _ in batch], np.uint8),
            np.array([start for _, start, _ in batch], np.int64),
            lengths,
            rule.kind,
            rule.need,
            np.stack([cutoffs.get(name, untrimmed) for name, _, _ in batch]),
            OPERATIONS[outlet.operation],
            alpha,
            scratch.floats,
            scratch.group,
            scratch.counts,
            scratch.raw,
            differs,
            scratch.out,
            kept,
        )
        out = torch.from_numpy(scratch.out)
        at = 0
        for k, (name, start, stop) in enumerate(batch):
            if states[k] == kernels.FINE:
                outlet.put_ready(name, start, out[at : at + stop - start])
            else:  # the plain way says what is wrong, or is right where only an intermediate sum overflowed
                base, deltas = read_deltas(pool, name, start, stop)
                delta, kept[k] = merger.merge(deltas, statistic=statistics.get(name))
                outlet.put(name, start, base, delta)
            if on_bytes:
                on_bytes((stop - start) * width[name])
            at += stop - start
        return [(name, int(count)) for (name, _, _), count in zip(batch, kept, strict=True)]

    for counts in in_threads(work, cut(pool, names, CHUNK), workers):
        for name, count in counts:
            tally.kept[name] += count
    tally.differs[:] = [bool(flag) for flag in differs]


def located(checkpoint: Checkpoint, name: str) -> tuple[int, int]:
    """Return where the bytes of a tensor lie that is known to have a place."""
    place: Any = checkpoint.locate(name)
    return int(place[0]), int(place[1])
