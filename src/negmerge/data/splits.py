"""Which rows are retained, forgotten, held out and tested: drawn once, saved, hashed."""

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from negmerge.checkpoints import write_bytes_atomic
from negmerge.data.images import ImageSet, JoinedSource
from negmerge.data.rules import (
    ForgetRule,
    RetainRule,
    RowRule,
    ValidationRule,
    checked_rows,
    class_indices,
    read_rows,
)
from negmerge.errors import InputError

KINDS = ("class", "random", "rows", "source")


@dataclass(frozen=True)
class Split:
    """Row numbers, int64 and sorted: of the test table for the tests, of the train table for all others.

    `kind` is what is forgotten: "class", "random" (a seeded share), "rows" (a file) or "source". Where it is a class or
    a source, `validation_forget` and `test_forget` are held-out rows of it, and `validation` and `test` those of the
    rest; for random and given rows the two are empty.
    """

    kind: str
    retain: Tensor
    forget: Tensor
    validation: Tensor
    validation_forget: Tensor
    test: Tensor
    test_forget: Tensor

    def describe(self) -> dict[str, int]:
        """Return the number of rows of each part."""
        return {name: len(rows) for name, rows in self._parts().items()}

    def hash(self) -> str:
        """Return the sha256 of kind and rows, in hexadecimal."""
        digest = hashlib.sha256(self.kind.encode())
        for name, rows in self._parts().items():
            digest.update(f"{name}:{len(rows)}:".encode())
            digest.update(rows.numpy().astype("<i8").tobytes())
        return digest.hexdigest()

    def _parts(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "kind"}


def draw_split(
    train: ImageSet,
    test: ImageSet,
    *,
    forget: ForgetRule,
    retain: RetainRule | None = None,
    validation: ValidationRule | None = None,
    train_rows: tuple[int, int] | None = None,
    seed: int = 0,
    other: JoinedSource | None = None,
) -> Split:
    """Draw the split: validation rows first, then the forget rows, and what is left is retained.

    Raises InputError for ranges that overlap or leave the table, unknown classes, rows that are no training rows, and
    for a split whose forget or retain part is empty.
    """
    generator = torch.Generator().manual_seed(seed)
    held_out, trained = _held_out(len(train), validation or ValidationRule(), train_rows, generator)
    none = torch.empty(0, dtype=torch.int64)
    everything = torch.arange(len(test))
    if forget.classes is not None or other is not None:
        if other is not None:
            kind, in_train, in_test = "source", other.train_is_other, other.test_is_other
        else:
            wanted = torch.tensor(class_indices(forget.classes or [], train.classes))
            kind, in_train, in_test = "class", torch.isin(train.labels, wanted), torch.isin(test.labels, wanted)
        split = Split(
            kind,
            retain=trained[~in_train[trained]],
            forget=trained[in_train[trained]],
            validation=held_out[~in_train[held_out]],
            validation_forget=held_out[in_train[held_out]],
            test=everything[~in_test],
            test_forget=everything[in_test],
        )
    else:
        chosen = _choose(forget, train, trained, generator, "forget")
        kind = "random" if forget.fraction is not None else "rows"
        split = Split(kind, trained[~torch.isin(trained, chosen)], chosen, held_out, none, everything, none)
    if retain is not None:
        kept = _choose(retain, train, split.retain, generator, "retain")
        split = Split(**{**vars(split), "retain": kept})
    return _checked(split)


