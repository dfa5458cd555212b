"""Tables of the `datasets` library as image sets."""

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field

from negmerge.data.decoding import DecodingSettings, decode
from negmerge.data.images import ImageSet, Source
from negmerge.errors import InputError, nearest


class TableSettings(DecodingSettings):
    """Settings of sources whose rows have columns."""

    columns: dict[str, str] = Field(
        default_factory=dict, description="image: NAME, label: NAME; found by type unless given"
    )


def to_source(train: Any, test: Any, settings: TableSettings, where: str) -> Source:
    """Return two tables of `datasets` as a source, their images decoded; classes are those of the train table.

    Raises InputError for columns that are missing or cannot be told, and labels that the train table does not have.
    """
    image, label = _columns(train.features, settings.columns, where)
    classes = _class_names(train, label)
    sets = []
    for part, table in (("train", train), ("test", test)):
        for column in (image, label):
            if column not in table.features:
                raise InputError(f"{where}: the {part} table has no column {column!r}")
        labels = _labels(table, label, classes, f"{where} ({part})")
        encoded = table.select_columns([image]).with_format("arrow")[:][image].to_pylist()
        sets.append(ImageSet(decode(encoded, settings, f"{where} ({part})"), labels, classes))
    if sets[0].images.shape[1:] != sets[1].images.shape[1:]:
        raise InputError(f"{where}: train and test images differ in shape; set image_size and mode")
    return Source(*sets)


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
    return tuple(str(value) for value in sorted(table.unique(label), key=lambda v: (isinstance(v, str), v)))


def _labels(table: Any, label: str, classes: Sequence[str], where: str) -> torch.Tensor:
    values = table.with_format(None)[label][:]
    if getattr(table.features[label], "names", None):
        numbers = [int(value) for value in values]
        if any(not 0 <= number < len(classes) for number in numbers):
            raise InputError(f"{where}: column {label!r} has rows without a label")
        return torch.tensor(numbers, dtype=torch.int64)
    index = {name: i for i, name in enumerate(classes)}
    strangers = sorted({str(value) for value in values} - index.keys())
    if strangers:
        raise InputError(f"{where}: label {strangers[0]!r} does not stand in the train table")
    return torch.tensor([index[str(value)] for value in values], dtype=torch.int64)
