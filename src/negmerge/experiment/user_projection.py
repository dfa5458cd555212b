"""The argument `projection` of `unlearn`: its forms, and data sets of rows that are not to be forgotten themselves."""

import math
from collections.abc import Iterator, Mapping, Sized
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from negmerge.errors import InputError
from negmerge.experiment.methods import AUTO, describe
from negmerge.experiment.projection_config import NONE, ProjectionConfig
from negmerge.tasks.user.batches import IGNORED, labels_of
from negmerge.tasks.user.fingerprint import fingerprint_row
from negmerge.tasks.user.task import UserTask

ROWS = ("retain", "validation")
GIVEN = "projection"  # the part of the rows that a user gives for it
SEVERAL = 5  # forget rows of a class that goes as a whole, at least
LABEL_BATCH = 256  # rows whose labels are read at a time
FORMS = (
    '"auto", "none", "retain" or "validation" (rows), a number or a list of numbers above 0 (strengths), '
    'or {"rows": …, "samples": …, "strength": …}'
)


def asked_projection(value: Any) -> dict[str, Any] | str:
    """Return "auto", "none", or a projection with the keys that were given; None is "none".

    `rows` is a name or a data set, `strength` a list of numbers. Raises InputError for anything else.

    >>> asked_projection(10), asked_projection("retain"), asked_projection(None)
    ({'strength': [10.0]}, {'rows': 'retain'}, 'none')
    """
    if value is None or (isinstance(value, str) and value in (AUTO, NONE)):
        return NONE if value is None else value
    if isinstance(value, str) and value in ROWS:
        return {"rows": value}
    if isinstance(value, Mapping):
        return _checked_mapping(value)
    strengths = _numbers(value)
    if strengths is None:
        raise InputError(f"unlearn: projection: give {FORMS}, got {_shown(value)}")
    return {"strength": _checked_strengths(strengths)}


def _checked_mapping(value: Mapping[Any, Any]) -> dict[str, Any]:
    unknown = [key for key in value if key not in ProjectionConfig.model_fields]
    if unknown:
        known = ", ".join(ProjectionConfig.model_fields)
        raise InputError(f"unlearn: projection: {unknown[0]!r} is not known here; its keys are {known}")
    found = dict(value)
    if "strength" in found:
        strengths = _numbers(found["strength"])
        if strengths is None:
            raise InputError(
                f"unlearn: projection.strength: give a number or a list of numbers above 0, got "
                f"{_shown(found['strength'])}"
            )
        found["strength"] = _checked_strengths(strengths)
    if "samples" in found:
        samples = _numbers(found["samples"])
        if samples is None or len(samples) != 1 or samples[0] != round(samples[0]) or samples[0] < 2:
            raise InputError(f"unlearn: projection.samples: give a whole number from 2, got {_shown(found['samples'])}")
        found["samples"] = int(samples[0])
    rows = found.get("rows", ROWS[0])
    is_data = isinstance(rows, Sized) and hasattr(rows, "__getitem__") and not isinstance(rows, list | tuple | Mapping)
    if rows not in ROWS if isinstance(rows, str) else not is_data:
        raise InputError(
            f'unlearn: projection.rows: give "retain", "validation" or a data set, with len() and rows by number, '
            f"got {_shown(rows)}"
        )
    return found


def _numbers(value: Any) -> list[float] | None:
    """Return a number, or those of a list, an array or a tensor, as floats; None for anything else."""
    if isinstance(value, np.ndarray | Tensor):
        value = value.tolist()
    values = list(value) if isinstance(value, list | tuple) else [value]
    values = [one.item() if isinstance(one, np.ndarray | Tensor) and one.ndim == 0 else one for one in values]
    if not values or not all(isinstance(one, Real) and not isinstance(one, bool) for one in values):
        return None
    found = [float(one) for one in values]
    return found if all(math.isfinite(one) for one in found) else None


def _checked_strengths(values: list[float]) -> list[float]:
    if any(one <= 0 for one in values) or len(set(values)) < len(values):
        raise InputError(f"unlearn: projection.strength: give different numbers above 0, got {values}")
    return sorted(values)


def _shown(value: Any) -> str:
    plain = isinstance(value, str | bool | int | float | list | tuple | dict | set)
    return f"{value!r:.80}" if plain else f"a {type(value).__name__}"