def split_from_file(path: Path, train: ImageSet, test: ImageSet) -> Split:
    """Return the split in a file: negmerge's own `split.json`, or ranges with a list of forget rows.

    The second form is `{"train_rows": [start, stop], "validation_rows": [start, stop], "forget_rows": [row, …]}`; all
    test rows are the test. Raises InputError for any other content and for rows outside the tables.
    """
    try:
        raw = json.loads(path.read_text())
    except (OSError, ValueError):
        raise InputError(f"{path} is not a readable JSON file; give a split.json") from None
    if isinstance(raw, dict) and "kind" in raw:
        split = load_split(path)
        for name, rows in split._parts().items():
            size = len(test) if name.startswith("test") else len(train)
            if len(rows):
                checked_rows(rows.tolist(), size, f"{path}: {name}")
        return split
    if not isinstance(raw, dict) or not {"train_rows", "validation_rows", "forget_rows"} <= raw.keys():
        raise InputError(f"{path} is no split: it needs train_rows, validation_rows and forget_rows")
    trained = _range(raw["train_rows"], len(train), f"{path}: train_rows")
    held_out = _range(raw["validation_rows"], len(train), f"{path}: validation_rows")
    forget = checked_rows(raw["forget_rows"], len(train), f"{path}: forget_rows")
    _inside(forget, trained, f"{path}: forget_rows")
    none = torch.empty(0, dtype=torch.int64)
    retain = trained[~torch.isin(trained, forget)]
    return _checked(Split("rows", retain, forget, held_out, none, torch.arange(len(test)), none))


def save_split(path: Path, split: Split) -> None:
    """Write a split as JSON: kind, hash, and every row number."""
    rows = {name: values.tolist() for name, values in split._parts().items()}
    text = json.dumps({"kind": split.kind, "hash": split.hash(), **rows})
    write_bytes_atomic(path, text.encode())


def load_split(path: Path) -> Split:
    """Read a split that `save_split` wrote. Raises InputError where it was changed since."""
    raw: dict[str, Any] = json.loads(path.read_text())
    try:
        rows = {f.name: torch.tensor(raw[f.name], dtype=torch.int64) for f in fields(Split) if f.name != "kind"}
        split = Split(kind=raw["kind"], **rows)
    except (KeyError, TypeError, ValueError, RuntimeError):
        raise InputError(f"{path} is damaged; take the split.json of a run as it is") from None
    if split.kind not in KINDS or split.hash() != raw.get("hash"):
        raise InputError(f"{path} was changed after it was written: its rows do not have its hash")
    return split


def _held_out(
    size: int, rule: ValidationRule, train_rows: tuple[int, int] | None, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the validation rows and the training rows."""
    allowed = torch.arange(size) if train_rows is None else _range(list(train_rows), size, "data.train_rows")
    if rule.rows is not None:
        held_out = _range(list(rule.rows), size, "data.validation.rows")
        if train_rows is None:
            return held_out, allowed[~torch.isin(allowed, held_out)]
        if torch.isin(held_out, allowed).any():
            raise InputError("data.train_rows and data.validation.rows overlap; validation must not be trained on")
        return held_out, allowed
    count = min(rule.most, max(1, round(rule.fraction * len(allowed))))
    order = allowed[torch.randperm(len(allowed), generator=generator)]
    return order[:count].sort().values, order[count:].sort().values


def _choose(rule: RowRule, train: ImageSet, among: Tensor, generator: torch.Generator, key: str) -> Tensor:
    if rule.classes is not None:
        wanted = torch.tensor(class_indices(rule.classes, train.classes))
        return among[torch.isin(train.labels[among], wanted)]
    if rule.rows is not None:
        rows = read_rows(rule.rows, len(train))
        _inside(rows, among, f"data.{key}.rows: {rule.rows}")
        return rows
    assert rule.fraction is not None
    count = max(1, round(rule.fraction * len(among)))
    return among[torch.randperm(len(among), generator=generator)[:count]].sort().values


def _inside(rows: Tensor, among: Tensor, where: str) -> None:
    strangers = rows[~torch.isin(rows, among)]
    if len(strangers):
        raise InputError(f"{where}: row {int(strangers[0])} is not among the {len(among)} rows it may be taken from")


def _range(values: Any, size: int, where: str) -> Tensor:
    whole = isinstance(values, list) and len(values) == 2 and all(type(value) is int for value in values)
    if not whole or not 0 <= values[0] < values[1] <= size:
        raise InputError(f"{where} must be [start, stop] within 0 and {size}, got {values}")
    return torch.arange(values[0], values[1])


def _checked(split: Split) -> Split:
    for name in ("forget", "retain", "validation", "test"):
        if not len(getattr(split, name)):
            raise InputError(f"the split has no {name} rows; change data.forget, data.retain or data.validation")
    return split
