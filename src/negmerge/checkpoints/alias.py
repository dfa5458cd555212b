"""A checkpoint that lacks the second name of tied weights, seen with that name."""

from collections.abc import Mapping

from negmerge.checkpoints.base import Checkpoint, OpenFile
from negmerge.checkpoints.dtypes import DType, Raw


class Aliased(Checkpoint):
    """A checkpoint with further names for tensors that it has; `alias` maps each to the name it stands for.

    `tied` are names of the checkpoint itself that are known to be tied, beside those that its format can tell.
    """

    def __init__(self, inner: Checkpoint, alias: Mapping[str, str], tied: Mapping[str, str] | None = None) -> None:
        self._inner = inner
        self._alias = alias
        self.path, self.files, self.metadata = inner.path, inner.files, inner.metadata
        self.names = (*inner.names, *alias)
        known = {**inner.tied, **(tied or {})}
        self.tied = {**known, **{name: known.get(own, own) for name, own in alias.items()}}

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._inner.shape(self._alias.get(name, name))

    def dtype(self, name: str) -> DType:
        """Return the dtype of a tensor."""
        return self._inner.dtype(self._alias.get(name, name))

    def raw(self, name: str, start: int = 0, stop: int | None = None) -> Raw:
        """Return elements start … stop of the flattened tensor as they are stored, as a new 1-D array."""
        return self._inner.raw(self._alias.get(name, name), start, stop)

    def locate(self, name: str) -> tuple[int, int] | None:
        """Return where the plain bytes of a tensor lie."""
        return self._inner.locate(self._alias.get(name, name))

    def opened(self) -> tuple[OpenFile, ...]:
        """Return the files that are held open."""
        return self._inner.opened()

    def close(self) -> None:
        """Release the file."""
        self._inner.close()
