"""Tables of the `datasets` library as image sets."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from pydantic import Field

from negmerge.errors import InputError, nearest
from negmerge.tasks.image_classification.decoding import DecodingSettings, decode
from negmerge.tasks.image_classification.images import ImageSet, Source


class TableSettings(DecodingSettings):
    """Settings of sources whose rows have columns."""

    columns: dict[str, str] = Field(
        default_factory=dict, description="image: NAME, label: NAME; found by type unless given"
    )
    most: int | None = Field(
        None, ge=1, description="a seeded sample of so many rows of the train table; all unless set"
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep `datasets` and the hub's client from writing bars and retries to stderr; afterwards they do as before."""
    import datasets

    bars = datasets.is_progress_bar_enabled()
    client = logging.getLogger("huggingface_hub")
    level = client.level
    datasets.disable_progress_bars()
    client.setLevel(logging.ERROR)
    try:
        yield
    finally:
        client.setLevel(level)
        if bars:
            datasets.enable_progress_bars()


def to_source(train: Any, test: Any, settings: TableSettings, where: str) -> Source:
    """Return two tables of `datasets` as a source, their images decoded; classes are those of the train table.

    Raises InputError for columns that are missing or cannot be told, and labels that the train table does not have.
    """
    image, label = _columns(train.features, settings.columns, where)
    classes = _class_names(train, label)
    sets = []
    kept = sample_rows(torch.arange(len(train)), settings.most)
    few = train if len(kept) == len(train) else train.select(kept.tolist())
    for part, table in (("train", few), ("test", test)):
        for column in (image, label):
            if column not in table.features:
                raise InputError(f"{where}: the {part} table has no column {column!r}")
        labels = _labels(table, label, classes, f"{where} ({part})")
        encoded = table.select_columns([image]).with_format("arrow")[:][image].to_pylist()
        sets.append(ImageSet(decode(encoded, settings, f"{where} ({part})"), labels, classes))
    return Source(*sets)


def sample_rows(rows: torch.Tensor, most: int | None) -> torch.Tensor:
    """Return a seeded sample of so many rows, in their order; all of them where there are no more, or None is asked."""
    if most is None or most >= len(rows):
        return rows
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:most].sort().values]


def _columns(features: Any, chosen: dict[str, str], where: str) -> tuple[str, str]:
    unknown = [key for key in chosen if key not in ("image", "label")]
    if unknown:
        raise InputError(f"columns: {unknown[0]!r} is not one of image and label")
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


def _class_names(table: Any, label: str) -> tuple[str, ...]:
    names = getattr(table.features[label], "names", None)
    if names:
        return tuple(names)
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
