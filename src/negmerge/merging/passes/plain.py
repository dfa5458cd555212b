"""The plain way: task vectors of a piece as one array [N, n], merged by the method's own function in torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from negmerge.checkpoints.adapter import BoundAdapter
from negmerge.checkpoints.base import elements
from negmerge.checkpoints.dtypes import exact, from_floats, is_finite, to_floats
from negmerge.checkpoints.pieces import ELEMENTS
from negmerge.errors import InputError
from negmerge.merging.applying import Floats, add_step, effect_of, no_effect
from negmerge.merging.hashes import InputHashes
from negmerge.merging.method import Place
from negmerge.merging.passes.jobs import OnBytes, Piece, cut, in_threads
from negmerge.merging.pool.fitted import Pool

if TYPE_CHECKING:
    from negmerge.merging.term import Statistics, Term

CHUNK = 2**18  # elements of one member in a job: 1 MiB of float32
CHUNK_ON_DEVICE = 2**20
MEMBERS_IN_FULL = 8  # with more members the chunks get shorter, so that memory stays the same
SAMPLED, EVERY = 512, 2**14  # of each 2^14 elements of a tensor the first 512 say how the members agree

Array = np.ndarray[Any, Any]
NO_HASHES = InputHashes()
NOTHING: Floats = np.empty(0, np.float32)


@dataclass(frozen=True)
class PieceFound:
    """What a merged piece is, τ, and what was found in it: see Tally.add.

    `effect` is that of α = 1 (see applying.effect_of), where the pool is inspected.
    """

    delta: Floats
    kept: int
    differs: Array
    products: Array
    agreement: Array
    effect: Array = field(default_factory=no_effect)


def chunk_of(members: int, device: str = "cpu") -> int:
    """Return how many elements of a tensor a job of the plain way has: whole pieces of the hash, one at least."""
    full = CHUNK if device == "cpu" else CHUNK_ON_DEVICE
    chunk = full * MEMBERS_IN_FULL // max(MEMBERS_IN_FULL, members)
    return chunk if full < ELEMENTS else max(1, chunk // ELEMENTS) * ELEMENTS


def merge_piece(term: "Term", piece: Piece, statistics: "Statistics", device: str, hashes: InputHashes) -> PieceFound:
    """Merge a piece of a tensor by the method's own function.

    Raises InputError, naming file and tensor, for NaN or Inf.
    """
    import torch

    name, start, stop = piece
    base, deltas = read_deltas(term.pool, name, start, stop, hashes)
    statistic = statistics.get(name)
    found = None if statistic is None else torch.from_numpy(np.asarray(statistic))
    delta, kept = term.merger.merge(torch.from_numpy(deltas), device, Place(name, start), found)
    sampled = _sampled(start, stop)
    vector = len(term.pool.base.shape(name)) < 2
    agreement = _agreement(base[sampled], deltas[:, sampled], vector)
    return PieceFound(delta.numpy(), kept, np.any(deltas != 0, axis=1), *agreement)


def inspect_piece(term: "Term", piece: Piece) -> PieceFound:
    """Count what a method keeps of a piece of a tensor, multiply all its elements, and measure the effect of α = 1.

    Raises InputError, naming file and tensor, for NaN or Inf.
    """
    import torch

    name, start, stop = piece
    base, deltas = read_deltas(term.pool, name, start, stop)
    delta, kept = term.merger.merge(torch.from_numpy(deltas), "cpu", Place(name, start))
    dtype = term.pool.base.dtype(name)
    values = add_step(base, delta.numpy(), 1.0, add=False)
    out = from_floats(values, dtype)
    # What leaves the range is refused by a merge, not here.
    effect = effect_of(base, delta.numpy(), values, out, dtype) if is_finite(out, dtype) else no_effect()
    agreement = _agreement(base, deltas, len(term.pool.base.shape(name)) < 2)
    return PieceFound(NOTHING, kept, np.any(deltas != 0, axis=1), *agreement, effect)


def _agreement(base: Array, deltas: Array, vector: bool) -> tuple[Array, Array]:
    """Return products and counts of elements of a matrix, or of a vector, of a pool: see Agreement."""
    rows = np.concatenate([base[None], deltas]).astype(np.float64)
    signs = np.sign(rows[1:])
    agreeing = int(np.count_nonzero(np.abs(signs.sum(0)) == len(deltas)))
    zeros = np.count_nonzero(signs == 0, axis=1)
    products = np.zeros((2, len(rows), len(rows)))
    products[int(vector)] = np.tril(np.einsum("ik,jk->ij", rows, rows))
    return products, np.array([rows.shape[1], agreeing, *zeros], np.int64)


def _sampled(start: int, stop: int) -> Array:
    places = np.arange(start, stop)
    found: Array = np.flatnonzero(places % EVERY < SAMPLED)
    return found


def read_deltas(pool: Pool, name: str, start: int, stop: int, hashes: InputHashes = NO_HASHES) -> tuple[Array, Array]:
    """Return the base's elements and the task vectors [N, n] of a piece, both in the dtype of the arithmetic.

    Raises InputError, naming file and tensor, for NaN or Inf.
    """
    base = to_floats(hashes.read(pool.base, name, start, stop), pool.base.dtype(name))
    deltas = np.empty((len(pool.members), stop - start), exact(pool.base.dtype(name)).stored)
    with np.errstate(over="ignore", invalid="ignore"):  # found below
        for i, member in enumerate(pool.members):
            if isinstance(member, BoundAdapter):
                deltas[i] = member.read_delta(name, start, stop).numpy()
            else:
                values = to_floats(hashes.read(member, name, start, stop), member.dtype(name))
                np.subtract(values.astype(base.dtype, copy=False), base, out=deltas[i])
    if not np.isfinite(deltas).all() or not np.isfinite(base).all():
        refuse_infinite(pool, name, start, stop)
    return base, deltas


def refuse_infinite(pool: Pool, name: str, start: int, stop: int) -> NoReturn:
    """Raise InputError that names the checkpoint whose piece of a tensor holds NaN or Inf, or the overflow."""
    for checkpoint in (pool.base, *pool.members):
        if not is_finite(checkpoint.raw(name, start, stop), checkpoint.dtype(name)):
            raise InputError(f"{checkpoint.path}: tensor {name} holds NaN or Inf; a diverged run cannot be merged")
    raise InputError(f"tensor {name}: a difference to the base overflows; a diverged run cannot be merged")


def visit_deltas(
    pool: Pool,
    names: Sequence[str],
    visit: Callable[[str, int, Array], None],
    workers: int | None = None,
    on_bytes: OnBytes | None = None,
) -> None:
    """Call visit(name, start, deltas) for every piece of some tensors, from threads, in no order.

    Raises InputError, naming file and tensor, for NaN or Inf.
    """

    def work(batch: list[Piece]) -> None:
        for name, start, stop in batch:
            visit(name, start, read_deltas(pool, name, start, stop)[1])
            if on_bytes:
                on_bytes((stop - start) * piece_width(pool, name))

    sizes = {name: elements(pool.base.shape(name)) for name in names}
    for _ in in_threads(work, cut(sizes, names, chunk_of(len(pool.members))), workers):
        pass


def piece_width(pool: Pool, name: str) -> int:
    """Return the bytes of one element of a tensor, of base and members together."""
    return sum(checkpoint.dtype(name).itemsize for checkpoint in (pool.base, *pool.members))
