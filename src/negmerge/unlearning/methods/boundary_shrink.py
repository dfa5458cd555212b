"""Boundary shrink: each forget row is given to the class across its nearest boundary."""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from negmerge.tasks.image_classification.classifier import Classifier
from negmerge.training.images import Batch
from negmerge.unlearning.context import Context, Outcome
from negmerge.unlearning.fitting import Fitting, SgdSettings, batches_of, cross_entropy, fit_base

KIND = "train"
NEEDS = ("forget",)
SUMMARY = "train the forget rows towards the nearest other class, found by one step across the boundary"
REFERENCE = "Chen et al., Boundary Unlearning, CVPR 2023 (arXiv 2303.11570)"
SEARCH = {"lr": (1e-5, 1e-4, 1e-3, 1e-2)}


class Settings(SgdSettings):
    """How to train, and how far the step across the boundary goes."""

    lr: float = Field(1e-4, gt=0, description="learning rate, the same in every step")
    bound: float = Field(0.1, gt=0, le=1, description="the step in every pixel, as a share of black to white")


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Minimise the cross-entropy of the forget rows with the labels of their nearest other class.

    The class is that of `nearest_classes` on the images of each step, by a frozen copy of the base.

    Raises NegmergeError where training diverges.

    Source: arXiv 2303.11570, section 3.2.
    """

    def prepare() -> Fitting:
        data = context.data
        frozen = data.load(context.base).eval()
        batches = batches_of(data, data.forget, settings, "forget")
        fit_to_labels = cross_entropy(data)

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            images, labels = (part.to(data.device) for part in batch)
            return fit_to_labels(
                model, (images, nearest_classes(data.classifier, frozen, images, labels, settings.bound))
            )

        return Fitting(batches, batches.steps, loss=loss)

    return fit_base(context, settings, prepare)


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
