"""Texts and labels in memory."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from negmerge.tasks.rows.row_set import RowSet, RowSource


def text_hash(text: str) -> str:
    """Return the hash of a text, with the name of its algorithm."""
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


@dataclass(frozen=True, eq=False)
class TextSet(RowSet):
    """Texts [n], labels int64 [n] from 0, and the class names that the labels count.

    >>> import torch
    >>> texts = TextSet(("good", "bad"), torch.tensor([1, 0]), ("no", "yes"))
    >>> len(texts), texts.counted_as(("maybe", "yes", "no")).labels.tolist()
    (2, [1, 2])

    `ids` are the rows' own names, empty where a row goes by its number; `columns` holds what else is known of each.
    """

    texts: tuple[str, ...]
    labels: Tensor
    classes: tuple[str, ...]
    ids: tuple[str, ...] = ()
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def content_of(self, rows: Tensor) -> dict[str, Any]:
        """Return the texts of these rows."""
        return {"texts": tuple(self.texts[row] for row in rows.tolist())}

    def content_with(self, other: "TextSet") -> dict[str, Any]:
        """Return the texts with those of another set behind."""
        return {"texts": self.texts + other.texts}

    def row_hash(self, row: int) -> str:
        """Return the hash of a row's text, with the name of its algorithm."""
        return text_hash(self.texts[row])

    def digest(self) -> str:
        """Return the sha256 of texts, labels and class names, in hexadecimal."""
        digest = hashlib.sha256(repr((len(self.texts), self.classes)).encode())
        for text in self.texts:
            raw = text.encode("utf-8", "surrogatepass")
            digest.update(len(raw).to_bytes(8, "little") + raw)
        digest.update(self.labels.numpy().astype("<i8").tobytes())
        return digest.hexdigest()


class TextSource(RowSource[TextSet]):
    """The two tables of a source: `train` (also for validation) and `test`, of the same classes."""
