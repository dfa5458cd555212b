"""Tied weights: tensors of several names that are one, found by shared storage, by their names, and by their values.

Values are read where names or a first look point to a tie: the middle of each tensor first, then all of it, in pieces.
"""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from negmerge.checkpoints import Checkpoint
from negmerge.checkpoints.adapter import Adapter, BoundAdapter, Places
from negmerge.checkpoints.base import elements
from negmerge.checkpoints.dtypes import FLOAT32, DType, Raw, to_floats
from negmerge.errors import InputError
from negmerge.merging.pool.tied_names import is_embedding, is_head, listed_head, says_tied, ties_words, twin_bias

PIECE = 2**20  # elements of a tensor in memory while two are compared
LOOK = 16  # elements in the middle of a tensor that tell most tensors apart


def groups(names: Iterable[str], tied: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the names of each tensor by the first of them; `tied` maps each further name to that first one."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(tied.get(name, name), []).append(name)
    return found


def are_equal(checkpoint: Checkpoint, a: str, b: str) -> bool:
    """Return whether two tensors of a checkpoint have one shape and the same values; reads no more than it must.

    Of an adapter its changes are compared: it is asked of names whose tensors are equal in the base.
    """
    if checkpoint.shape(a) != checkpoint.shape(b):
        return False
    if checkpoint.tied.get(a, a) == checkpoint.tied.get(b, b):
        return True
    read, dtype = _reader(checkpoint)
    return all(
        _same(read(a, start, stop), dtype(a), read(b, start, stop), dtype(b))
        for start, stop in _spans(checkpoint.shape(a))
    )


def is_constant(checkpoint: Checkpoint, name: str) -> bool:
    """Return whether all elements of a tensor are the same; reads up to the first that differs."""
    first: Raw | None = None
    for start, stop in _spans(checkpoint.shape(name)):
        values = checkpoint.raw(name, start, stop)
        first = values[:1] if first is None else first
        if bool((values != first).any()):
            return False
    return True


def ties_by_name(base: Checkpoint, config: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the names of a base that stand for the tensor of an earlier name: by shared storage, or listed and equal.

    A head is compared with embeddings unless the config says that they are not tied; embeddings with each other; the
    bias of a decoder with its twin only where the base has a config that ties them.
    """
    tied = dict(base.tied)
    heads_too = ties_words(config)
    listed = [name for name in base.names if is_embedding(name) or (heads_too and is_head(name))]
    roots: list[str] = []
    for name in listed:
        if name in tied or not _can_be_shared(base, name):
            continue
        twin = next((root for root in roots if are_equal(base, root, name)), None)
        if twin is not None and not is_constant(base, name):
            tied[name] = tied.get(twin, twin)
        else:
            roots.append(name)
    if config is not None and heads_too:
        known = frozenset(base.names)
        for name in base.names:
            other = twin_bias(name)
            if other in known and name not in tied and other not in tied and are_equal(base, name, str(other)):
                first, second = sorted((name, str(other)), key=base.names.index)
                tied[second] = first
    return _with_roots_first(base.names, tied)


def ties_by_value(base: Checkpoint, members: Sequence[Checkpoint], tied: Mapping[str, str]) -> dict[str, str]:
    """Return `tied` with further names of the base: equal, non-constant matrices that are equal in all members too.

    A member that has one of two names agrees. A pool of adapters alone cannot tell.
    """
    full = [(member, frozenset(member.names)) for member in members if not isinstance(member, BoundAdapter)]
    found = dict(tied)
    if not full:
        return found
    matrices: dict[tuple[Any, ...], list[str]] = {}
    for name in base.names:
        if name not in tied and _can_be_shared(base, name):
            matrices.setdefault((base.dtype(name), base.shape(name)), []).append(name)
    for names in matrices.values():
        for twins in _look_alike(base, names):
            first, *others = twins
            for name in others:
                both = [member for member, has in full if first in has and name in has]
                if all(are_equal(checkpoint, first, name) for checkpoint in (base, *both)):
                    found[name] = first
    return found


def equal_twin(member: Checkpoint, name: str, candidates: Collection[str]) -> str | None:
    """Return a name of `candidates` whose tensor in the member is the same as that of `name`, or None.

    The same by shared storage, or as an equal, non-constant matrix.
    """
    root = member.tied.get(name, name)
    shared = [other for other in member.names if member.tied.get(other, other) == root and other in candidates]
    if shared:
        return shared[0]
    if not _can_be_shared(member, name):
        return None
    shape = member.shape(name)
    for other in member.names:
        if other in candidates and member.shape(other) == shape and are_equal(member, name, other):
            return None if is_constant(member, name) else other
    return None


def implied_heads(
    base: Checkpoint,
    tied: Mapping[str, str],
    members: Sequence[Checkpoint | Adapter],
    config: Mapping[str, Any] | None,
    wanted: Callable[[str], bool] = lambda _: True,
) -> dict[str, str]:
    """Return the heads that a tied base does not store but members name or move apart, each with its embedding.

    An adapter that saves the embedding as a whole moves it apart from the head, where the embedding is `wanted`. Raises
    InputError where the name of that head cannot be known.
    """
    if not ties_words(config):
        return {}
    known = frozenset(base.names)
    embeddings = [n for n in base.names if is_embedding(n) and n not in tied and _can_be_shared(base, n)]
    headed = {tied.get(name, name) for name in base.names if is_head(name)}
    free = [name for name in embeddings if name not in headed]
    heads: dict[str, str] = {}
    if not free:
        return heads
    places = Places(base)
    for member in members:
        if isinstance(member, Adapter):
            named: dict[str, tuple[int, ...] | None] = {
                key: None for key in member.named if is_head(key) and places.of(key) is None
            }
        else:
            named = {key: member.shape(key) for key in member.names if is_head(key) and key not in known}
        for name, shape in named.items():
            fitting = [other for other in free if shape is None or base.shape(other) == shape]
            if len(fitting) == 1:
                heads.setdefault(name, fitting[0])
    for member in members:
        if isinstance(member, Adapter):
            whole = {places.of(key) for key, form in member.named.items() if form == "whole"}
            for name in [name for name in free if name in whole and wanted(name) and name not in heads.values()]:
                head = _looked_up(member, name, base, config)
                if head is not None:
                    heads[head] = name
    return heads


def _looked_up(adapter: Adapter, name: str, base: Checkpoint, config: Mapping[str, Any] | None) -> str | None:
    """Return the name of the head tied to an embedding that an adapter replaces; None where there is none."""
    if config is None:
        return None
    try:
        return listed_head(config, name)
    except LookupError as error:
        if not says_tied(config):
            return None
        raise InputError(
            f"{adapter.path} replaces {name}, which {base.path} ties to its head, and that is not known by name: "
            f"{error}; install transformers, or train the adapter with ensure_weight_tying"
        ) from None


def _can_be_shared(checkpoint: Checkpoint, name: str) -> bool:
    """Whether equal values can speak for a tie: a matrix of floats, and not an empty one."""
    shape = checkpoint.shape(name)
    return len(shape) > 1 and 0 not in shape and checkpoint.dtype(name).is_floating_point


def _with_roots_first(names: Sequence[str], tied: Mapping[str, str]) -> dict[str, str]:
    """Return the same ties, each by the name that comes first."""
    return {name: group[0] for group in groups(names, tied).values() for name in group[1:]}


def _look_alike(checkpoint: Checkpoint, names: Sequence[str]) -> Iterator[list[str]]:
    """Yield the names whose tensors, of one shape and dtype, are alike in three places, and not constant."""
    total = elements(checkpoint.shape(names[0]))
    alike = [list(names)]
    for place in (total // 2, total // 4, 3 * total // 4):
        looked = [_look(checkpoint, found, place, min(place + LOOK, total)) for found in alike if len(found) > 1]
        alike = [found for classes in looked for found in classes.values()]
    for found in alike:
        if len(found) > 1 and not is_constant(checkpoint, found[0]):
            yield found


def _look(checkpoint: Checkpoint, names: Sequence[str], start: int, stop: int) -> dict[bytes, list[str]]:
    """Return names by the bytes of the same elements of their tensors."""
    seen: dict[bytes, list[str]] = {}
    for name in names:
        place = checkpoint.locate(name)
        if place is None or place[0] < 0:
            some = checkpoint.raw(name, start, stop).tobytes()
        else:  # a model may have thousands of such names
            width = checkpoint.dtype(name).itemsize
            some = os.pread(place[0], width * (stop - start), place[1] + width * start)
        seen.setdefault(some, []).append(name)
    return seen


def _spans(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield the middle of a tensor, then all of it in pieces."""
    total = elements(shape)
    if total > PIECE:
        yield total // 2, min(total // 2 + LOOK, total)
    yield from ((start, min(start + PIECE, total)) for start in range(0, total, PIECE))


def _reader(checkpoint: Checkpoint) -> tuple[Callable[[str, int, int], Raw], Callable[[str], DType]]:
    """Return how the elements of a checkpoint are read, and their dtype; of an adapter those of its changes."""
    if not isinstance(checkpoint, BoundAdapter):
        return checkpoint.raw, checkpoint.dtype
    changes = checkpoint
    return lambda name, start, stop: changes.read_delta(name, start, stop).numpy(), lambda _: FLOAT32


def _same(a: Raw, a_dtype: DType, b: Raw, b_dtype: DType) -> bool:
    """Whether elements are the same bit by bit, or as numbers where the dtypes differ."""
    if a_dtype != b_dtype:
        return bool(np.array_equal(to_floats(a, a_dtype), to_floats(b, b_dtype)))
    return bool(np.array_equal(a.view(np.uint8), b.view(np.uint8)))
