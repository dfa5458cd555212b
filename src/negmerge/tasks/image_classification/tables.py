"""Tables of the `datasets` library as image sets."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import Field

from negmerge.errors import InputError, nearest
from negmerge.tasks.image_classification.decoding import DecodingSettings, decode_hashed
from negmerge.tasks.image_classification.images import ImageSet, Source

ROLES = ("image", "label", "id")
IDS = ("id", "image_id", "file_name", "filename", "path")  # columns that name rows, where they name each differently


class TableSettings(DecodingSettings):
    """Settings of sources whose rows have columns."""

    columns: dict[str, str] = Field(
        default_factory=dict, description="image: NAME, label: NAME, id: NAME; found by type and name unless given"
    )
    test_fraction: float = Field(
        0.2, gt=0, lt=1, description="share of the rows for test, where there is no test split"
    )
    seed: int = Field(0, ge=0, description="of that share")
    most: int | None = Field(
        None, ge=1, description="a seeded sample of so many rows of the train table; all unless set"
    )


def to_source(train: Any, test: Any | None, settings: TableSettings, where: str) -> Source:
    """Return two tables of `datasets` as a source, their images decoded; classes are those of the train table.

    Without a test table a seeded share of the train rows is one. Rows are named by the column of ids, or else by the
    paths that are stored with the images. Raises InputError for columns that are missing or cannot be told, for several
    labels in a row, and labels that the train table does not have.
    """
    image, label = _columns(train.features, settings.columns, where)
    classes = _class_names(train, label, where)
    notes: tuple[str, ...] = ()
    if test is None:
        train, test = _draw_test(train, settings, where)
        notes = (
            f"{where}: there is no test split: {len(test):,} of the train rows, drawn by seed, are the test table",
        )
    sets = []
    kept = sample_rows(torch.arange(len(train)), settings.most)
    few = train if len(kept) == len(train) else train.select(kept.tolist())
    for part, table in (("train", few), ("test", test)):
        for column in (image, label):
            if column not in table.features:
                raise InputError(f"{where}: the {part} table has no column {column!r}")
        labels = _labels(table, label, classes, f"{where} ({part})")
        encoded = table.select_columns([image]).with_format("arrow")[:][image].to_pylist()
        decoded = decode_hashed(encoded, settings, f"{where} ({part})")
        ids = _ids(table, settings.columns.get("id"), encoded, f"{where} ({part})")
        sets.append(ImageSet(decoded.images, labels, classes, ids, decoded.hashes, _others(table, image)))
    return Source(sets[0], sets[1], notes)


def _draw_test(table: Any, settings: TableSettings, where: str) -> tuple[Any, Any]:
    """Return a table as two, a seeded share of its rows being the second."""
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(settings.seed))
    cut = max(1, round(settings.test_fraction * len(order)))
    if len(order) <= cut:
        raise InputError(f"{where} holds {len(order)} rows, too few to take a test part from; give it a test split")
    return tuple(table.select(rows.sort().values.tolist()) for rows in (order[cut:], order[:cut]))


def _ids(table: Any, column: str | None, encoded: Sequence[Any], where: str) -> tuple[str, ...]:
    """Return the name of each row; none where no column, and no path stored with the images, tells them apart."""
    if column is not None:
        if column not in table.features:
            raise InputError(f"{where} has no column {column!r}{nearest(column, table.features)} for ids")
        names = [str(value) for value in table.with_format(None)[column][:]]
        if len(set(names)) < len(names):
            raise InputError(f"{where}: column {column!r} does not tell rows apart; leave columns.id out")
        return tuple(names)
    paths = [item.get("path") if isinstance(item, dict) else None for item in encoded]
    candidates = [table.with_format(None)[name][:] for name in IDS if name in table.features]
    for values in (*candidates, paths):
        if len(set(map(str, values))) == len(values) and not any(
            v is None or isinstance(v, dict | list) for v in values
        ):
            return tuple(str(value) for value in values)
    return ()


def _others(table: Any, image: str) -> Mapping[str, Sequence[Any]]:
    """Return the columns that hold one text, number or class for each row; classes by their names."""
    found = {}
    for name, feature in table.features.items():
        kind = type(feature).__name__
        if name == image or kind not in ("Value", "ClassLabel"):
            continue
        values = list(table.with_format(None)[name][:])
        names = getattr(feature, "names", None)
        known = range(len(names)) if names else ()
        found[name] = [names[value] if value in known else None for value in values] if names else values
    return found


def sample_rows(rows: torch.Tensor, most: int | None) -> torch.Tensor:
    """Return a seeded sample of so many rows, in their order; all of them where there are no more, or None is asked."""
    if most is None or most >= len(rows):
        return rows
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:most].sort().values]


def _columns(features: Any, chosen: dict[str, str], where: str) -> tuple[str, str]:
    unknown = [key for key in chosen if key not in ROLES]
    if unknown:
        raise InputError(f"columns: {unknown[0]!r} is not one of {', '.join(ROLES[:-1])} and {ROLES[-1]}")
    found = []
    for role, types in (("image", ("Image",)), ("label", ("ClassLabel",))):
        name = chosen.get(role)
        if name is None:
            candidates = [key for key, feature in features.items() if type(feature).__name__ in types]
            if not candidates and role in features:
                candidates = [role]
            if len(candidates) != 1:
                raise InputError(
                    f"{where}: which column holds the {role}? write columns: {{{role}: NAME}}; "
                    f"there are {', '.join(features)}"
                )
            name = candidates[0]
        if name not in features:
            raise InputError(
                f"{where} has no column {name!r}{nearest(name, features)}; there are {', '.join(features)}"
            )
        found.append(name)
    return found[0], found[1]


def _class_names(table: Any, label: str, where: str) -> tuple[str, ...]:
    names = getattr(table.features[label], "names", None)
    if names:
        return tuple(names)
    if type(table.features[label]).__name__ != "Value":
        raise InputError(
            f"{where}: column {label!r} holds several labels a row, or other lists; images have one class each here: "
            "give a column with one label by columns: {label: NAME}"
        )
    values = [value for value in table.unique(label) if value is not None]
    return tuple(str(value) for value in sorted(values, key=lambda value: (isinstance(value, str), value)))


def _labels(table: Any, label: str, classes: Sequence[str], where: str) -> torch.Tensor:
    values = table.with_format(None)[label][:]
    names = getattr(table.features[label], "names", None)
    if names:
        if tuple(names) != tuple(classes):
            raise InputError(
                f"{where}: column {label!r} counts other classes than the train table, or in another order"
            )
        numbers = [-1 if value is None else int(value) for value in values]
    else:
        index = {name: number for number, name in enumerate(classes)}
        numbers = [-1 if value is None else index.get(str(value), -2) for value in values]
    for row, number in enumerate(numbers):
        if number == -2:
            raise InputError(f"{where}: label {str(values[row])!r} of row {row} does not stand in the train table")
        if not 0 <= number < len(classes):
            raise InputError(f"{where}: row {row} has no label in column {label!r}; leave such rows out")
    return torch.tensor(numbers, dtype=torch.int64)