def user_projection(asked: Mapping[str, Any], given: dict[str, Dataset[Any]], method: str) -> dict[str, Any]:
    """Return a projection as a config has it; a data set in it joins those that are given.

    Raises InputError for rows that are not there, and a method that does not merge.
    """
    if method != AUTO and describe(method).kind == "train":
        raise InputError(f"unlearn: the method {method} does not merge; leave projection out")
    chosen, rows = dict(asked), asked.get("rows", ROWS[0])
    if not isinstance(rows, str):
        given[GIVEN] = chosen.pop("rows")
    elif rows not in given:
        raise InputError(f"unlearn: projection: rows: {rows}: give that data set, or rows=DATASET")
    return ProjectionConfig(**chosen).model_dump(mode="json")


def check_not_forgotten(given: Mapping[str, Dataset[Any]]) -> None:
    """Raise InputError where rows of the projection are forget rows: by number in one data set, or by content."""
    if GIVEN not in given:
        return
    rows: Any = given[GIVEN]
    forget: Any = given["forget"]
    told = "are those to be forgotten" if rows is forget else ""
    ours, theirs = _root(rows), _root(forget)
    if not told and ours is theirs:
        both = len(set(_numbers_in(rows)) & set(_numbers_in(forget)))
        told = f"hold {both} that are to be forgotten" if both else ""
    elif not told:
        both = _equal(rows, forget)
        told = f"hold {both} that are to be forgotten" if both else ""
    if told:
        raise InputError(f"unlearn: projection: its rows {told}; leave them out, for what they do is protected")


def _equal(rows: Any, forget: Any) -> int:
    """Return how many rows are forget rows; one without labels, where the inputs are the same."""
    known = set()  # asked for membership only
    for i in range(len(forget)):
        row = forget[i]
        known |= {fingerprint_row(row), fingerprint_row(_inputs(row))}
    known -= {None}
    return sum(fingerprint_row(_alone(rows[i])) in known for i in range(len(rows))) if known else 0


def _inputs(row: Any) -> Any:
    return row[0] if isinstance(row, list | tuple) and row else row


def _alone(row: Any) -> Any:
    return row[0] if isinstance(row, list | tuple) and len(row) == 1 else row


def _root(data: Any) -> Any:
    while isinstance(data, Subset):
        data = data.dataset
    return data


def _numbers_in(data: Any) -> Iterator[int]:
    """Yield the number of each row of a data set in what it is a subset of."""
    for row in range(len(data)):
        place: Any = data
        at = row
        while isinstance(place, Subset):
            place, at = place.dataset, int(place.indices[at])
        yield at


def check_labels(task: UserTask) -> None:
    """Raise InputError where rows of the projection are of a class that is forgotten as a whole.

    That is one of which the forget set has five rows or more and `retain` none, where each row has one whole number as
    its label (of fewer rows a sample that is retained may lack the class by chance); what has no such labels is not
    known, and passes.
    """
    if GIVEN not in task.sets or "retain" not in task.sets:
        return
    forget, retain, rows = (_labels(task, part) for part in ("forget", "retain", GIVEN))
    if forget is None or retain is None or rows is None:
        return
    lacking, rows_of = forget[~torch.isin(forget, retain)].unique(return_counts=True)
    whole = lacking[rows_of >= SEVERAL]
    count = int(torch.isin(rows, whole).sum())
    if count:
        first = int(rows[torch.isin(rows, whole)][0])
        raise InputError(
            f"unlearn: projection: {count} of its rows are of a class that is to be forgotten as a whole, such as "
            f"class {first}, of which retain has none; leave them out"
        )


def _labels(task: UserTask, part: str) -> Tensor | None:
    """Return the labels of a part, one whole number for each row but −100; None where it has none such."""
    found = []
    for batch in task.loading.loader(task.table, task.parts()[part], LABEL_BATCH, torch.Generator(), shuffle=False):
        try:
            labels = labels_of(batch)
        except InputError:
            return None
        whole = isinstance(labels, Tensor) and labels.dim() == 1 and not labels.is_floating_point()
        if not whole or labels.dtype == torch.bool:
            return None
        found.append(labels[labels != IGNORED])
    return torch.cat(found) if found else None
