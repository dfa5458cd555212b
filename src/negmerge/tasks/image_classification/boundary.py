"""The class across the nearest boundary of an image."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from negmerge.tasks.image_classification.classifier import Classifier


def nearest_classes(classifier: Classifier, model: nn.Module, images: Tensor, labels: Tensor, bound: float) -> Tensor:
    """Return the class other than its own that the model prefers one signed-gradient step away from each image.

        x′ = clip(x + bound · sign ∇ₓ CE(f(x), y), 0, 1);  y′ = argmax over k ≠ y of f(x′)ₖ

    images: [b, C, H, W] in 0 … 255, labels int64 [b]; the result is int64 [b]. x is in pixels from 0 to 1, so `bound`
    does not depend on how the family normalises: the gradient is taken through its preparation. A pixel whose gradient
    is 0 stays; ties go to the first class; of several heads each row's own counts. Neither the model's weights nor
    their gradients are touched.

    Source: arXiv 2303.11570, equation 2, the fast gradient sign method of Goodfellow et al., 2015 (arXiv 1412.6572).
    """
    pixels = images.to(torch.float32).requires_grad_()
    # A copy, because a family may normalise in place.
    logits = classifier.narrow(classifier.logits(model, classifier.prepare(pixels.clone())), labels)
    (gradient,) = torch.autograd.grad(functional.cross_entropy(logits, labels, reduction="sum"), pixels)
    with torch.no_grad():
        moved = (pixels + 255.0 * bound * gradient.sign()).clamp_(0.0, 255.0)
        there = classifier.narrow(classifier.logits(model, classifier.prepare(moved)).float(), labels)
        return there.scatter(1, labels[:, None], -torch.inf).argmax(1)
