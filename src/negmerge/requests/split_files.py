"""What a split is: rows by number, saved as JSON, hashed, and bound to the tables they were drawn from."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from negmerge.checkpoints import write_bytes_atomic
from negmerge.errors import InputError
from negmerge.requests.rows import Rows, describe_row, ids_of
from negmerge.requests.rules import check_inside, checked_range, checked_rows, without

KINDS = ("class", "random", "rows", "source")
PARTS = ("retain", "forget", "validation", "validation_forget", "test", "test_forget")


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers, int64 and sorted: of the test table for the tests, of the train table for all others.

    `kind` is what is forgotten: "class", "random" (a seeded share), "rows" (a file) or "source". Where it is a class or
    a source, `validation_forget` and `test_forget` are held-out rows of it, and `validation` and `test` those of the
    rest; for random and given rows the two are empty. `source` is the fingerprint of the tables that the rows count in,
    `notes` is what should be said of how the rows were found.
    """

    kind: str
    retain: Tensor
    forget: Tensor
    validation: Tensor
    validation_forget: Tensor
    test: Tensor
    test_forget: Tensor
    source: str = ""
    notes: tuple[str, ...] = ()

    def describe(self) -> dict[str, int]:
        """Return the number of rows of each part."""
        return {name: len(rows) for name, rows in self._parts().items()}

    def parts(self, behind: int) -> dict[str, Tensor]:
        """Return the rows of each part in one table, where those of the test table are counted on from `behind`."""
        return {n: rows + behind if n.startswith("test") else rows for n, rows in self._parts().items()}

    def hash(self) -> str:
        """Return the sha256 of kind and rows, in hexadecimal; equal for equal splits, whatever drew them."""
        digest = hashlib.sha256(self.kind.encode())
        for name, rows in self._parts().items():
            digest.update(f"{name}:{len(rows)}:".encode())
            digest.update(rows.numpy().astype("<i8").tobytes())
        return digest.hexdigest()

    def _parts(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in PARTS}


def split_from_file(path: Path, train: Rows, test: Rows) -> Split:
    """Return the split in a file: negmerge's own `split.json`, or ranges with a list of forget rows.

    A `split.json` must have been drawn from the same rows, groups and order of rows (by fingerprint).

    The second form is `{"train_rows": [start, stop], "validation_rows": [start, stop], "forget_rows": [row, …]}`; all
    test rows are the test. Raises InputError for any other content, rows outside the tables, and validation rows among
    the training rows.
    """
    raw = _read(path)
    if "kind" in raw:
        split = load_split(path)
        for name, rows in split._parts().items():
            table, size = ("test", len(test)) if name.startswith("test") else ("train", len(train))
            if len(rows):
                checked_rows(rows.tolist(), size, f"{path}: {name}", table)
        if split.source not in ("", fingerprint(train, test)):
            raise InputError(
                f"{path} was drawn from other data, or from the same in another order or form; "
                "give the data settings of the run that wrote it"
            )
        return checked(replace(split, source=fingerprint(train, test)))
    missing = [key for key in ("train_rows", "validation_rows", "forget_rows") if key not in raw]
    if missing:
        raise InputError(f"{path} is no split: it lacks {', '.join(missing)}")
    trained = checked_range(raw["train_rows"], len(train), f"{path}: train_rows")
    held_out = checked_range(raw["validation_rows"], len(train), f"{path}: validation_rows")
    if torch.isin(held_out, trained).any():
        raise InputError(f"{path}: train_rows and validation_rows overlap; validation must not be trained on")
    forget = checked_rows(raw["forget_rows"], len(train), f"{path}: forget_rows")
    check_inside(forget, trained, f"{path}: forget_rows")
    none = torch.empty(0, dtype=torch.int64)
    retain = without(trained, forget)
    test_rows = torch.arange(len(test))
    return checked(Split("rows", retain, forget, held_out, none, test_rows, none, fingerprint(train, test)))


def kind_in_file(path: Path) -> str:
    """Return the kind of the split in a file, unchecked: "rows" for the second form of `split_from_file`."""
    return str(_read(path).get("kind", "rows"))


def save_split(path: Path, split: Split, train: Rows | None = None) -> None:
    """Write a split as JSON: kind, hash, fingerprint of the tables, and every row number.

    With the train table, `forgotten` lists every row to forget by number, id, group and hash; never its content.
    """
    rows = {name: values.tolist() for name, values in split._parts().items()}
    head = {"kind": split.kind, "hash": split.hash(), "source": split.source, "notes": list(split.notes)}
    listed = {} if train is None else {"forgotten": forgotten_rows(split, train)}
    write_bytes_atomic(path, json.dumps({**head, **rows, **listed}).encode())


def forgotten_rows(split: Split, train: Rows) -> list[dict[str, Any]]:
    """Return number, id, group and hash of every row to forget, in the order of the table."""
    ids = ids_of(train)
    return [describe_row(train, row, ids) for row in split.forget.tolist()]


def load_split(path: Path) -> Split:
    """Read a split that `save_split` wrote. Raises InputError where it is missing, damaged or changed since."""
    raw = _read(path)
    try:
        rows = {name: torch.tensor(raw[name], dtype=torch.int64) for name in PARTS}
        split = Split(kind=raw["kind"], **rows, source=raw.get("source", ""), notes=tuple(raw.get("notes", ())))
    except (KeyError, TypeError, ValueError, RuntimeError):
        raise InputError(f"{path} is damaged; take the split.json of a run as it is") from None
    if split.kind not in KINDS or split.hash() != raw.get("hash"):
        raise InputError(f"{path} was changed after it was written: its rows do not have its hash")
    return split


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text())
    except (OSError, ValueError):
        raw = None
    if not isinstance(raw, dict):
        raise InputError(f"{path} is not a readable JSON object; give a split.json")
    return raw


def fingerprint(train: Rows, test: Rows) -> str:
    """Return the fingerprint of two tables, as a split and a run's record carry it."""
    return f"{train.fingerprint()}+{test.fingerprint()}"


def checked(split: Split) -> Split:
    """Return the split, once it has rows to forget, to retain, to validate and to test."""
    advice = {
        "forget": "data.forget finds no training row",
        "retain": "everything is forgotten, or data.retain leaves nothing; `negmerge rows` shows what is found",
        "validation": "all rows held out are to be forgotten; raise data.validation.fraction",
        "test": "the test table holds only what is to be forgotten",
    }
    for name, reason in advice.items():
        if not len(getattr(split, name)):
            raise InputError(f"the split has no {name} rows: {reason}")
    return split
