"""Batches of forget rows with labels drawn at random, with or without a pass over the retain rows behind them."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from negmerge.tasks.image_classification.classifier import Classifier
from negmerge.training import derive_seed
from negmerge.training.images import Batch
from negmerge.unlearning.context import TrainingData
from negmerge.unlearning.fitting import SgdSettings, batches_of


def random_label_batches(
    data: TrainingData, settings: SgdSettings, retain: bool
) -> tuple[Callable[[int], Iterator[Batch]], int]:
    """Return the batches of an epoch, and how many there are.

    First come all forget rows, each with a label drawn uniformly from all classes of its head (its own included), anew
    in every epoch from (seed, epoch) alone; then, with `retain`, all retain rows with their own labels.
    """
    forget = batches_of(data, data.forget, settings, "forget")
    kept = batches_of(data, data.retain, settings, "retain") if retain else None

    def batches(epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(derive_seed(data.seed, "random labels", epoch))
        for images, labels in forget(epoch):
            yield images, draw_labels(data.classifier, labels, generator)
        if kept is not None:
            yield from kept(epoch)

    return batches, forget.steps + (kept.steps if kept is not None else 0)


def draw_labels(classifier: Classifier, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return a class for each label, int64 [b] on the CPU, drawn uniformly from those of the label's head."""
    if len(classifier.heads) < 2:
        return torch.randint(classifier.classes, labels.shape, generator=generator)
    sizes = torch.tensor(classifier.heads)
    owner = torch.arange(len(sizes)).repeat_interleave(sizes)[labels.cpu()]
    drawn = torch.rand(labels.shape, generator=generator) * sizes[owner]
    return (sizes.cumsum(0) - sizes)[owner] + drawn.long()
