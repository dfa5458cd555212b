"""A checkpoint under other names: with a second name of tied weights that it lacks, or with wrappers taken off."""

from collections.abc import Mapping, Sequence

from negmerge.checkpoints.base import Checkpoint, OpenFile
from negmerge.checkpoints.dtypes import DType, Raw


class Aliased(Checkpoint):
    """A checkpoint with other names for tensors that it has; `alias` maps each to the name it stands for.

    `names` are those that are seen; without them, its own and the others. `tied` are names of the checkpoint itself
    that are known to be tied, beside those that its format can tell.
    """

    def __init__(
        self,
        inner: Checkpoint,
        alias: Mapping[str, str],
        tied: Mapping[str, str] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        self._inner = inner
        self._alias = alias
        self.path, self.files, self.metadata, self.notes = inner.path, inner.files, inner.metadata, inner.notes
        known = {**inner.tied, **(tied or {})}
        if names is None:
            self.names = (*inner.names, *alias)
            self.tied = {**known, **{name: known.get(own, own) for name, own in alias.items()}}
        else:
            self.names = tuple(names)
            seen = {alias.get(name, name): name for name in names}
            self.tied = {seen[name]: seen[own] for name, own in known.items() if name in seen and own in seen}

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
