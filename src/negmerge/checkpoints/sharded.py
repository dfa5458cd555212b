"""A checkpoint in several files, with an index that says which tensor is where."""

import json
from collections.abc import Callable
from pathlib import Path

from negmerge.checkpoints.base import Checkpoint, OpenFile, is_name
from negmerge.checkpoints.dtypes import DType, Raw
from negmerge.checkpoints.foreign import refuse_quantised
from negmerge.checkpoints.plain_file import read_small
from negmerge.errors import InputError, listing

INDEX_LIMIT = 100_000_000


class Sharded(Checkpoint):
    """Shards seen as one checkpoint: the tensors of the first file, then those of the second, and so on.

    Raises InputError for an index that is not what the format says, that points out of its folder, whose shards are
    missing, or which does not name exactly the tensors that the shards hold.
    """

    def __init__(self, index: Path, shown: Path, open_file: Callable[[Path, Path], Checkpoint]) -> None:
        self.path = shown
        self._shards: list[Checkpoint] = []
        try:
            wanted = _weight_map(index)
            self.files = tuple(index.parent / name for name in sorted(set(wanted.values())))
            missing = [file.name for file in self.files if not file.is_file()]
            if missing:
                raise InputError(listing(f"{index}: {len(missing)} shards are missing; fetch them again:", missing))
            self._of: dict[str, Checkpoint] = {}
            problems = []
            for file in self.files:
                shard = open_file(file, file)
                self._shards.append(shard)
                for name in shard.names:
                    if wanted.get(name) != file.name:
                        problems.append(f"{name} is in {file.name}, the index says {wanted.get(name, 'nothing')}")
                    else:
                        self._of[name] = shard
            problems += [f"{name} is not in {file}" for name, file in wanted.items() if name not in self._of]
            if problems:
                raise InputError(listing(f"{index} does not fit its shards; fetch or write them again:", problems))
            refuse_quantised({name: file.dtype(name).code for name, file in self._of.items()}, shown)
        except BaseException:
            self.close()
            raise
        self.names = tuple(self._of)
        self.metadata = dict(self._shards[0].metadata) if self._shards else {}
        self.tied = {name: first for shard in self._shards for name, first in shard.tied.items()}

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._of[name].shape(name)

    def dtype(self, name: str) -> DType:
        """Return the dtype of a tensor."""
        return self._of[name].dtype(name)

    def raw(self, name: str, start: int = 0, stop: int | None = None) -> Raw:
        """Return elements start … stop of the flattened tensor as they are stored, as a new 1-D array."""
        return self._of[name].raw(name, start, stop)

    def locate(self, name: str) -> tuple[int, int] | None:
        """Return where the plain bytes of a tensor lie."""
        return self._of[name].locate(name)

    def opened(self) -> tuple[OpenFile, ...]:
        """Return the shards."""
        return tuple(file for shard in self._shards for file in shard.opened())

    def close(self) -> None:
        """Release the files."""
        for shard in self._shards:
            shard.close()


def _weight_map(index: Path) -> dict[str, str]:
    def fail(what: str) -> InputError:
        return InputError(f"{index} is no index of shards: {what}; fetch or write it again")

    try:
        content = json.loads(read_small(index, INDEX_LIMIT), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise fail("it is not JSON, or names a tensor twice") from None
    wanted = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(wanted, dict) or not wanted:
        raise fail("it has no weight_map")
    for name, file in wanted.items():
        if not is_name(name):
            raise fail(f"no tensor can be named {name!r:.80}")
        if not _is_file_name(file):
            raise fail(f"tensor {name} points at {file!r:.80}, which is no file name beside it")
    return wanted


def _is_file_name(file: object) -> bool:
    plain = isinstance(file, str) and is_name(file) and len(file.encode()) <= 255
    return plain and file == Path(str(file)).name and file not in ("", ".", "..")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found
