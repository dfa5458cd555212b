"""Where the compiled loops find the tensors of a pool: descriptors, offsets and kinds of every checkpoint."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from negmerge.checkpoints import Checkpoint
from negmerge.checkpoints.base import elements
from negmerge.checkpoints.dtypes import BFLOAT16, FLOAT16, FLOAT32
from negmerge.merging.compiled import reading
from negmerge.merging.passes.jobs import Piece
from negmerge.merging.pool.fitted import Pool

KINDS = {FLOAT32: reading.FLOAT32, BFLOAT16: reading.BFLOAT16, FLOAT16: reading.FLOAT16}
NOWHERE, UNKNOWN = (-3, 0), 255
Array = np.ndarray[Any, Any]


class Sources:
    """The merged tensors of a pool that the loops can read: arrays [tensors, 1 + N], checkpoint 0 is the base.

    A tensor is readable where every checkpoint can point at its plain bytes, in a dtype that the loops know.
    `places` is [tensors, 1 + N, 2]: an open file, or −1 for memory, and where the tensor begins there; `sizes` are
    elements, `widths` the bytes of one.
    """

    def __init__(self, pool: Pool) -> None:
        checkpoints: tuple[Checkpoint, ...] = (pool.base, *pool.members)
        names = pool.merged
        located = [[checkpoint.locate(name) or NOWHERE for name in names] for checkpoint in checkpoints]
        kinds = [[KINDS.get(checkpoint.dtype(name), UNKNOWN) for name in names] for checkpoint in checkpoints]
        places = np.array(located, np.int64).reshape(len(checkpoints), len(names), 2).transpose(1, 0, 2)
        known = np.array(kinds, np.uint8).reshape(len(checkpoints), len(names)).T
        readable = ((known != UNKNOWN) & (places[:, :, 0] != NOWHERE[0])).all(1)
        self.places = np.ascontiguousarray(places[readable])
        self.kinds = np.ascontiguousarray(known[readable])
        self.names = tuple(name for name, fine in zip(names, readable.tolist(), strict=True) if fine)
        self.index = {name: i for i, name in enumerate(self.names)}
        self.widths = np.where(self.kinds == reading.FLOAT32, 4, 2)
        self.sizes = np.array([elements(pool.base.shape(name)) for name in self.names], np.int64)
        self.vectors = np.array([len(pool.base.shape(name)) < 2 for name in self.names], np.uint8)

    def rows(self, pieces: Sequence[Piece]) -> Array:
        """Return the rows of the arrays where the tensors of pieces stand."""
        return np.fromiter((self.index[name] for name, _, _ in pieces), np.int64, len(pieces))
