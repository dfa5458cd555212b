"""Importance: a weight file with the base's names, for instance Fisher information, that multiplies a merged vector."""

import numpy as np

from negmerge.checkpoints import Checkpoint
from negmerge.checkpoints.dtypes import to_floats
from negmerge.errors import InputError
from negmerge.merging.applying import Floats
from negmerge.merging.hashes import InputHashes


def read_importance(weights: Checkpoint, name: str, start: int, stop: int, hashes: InputHashes) -> Floats:
    """Return elements w of the flattened tensor `name`, in float32 (float64 where they are stored so).

    Raises InputError, naming file and tensor, for NaN, Inf and negative numbers: a sign is the term's, not the
    element's, and gradients that were not squared are no importance.
    """
    values = to_floats(hashes.read(weights, name, start, stop), weights.dtype(name))
    if not np.isfinite(values).all():
        raise InputError(f"{weights.path}: tensor {name} holds NaN or Inf; an importance is a finite number")
    if len(values) and values.min() < 0:
        raise InputError(
            f"{weights.path}: tensor {name} holds {values.min():g}; an importance is 0 or more: "
            "square gradients, or take their magnitude"
        )
    return values
