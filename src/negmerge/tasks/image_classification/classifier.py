"""A classifier as the rest of the package sees it: a family, its settings, and the shapes of its data."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from negmerge.tasks.compute import Compute, compiled
from negmerge.tasks.ensemble import Ensemble
from negmerge.tasks.family_model import ClassifierModel
from negmerge.tasks.image_classification.family import Family, family_of
from negmerge.tasks.image_classification.normalising import channels_last
from negmerge.tasks.image_classification.pretrained import load_pretrained

PLAIN = Compute()
PIXELS = 64 * 32 * 32  # that a CPU evaluates at a time


@dataclass(frozen=True)
class Classifier(ClassifierModel[Family]):
    """A model family with checked settings, the number of classes, the shape (C, H, W) of an image, how to compute.

    `heads` are the numbers of classes of the data sets that have a head each, one after the other; empty where all
    classes are told apart by one head. `head` are the files with the text heads of a family that classifies by prompts.
    It holds names and numbers only, so it can be sent to another process.
    """

    shape: tuple[int, int, int]
    compute: Compute = PLAIN
    heads: tuple[int, ...] = ()
    head: tuple[Path, ...] = ()

    @cached_property
    def contents(self) -> Family:
        """What the family's file holds."""
        return family_of(self.family)

    @property
    def about(self) -> str:
        """What is built, in words."""
        return f"{self.family} with {self.classes} classes on images of shape {list(self.shape)}"

    def build(self, seed: int = 0) -> nn.Module:
        """Return a freshly initialised model."""
        extra = {"head": self.head} if self.head else {}
        model: nn.Module = self.contents.build(self.checked, self.classes, self.shape, seed, **extra)
        return model

    def narrow(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return logits [b, classes] with −inf for the classes of other heads than that of each row's label [b].

        >>> Classifier("clip", {}, 3, (3, 8, 8), heads=(1, 2)).narrow(torch.zeros(2, 3), torch.tensor([0, 2]))
        tensor([[0., -inf, -inf],
                [-inf, 0., 0.]])
        """
        if len(self.heads) < 2:
            return logits
        owner = torch.arange(len(self.heads)).repeat_interleave(torch.tensor(self.heads)).to(labels.device)
        return logits.masked_fill((owner[labels][:, None] != owner[None, :]).to(logits.device), -torch.inf)

    def loss(self, logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean cross-entropy of logits [b, classes], each row's in its own head."""
        if len(self.heads) < 2:
            return super().loss(logits, labels, label_smoothing)
        total, start = logits.new_zeros(()), 0
        for size in self.heads:
            rows = (labels >= start) & (labels < start + size)
            own = logits[rows][:, start : start + size]
            total = total + functional.cross_entropy(
                own, labels[rows] - start, label_smoothing=label_smoothing, reduction="sum"
            )
            start += size
        return total / len(labels)

    def draw_labels(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return a class for each label, int64 [b] on the CPU, drawn uniformly from those of the label's head."""
        if len(self.heads) < 2:
            return super().draw_labels(labels, generator)
        sizes = torch.tensor(self.heads)
        owner = torch.arange(len(sizes)).repeat_interleave(sizes)[labels.cpu()]
        drawn = torch.rand(labels.shape, generator=generator) * sizes[owner]
        return (sizes.cumsum(0) - sizes)[owner] + drawn.long()

    def start(self, seed: int) -> nn.Module:
        """Return the model that a training from scratch begins with: as built, or with the family's `pretrained`."""
        if self.contents.start is not None:
            return self.contents.start(self.checked, self.classes, self.shape, seed)
        model = self.build(seed)
        source = getattr(self.checked, "pretrained", None)
        if source is not None:
            load_pretrained(model, source, self.contents.HEAD)
        return model

    def place(self, model: nn.Module, device: torch.device | str) -> nn.Module:
        """Move a model to a device, in place, in the layout that it is computed in, and return it."""
        model.to(device=device, memory_format=self.compute.memory_format)  # type: ignore[call-overload]
        return model

    def batch_rows(self, device: str) -> int:
        """Return how many images to evaluate at a time: 500; on a CPU what stays in the caches, 8 … 64 by their size.

        >>> [Classifier("cifar-resnet", {}, 10, (3, side, side)).batch_rows("cpu") for side in (32, 64, 224)]
        [64, 16, 8]
        """
        return 500 if device != "cpu" else min(64, max(8, PIXELS // (self.shape[1] * self.shape[2])))

    def prepare(self, images: Tensor) -> Tensor:
        """Return uint8 images [b, C, H, W] as the normalised float32 that the model takes."""
        if self.compute.channels_last:
            images = channels_last(images)  # of bytes: a quarter of the work
        prepared: Tensor = self.contents.prepare(self.checked, images)
        return prepared

    def logits(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Return float32 logits [b, classes] of a prepared batch."""
        forward = self.contents.logits
        if self.compute.compile and model.training and torch.is_grad_enabled():
            forward = compiled(forward)
        with self.compute.autocast(batch.device.type):
            logits: Tensor
            logits = model.logits(forward, batch) if isinstance(model, Ensemble) else forward(model, batch)
        return logits.float()
