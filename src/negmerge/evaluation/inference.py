"""Logits of a model on images, batch by batch."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from negmerge.models._classifier import Classifier

Labelled = tuple[Tensor, Tensor]
TAKEN = 500  # rows read at a time


@torch.inference_mode()
def predict(classifier: Classifier, model: nn.Module, images: Tensor, batch_size: int | None = None) -> Tensor:
    """Return float32 logits [n, classes], on the CPU, of uint8 images [n, C, H, W].

    The model is used in evaluation mode, on the device that it is on, with batches as the family likes them there
    unless their size is given.
    """
    model.eval()
    device = next(model.parameters()).device
    if not len(images):
        return torch.empty(0, classifier.classes)
    rows = [
        classifier.logits(model, classifier.prepare(batch.to(device, non_blocking=True))).float()
        for batch in images.split(batch_size or classifier.batch_rows(device.type))
    ]
    return torch.cat(rows).cpu()


def predict_parts(
    classifier: Classifier,
    model: nn.Module,
    take: Callable[[Tensor], Labelled],
    parts: Mapping[str, Tensor],
    batch_size: int | None = None,
) -> dict[str, Labelled]:
    """Return (logits, labels) of every part in one pass; `parts` maps a name to row numbers, int64 [m].

    Where data sets have heads of their own, each row's logits are narrowed to the head of its data set.

    `take(rows)` returns images and labels. Batches run across the borders of the parts, so that many small parts cost
    no more than one large one; a batch is taken when its turn comes, so memory is that of one batch.
    """
    sizes = [len(rows) for rows in parts.values()]
    logits, labels = [torch.empty(0, classifier.classes)], [torch.empty(0, dtype=torch.int64)]
    for rows in torch.cat(list(parts.values())).split(batch_size or TAKEN):
        if len(rows):
            images, truth = take(rows)
            logits.append(predict(classifier, model, images, batch_size))
            labels.append(truth)
    narrowed = classifier.narrow(torch.cat(logits), torch.cat(labels))
    pairs = zip(narrowed.split(sizes), torch.cat(labels).split(sizes), strict=True)
    return dict(zip(parts, pairs, strict=True))
