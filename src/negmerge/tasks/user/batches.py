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
IGNORED = -100  # the label of what has none, as in torch's cross-entropy: padding, prompts, rows


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
    """Return the outputs' own `loss` where they have one, else the cross-entropy of their logits with the labels.

    logits [b, …, classes], labels int64 [b, …]: the mean over all labels but −100; 0 for a batch that has no other.
    """
    own: Tensor | None = getattr(outputs, "loss", None)
    if own is not None and bool(own.isfinite().all()):
        return own
    labels, logits = labels_of(batch), logits_of(outputs)
    if not has_labels(labels):
        nothing: Tensor = logits.sum() * 0.0
        return nothing
    return nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten()) if own is None else own


def has_labels(labels: Any) -> bool:
    """Whether labels hold another than −100.

    >>> has_labels(torch.tensor([-100, 2])), has_labels(torch.tensor([-100]))
    (True, False)
    """
    return not isinstance(labels, Tensor) or bool((labels != IGNORED).any())


def aligned(logits: Tensor, labels: Tensor, next_token: bool) -> tuple[Tensor, Tensor]:
    """Return logits [b, k, classes] and labels [b, k] of the answers of each row; k is 1 where a row has one label.

    With `next_token` the logits at a place answer the label of the next one, as those of causal language models do.
    """
    logits, labels = logits.reshape(len(labels), -1, logits.shape[-1]), labels.reshape(len(labels), -1)
    return (logits[:, :-1], labels[:, 1:]) if next_token else (logits, labels)


def row_losses(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean cross-entropy [b] of each row over its labels but −100, 0 where it has none; and their number.

    logits [b, k, classes], labels int64 [b, k].
    """
    each = nn.functional.cross_entropy(
        logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="none"
    ).view(labels.shape)
    count = (labels != IGNORED).sum(1)
    return each.sum(1) / count.clamp(min=1), count


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
