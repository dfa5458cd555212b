"""Answers of a model to images, batch by batch: logits of few, columns of many."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from negmerge.tasks.columns import columns_of
from negmerge.tasks.image_classification.classifier import Classifier
from negmerge.tasks.observing import observe_in_one_pass
from negmerge.tasks.on_threads import device_of, on_threads

Labelled = tuple[Tensor, Tensor]


def predict(classifier: Classifier, model: nn.Module, images: Tensor, batch_size: int | None = None) -> Tensor:
    """Return float32 logits [n, classes], on the CPU, of uint8 images [n, C, H, W].

    The model is used in evaluation mode, on the device that it is on, with batches as `Classifier.batch_rows` has them
    there unless their size is given. On the CPU torch's threads take a batch each, which is half as fast again as all
    of them at one batch.
    """
    batches = images.split(batch_size or classifier.batch_rows(device_of(model)))
    return torch.cat([torch.empty(0, classifier.classes), *on_threads(_logits_of(classifier, model), model, batches)])


def observe_parts(
    classifier: Classifier,
    model: nn.Module,
    take: Callable[[Tensor], Labelled],
    parts: Mapping[str, Tensor],
    columns: Mapping[str, Sequence[str]],
    batch_size: int | None = None,
) -> dict[str, dict[str, Tensor]]:
    """Return the columns of every part, one number for each row, on the CPU, in one pass.

    `parts` maps a name to row numbers, int64 [m], `columns` the name to the columns asked for. Where data sets have
    heads of their own, each row is answered in the head of its data set. `take(rows)` returns images and labels;
    threads call it. Batches run across the borders of the parts, so that many small parts cost no more than one large
    one; a batch is taken when its turn comes, and only columns are kept of its logits.
    """
    find = _logits_of(classifier, model)

    def answer(rows: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        images, labels = take(rows)
        return columns_of(classifier.narrow(find(images), labels), labels, names)

    size = batch_size or classifier.batch_rows(device_of(model))
    return observe_in_one_pass(model, parts, columns, answer, lambda rows: size)


def _logits_of(classifier: Classifier, model: nn.Module) -> Callable[[Tensor], Tensor]:
    model.eval()
    device = next(model.parameters()).device

    def find(images: Tensor) -> Tensor:
        with torch.inference_mode():  # a thread has its own
            prepared = classifier.prepare(images.to(device, non_blocking=True))
            return classifier.logits(model, prepared).float().cpu()

    return find
