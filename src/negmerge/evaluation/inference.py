"""Logits of a model on images, batch by batch."""

import torch
from torch import Tensor, nn

from negmerge.models._classifier import Classifier


@torch.inference_mode()
def predict(classifier: Classifier, model: nn.Module, images: Tensor, batch_size: int = 500) -> Tensor:
    """Return float32 logits [n, classes], on the CPU, of uint8 images [n, C, H, W].

    The model is used in evaluation mode, on the device that it is on.
    """
    model.eval()
    device = next(model.parameters()).device
    if not len(images):
        return torch.empty(0, classifier.classes)
    rows = [
        classifier.logits(model, classifier.prepare(batch.to(device))).float().cpu()
        for batch in images.split(batch_size)
    ]
    return torch.cat(rows)
