"""Batches of forget rows with labels drawn at random, with or without a pass over the retain rows behind them."""

from collections.abc import Callable, Iterator
from typing import Any

from negmerge.seeding import derive_seed
from negmerge.tasks.task import Classifies, need
from negmerge.unlearning.context import TrainingData
from negmerge.unlearning.fitting import SgdSettings, batches_of


def random_label_batches(
    data: TrainingData, settings: SgdSettings, retain: bool
) -> tuple[Callable[[int], Iterator[Any]], int]:
    """Return the batches of an epoch, and how many there are.

    First come all forget rows, each with a label drawn uniformly from all that it can have (its own included), anew
    in every epoch from (seed, epoch) alone; then, with `retain`, all retain rows with their own labels.
    """
    import torch

    labelled = need(data.task, Classifies, "a method that draws labels")
    forget = batches_of(data, data.forget, settings, "forget")
    kept = batches_of(data, data.retain, settings, "retain") if retain else None

    def batches(epoch: int) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(derive_seed(data.seed, "random labels", epoch))
        for batch in forget(epoch):
            yield labelled.relabel(batch, labelled.draw_labels(labelled.labels(batch), generator))
        if kept is not None:
            yield from kept(epoch)

    return batches, forget.steps + (kept.steps if kept is not None else 0)
