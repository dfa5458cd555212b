"""The health of a pool: what its members have learned of the forget rows."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from negmerge.scores import accuracy
from negmerge.tasks.image_classification.classifier import Classifier
from negmerge.tasks.image_classification.inference import predict_parts
from negmerge.tasks.image_classification.store import Store


def pool_health(
    classifier: Classifier, store: Store, forget: Tensor, base: Path, members: Mapping[str, Path], device: str
) -> dict[str, dict[str, float]]:
    """Return for `base` and for every member, by name, its mean cross-entropy and accuracy on the forget rows.

    {"base": {"loss": …, "forget": …}, NAME: …}: `loss` in nats, in evaluation mode, without augmentation or label
    smoothing, `forget` in percent.
    """
    found = {}
    for name, checkpoint in {"base": base, **members}.items():
        model = classifier.load(checkpoint, device)
        logits, labels = predict_parts(classifier, model, store.table("train").take, {"forget": forget})["forget"]
        loss = float(functional.cross_entropy(logits.double(), labels))
        found[name] = {"loss": loss, "forget": accuracy(logits, labels)}
    return found


def mean_cosine(cosine: list[list[float]]) -> float | None:
    """Return the mean over all pairs of different members of an N × N matrix; None for one member.

    >>> mean_cosine([[1.0, 0.25], [0.25, 1.0]])
    0.25
    """
    values = torch.tensor(cosine, dtype=torch.float64)
    count = len(values)
    return None if count < 2 else float((values.sum() - values.trace()) / (count * (count - 1)))
