"""Batches of data sets of the user's own: what they are by default, and how they are drawn."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from negmerge.errors import InputError
from negmerge.seeding import derive_seed

LABELS = ("labels", "label")  # where a batch that is a mapping keeps them


def forward_batch(model: nn.Module, batch: Any) -> Any:
    """Return a model's outputs for a batch: `model(**batch)` of a mapping, `model(batch[0])` of anything else."""
    return model(**batch) if isinstance(batch, Mapping) else model(batch[0])


def logits_of(outputs: Any) -> Any:
    """Return the logits of outputs: their attribute of that name, or the outputs themselves."""
    return getattr(outputs, "logits", outputs)


def labels_of(batch: Any) -> Any:
    """Return the labels of a batch: of a mapping its `labels`, else its second part. Raises InputError for neither."""
    if isinstance(batch, Mapping):
        found = [batch[key] for key in LABELS if key in batch]
        if not found:
            raise InputError(
                f"unlearn: a batch has no labels (keys: {', '.join(map(str, batch))}); give loss, evaluate"
            )
        return found[0]
    if isinstance(batch, Tensor) or not hasattr(batch, "__getitem__") or len(batch) < 2:
        raise InputError("unlearn: a batch has no labels: give data sets of (inputs, labels), or loss and evaluate")
    return batch[1]


def loss_of_batch(outputs: Any, batch: Any) -> Tensor:
    """Return the outputs' own `loss` where they have one, else the cross-entropy of their logits with the labels."""
    own = getattr(outputs, "loss", None)
    return nn.functional.cross_entropy(logits_of(outputs), labels_of(batch)) if own is None else own


def move(batch: Any, device: torch.device | str) -> Any:
    """Return a batch, a tensor or a nest of mappings and sequences of them, on a device."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: move(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(move(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(move(value, device) for value in batch)
    return batch


@dataclass(frozen=True)
class Loading:
    """How batches are made of rows: `collate`, or the DataLoader's own, and further arguments of a DataLoader."""

    collate: Callable[[list[Any]], Any] | None
    arguments: Mapping[str, Any]

    def loader(self, table: Dataset[Any], rows: Tensor, size: int, generator: torch.Generator, shuffle: bool) -> Any:
        """Return the DataLoader of some rows of a data set."""
        chosen: Dataset[Any] = Subset(table, rows.tolist())
        return DataLoader(
            chosen, batch_size=size, shuffle=shuffle, generator=generator, collate_fn=self.collate, **self.arguments
        )


@dataclass(frozen=True)
class RowBatches:
    """Seeded, shuffled batches of rows of a data set, on a device; every row is in an epoch once."""

    table: Dataset[Any]
    rows: Tensor
    size: int
    loading: Loading
    seed: int
    device: torch.device | str

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return max(1, -(-len(self.rows) // self.size))

    def __call__(self, epoch: int) -> Iterator[Any]:
        """Yield the batches of an epoch; from its seed torch's global random numbers are drawn too, as for dropout."""
        torch.manual_seed(derive_seed(self.seed, "dropout", epoch))
        generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
        for batch in self.loading.loader(self.table, self.rows, self.size, generator, shuffle=True):
            yield move(batch, self.device)
