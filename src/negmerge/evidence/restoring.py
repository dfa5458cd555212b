"""Does a file give the base back? By arithmetic on the weights: unlearned + c · (what the file holds) = base.

A vector that was subtracted restores the base when it is added again; a member of the pool, or another row of a run,
does so where it lies on the line from the unlearned model through the base: w = base + s·τ and u = base − α·τ give
base = u + α / (α + s) · (w − u).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from negmerge.checkpoints import Checkpoint, open_adapter, open_checkpoint
from negmerge.checkpoints.adapter import BoundAdapter, is_adapter
from negmerge.checkpoints.base import elements
from negmerge.checkpoints.model_files import WEIGHTS
from negmerge.errors import InputError
from negmerge.merging.buffers import STATISTICS
from negmerge.record.walking import files_below

CHUNK = 2**22  # elements of a tensor that are looked at together
RESTORES = 0.99  # share of the change, in the norm, that is taken back
ROUNDINGS = 4.0  # of the last place, in each of the numbers that are added, within which two are the same

How = Literal["copy", "weights", "vector"]


@dataclass(frozen=True)
class Restoring:
    """How far files take the unlearned model back to the base.

    `how`: they are a "copy" of the base, or u + c·(w − u) with the mean w of their "weights", or u + c·v with the
    "vector" v. `recovered` is 1 − ‖base − restored‖ / ‖base − u‖, and at least 0; `exact` the share of the changed
    elements that come back within rounding.
    """

    files: tuple[Path, ...]
    how: How
    factor: float
    recovered: float
    exact: float

    @property
    def restores(self) -> bool:
        """Whether the base is back, but for what rounding lost."""
        return self.recovered >= RESTORES

    def as_json(self, folder: Path) -> dict[str, Any]:
        """Return this as plain JSON values, with paths below `folder`."""
        names = [file.relative_to(folder).as_posix() for file in self.files]
        facts = {"how": self.how, "factor": self.factor, "recovered": self.recovered, "exact": self.exact}
        return {"files": names, **facts, "restores": self.restores}


class Weights:
    """Tensors of a file that stand beside those of a model: whole weights or a vector; of an adapter its ΔW."""

    def __init__(self, path: Path, model: Checkpoint) -> None:
        self.path, self.model = path, model
        self.opened: Checkpoint | BoundAdapter
        if is_adapter(path):
            self.opened = open_adapter(path, path).bind(model)
            self.names = frozenset(self.opened.touched)
        else:
            self.opened = open_checkpoint(path)
            shapes = {name: self.opened.shape(name) for name in self.opened.names}
            self.names = frozenset(name for name, shape in shapes.items() if _fits(model, name, shape))
        if not self.names:
            self.opened.close()
            raise InputError(f"{path} has no tensor of the model")

    def read(self, name: str, start: int, stop: int) -> Tensor:
        """Return elements of a tensor, float64; zeros of one that the file does not have."""
        if name not in self.names:
            return torch.zeros(stop - start, dtype=torch.float64)
        if isinstance(self.opened, BoundAdapter):
            return self.opened.read_delta(name, start, stop).double()
        return self.opened.read(name, start, stop).double()


def weight_files(folder: Path) -> list[Path]:
    """Return all files of weights below a folder, sorted, and the folders of adapters; hidden ones are no results.

    What lies behind links to other folders is among them.
    """
    found: dict[Path, None] = {}
    for path in sorted(folder / name for name in files_below(folder, lambda _: True)):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix in WEIGHTS and path.is_file() and not hidden:
            found[path.parent if is_adapter(path.parent) else path] = None
    return list(found)


def changed_share(base: Path, model: Path) -> float | None:
    """Return the share of elements in which two models differ, of those of floats that both have; None of none."""
    with ExitStack() as stack:
        b, u = (_opened(stack, path) for path in (base, model))
        differing = total = 0
        for name, start, stop in _pieces(b, u):
            differing += int((b.read(name, start, stop) != u.read(name, start, stop)).sum())
            total += stop - start
    return differing / total if total else None


def restore(base: Path, model: Path, files: Sequence[Path]) -> Restoring | None:
    """Return how far files take an unlearned model back to the base; of several, their mean.

    c is fitted by least squares to the elements in which the two models differ; the others are the base's already. As
    weights and as a vector both are tried, and the better one is returned. None where a file is no weights of such a
    model, and where the two have no tensor in common, as an ensemble and the base. Running statistics are left out:
    what re-estimates them is no line. Where the two models do not differ, nothing is to be taken back, and all of it
    is.

    Raises InputError where one of the models cannot be opened.
    """
    with ExitStack() as stack:
        b, u = (_opened(stack, path) for path in (base, model))
        if next(_pieces(b, u), None) is None:
            return None
        others = []
        for file in files:
            try:
                others.append(Weights(file, u))
            except InputError:
                return None
            stack.callback(others[-1].opened.close)
        whole = all(not isinstance(one.opened, BoundAdapter) for one in others)
        tried = [_fitted(b, u, others, "vector")]
        if whole:
            tried.append(_fitted(b, u, others, "weights"))
        best = max(tried, key=lambda one: one.recovered)
        if whole and len(others) == 1 and best.how == "weights" and best.factor == 1.0 and best.exact == 1.0:
            best = Restoring(best.files, "copy", 1.0, best.recovered, best.exact)
        return Restoring(tuple(files), best.how, best.factor, best.recovered, best.exact)


def restored_state(found: Restoring, model: Path, state: Mapping[str, Tensor]) -> None:
    """Change the tensors of an opened unlearned model, in place, to what a restoring makes of them."""
    with ExitStack() as stack:
        u = _opened(stack, model)
        others = [Weights(file, u) for file in found.files]
        for one in others:
            stack.callback(one.opened.close)
        for name in u.names:
            if name in state and _floats(u, name) and any(name in one.names for one in others):
                size = elements(u.shape(name))
                before = u.read(name, 0, size).double()
                after = before + found.factor * _direction(others, before, name, 0, size, found.how)
                state[name].copy_(after.reshape(u.shape(name)).to(state[name].dtype))


def _fitted(b: Checkpoint, u: Checkpoint, others: Sequence[Weights], how: How) -> Restoring:
    along = squares = 0.0
    for before, after, v, _ in _lines(b, u, others, how):
        along += float((before - after) @ v)
        squares += float(v @ v)
    factor = along / squares if squares else 0.0
    if how == "weights" and abs(factor - 1.0) < 1e-9:
        factor = 1.0
    left = whole = 0.0
    same = count = 0
    for before, after, v, unit in _lines(b, u, others, how):
        rest = before - after - factor * v
        left += float(rest @ rest)
        whole += float((before - after) @ (before - after))
        near = before.abs() + after.abs() + abs(factor) * (v.abs() + (after.abs() if how == "weights" else 0.0))
        same += int((rest.abs() <= ROUNDINGS * unit * near).sum())
        count += len(before)
    recovered = max(0.0, 1.0 - math.sqrt(left / whole)) if whole else 1.0
    return Restoring(tuple(one.path for one in others), how, factor, recovered, same / count if count else 1.0)


def _lines(
    b: Checkpoint, u: Checkpoint, others: Sequence[Weights], how: How
) -> Iterator[tuple[Tensor, Tensor, Tensor, float]]:
    """Yield base, unlearned and direction, float64 [n] each, where the first two differ, and the unit of rounding."""
    for name, start, stop in _pieces(b, u):
        before, after = (one.read(name, start, stop).double() for one in (b, u))
        where = before != after
        if where.any():
            v = _direction(others, after, name, start, stop, how)
            yield before[where], after[where], v[where], torch.finfo(u.dtype(name).torch).eps


def _direction(others: Sequence[Weights], after: Tensor, name: str, start: int, stop: int, how: How) -> Tensor:
    """Return the mean of what files hold of a tensor; as weights, its difference to those of the unlearned model."""
    found = torch.stack([one.read(name, start, stop) for one in others]).mean(0)
    if how == "vector":
        return found
    return found - after if all(name in one.names for one in others) else torch.zeros_like(after)


def _pieces(b: Checkpoint, u: Checkpoint) -> Iterator[tuple[str, int, int]]:
    for name in b.names:
        if name in u.names and b.shape(name) == u.shape(name) and _floats(b, name) and _floats(u, name):
            size = elements(b.shape(name))
            yield from ((name, start, min(size, start + CHUNK)) for start in range(0, size, CHUNK))


def _floats(checkpoint: Checkpoint, name: str) -> bool:
    return checkpoint.dtype(name).torch.is_floating_point and not STATISTICS.search(name)


def _fits(model: Checkpoint, name: str, shape: tuple[int, ...]) -> bool:
    return name in model.names and model.shape(name) == shape


def _opened(stack: ExitStack, path: Path) -> Checkpoint:
    found = open_checkpoint(path)
    stack.callback(found.close)
    return found
