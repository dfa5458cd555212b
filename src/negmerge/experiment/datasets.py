"""Scores of a module on data sets of the user's own, as choosing α needs them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from negmerge.errors import InputError
from negmerge.scores import Columns, accuracy, average_gap, holdout_distance, membership_svc_confidence
from negmerge.seeding import derive_seed
from negmerge.tasks.image_classification.columns import columns_of

ATTACK_ROWS = 2000

Evaluate = Callable[[nn.Module], Mapping[str, float]]
Forward = Callable[[nn.Module, Any], Any]


def classifier_scores(
    base: nn.Module,
    sets: Mapping[str, Dataset[Any] | None],
    forward: Forward,
    objective: str,
    reference: nn.Module | None,
    seed: int,
) -> Evaluate:
    """Return a function that measures a classifier on the data sets `forget`, `retain` and, if given, `validation`.

    It returns the accuracy of each in percent and, for match-holdout, `holdout`, the distance of the forget rows from
    the validation rows as `base` treats them; for match-reference `membership` (the
    attack, fitted on at most 2,000 rows of retain and of validation each) and `gap`, with validation in the place of
    test. Raises InputError where the objective lacks its data set or reference.
    """
    given = {name: data for name, data in sets.items() if data is not None}
    if objective != "retain-floor" and "validation" not in given:
        raise InputError(f"unlearn: {objective} needs validation (a data set of rows that the model has not seen)")
    _check_reference(objective, reference)

    unseen = observe(base, given["validation"], forward) if objective == "match-holdout" else None

    def measure(model: nn.Module) -> dict[str, float]:
        seen = {name: observe(model, data, forward) for name, data in given.items()}
        scores = {name: accuracy(columns["correct"]) for name, columns in seen.items()}
        if unseen is not None:
            scores["holdout"] = holdout_distance(seen["forget"], unseen)
        if objective == "match-reference":
            scores["membership"] = membership_svc_confidence(
                *(seen[name]["confidence"] for name in ("retain", "validation", "forget")),
                seed=derive_seed(seed, "selection attack"),
                most=ATTACK_ROWS,
            )
        return scores

    if objective != "match-reference":
        return measure
    assert reference is not None
    target = _as_row(measure(reference))

    def measure_gap(model: nn.Module) -> dict[str, float]:
        scores = measure(model)
        return {**scores, "gap": average_gap(_as_row(scores), target).total}

    return measure_gap


def own_scores(evaluate: Evaluate, objective: str, reference: nn.Module | None) -> Evaluate:
    """Return the user's `evaluate`, for match-reference with `gap`: the mean of |score − reference's| over its scores.

    Raises InputError for match-reference without a reference.
    """
    _check_reference(objective, reference)
    if objective != "match-reference":
        return evaluate
    assert reference is not None
    training = reference.training
    with torch.no_grad():
        target = dict(evaluate(reference.eval()))
    reference.train(training)

    def measure(model: nn.Module) -> dict[str, float]:
        scores = dict(evaluate(model))
        return {**scores, "gap": sum(abs(scores[key] - target[key]) for key in target) / len(target)}

    return measure


@torch.inference_mode()
def observe(model: nn.Module, data: Dataset[Any], forward: Forward) -> Columns:
    """Return the columns of a classifier's answers to a data set whose batches are (inputs, labels, …)."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    outputs, labels = [], []
    for raw in DataLoader(data, batch_size=256, generator=torch.Generator()):
        batch = move(raw, device)
        found = forward(model, batch)
        outputs.append(found.float().cpu().flatten(0, -2))
        labels.append(batch[1].cpu().flatten())
    model.train(training)
    return columns_of(torch.cat(outputs), torch.cat(labels), ("correct", "loss", "confidence"))


def move(batch: Any, device: torch.device) -> Any:
    """Return a batch, a tensor or a nest of mappings and sequences of them, on a device."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: move(value, device) for key, value in batch.items()}
    if isinstance(batch, Iterable) and not isinstance(batch, str):
        return type(batch)(move(value, device) for value in batch)  # type: ignore[call-arg]
    return batch


def _check_reference(objective: str, reference: nn.Module | None) -> None:
    if objective == "match-reference" and reference is None:
        raise InputError("unlearn: match-reference needs reference (a module that never saw the forget rows)")
    if objective != "match-reference" and reference is not None:
        raise InputError(f"unlearn: {objective} does not look at a reference; leave it out, or choose match-reference")


def _as_row(scores: Mapping[str, float]) -> dict[str, float]:
    return {**{key: scores[key] for key in ("retain", "forget", "membership")}, "test": scores["validation"]}
