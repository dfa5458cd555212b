"""A checkpoint under other names: with a second name of tied weights that it lacks, or with wrappers taken off."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from negmerge.checkpoints.base import Checkpoint


class Aliased:
    """A checkpoint with other names for tensors that it has; `alias` maps each to the name it stands for.

    `names` are those that are seen; without them, its own and the others.
    """

    def __init__(self, inner: Checkpoint, alias: Mapping[str, str], names: Sequence[str] | None = None) -> None:
        self._inner = inner
        self._alias = alias
        self.path, self.files, self.metadata = inner.path, inner.files, inner.metadata
        self.names = (*inner.names, *alias) if names is None else tuple(names)
        self.tied = {**inner.tied, **alias} if names is None else self._renamed_ties()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._inner.shape(self._alias.get(name, name))

    def dtype(self, name: str) -> torch.dtype:
        """Return the dtype of a tensor."""
        return self._inner.dtype(self._alias.get(name, name))

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Return elements start … stop of the flattened tensor as a new 1-D tensor."""
        return self._inner.read(self._alias.get(name, name), start, stop)

    def locate(self, name: str) -> tuple[int, int] | None:
        """Return where the plain bytes of a tensor lie."""
        return self._inner.locate(self._alias.get(name, name))

    def close(self) -> None:
        """Release the file."""
        self._inner.close()

    def _renamed_ties(self) -> dict[str, str]:
        """Return the ties of the checkpoint under the names that are seen."""
        seen = {self._alias.get(name, name): name for name in self.names}
        return {seen[name]: seen[first] for name, first in self._inner.tied.items() if name in seen and first in seen}
