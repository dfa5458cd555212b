"""What a user hands in, looked at before anything is trained."""

from collections import Counter
from collections.abc import Mapping, Sized
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from negmerge.errors import InputError
from negmerge.requests.naming import goes_on
from negmerge.tasks.user.batches import IGNORED, aligned, has_labels, labels_of, logits_of, loss_of_batch
from negmerge.tasks.user.task import UserTask

PROBED = 32  # rows, at most, that are passed through the model first
OWN = "give loss(outputs, batch) and evaluate(model)"


def check_data(name: str, data: Any) -> None:
    """Raise InputError unless a data set has a length above 0 and rows by number."""
    if isinstance(data, DataLoader):
        raise InputError(
            f"unlearn: {name} is a DataLoader; give its data set, and collate_fn and loader where it has its own"
        )
    if isinstance(data, IterableDataset) or not isinstance(data, Sized) or not hasattr(data, "__getitem__"):
        kind = type(data).__name__
        raise InputError(f"unlearn: {name} is a {kind}; give a data set with len() and rows by number: data[0]")
    if not len(data):
        raise InputError(f"unlearn: the {name} set is empty; give at least one row")


def check_loader(arguments: Mapping[str, Any]) -> None:
    """Raise InputError for arguments of a DataLoader that the run sets itself."""
    own = [name for name in ("batch_size", "shuffle", "generator", "collate_fn", "sampler") if name in arguments]
    if own:
        raise InputError(
            f"unlearn: loader: {own[0]} is set by the run; batch_size stands in pool, and collate_fn is an argument "
            "of unlearn"
        )


LABEL_BATCH = 256  # rows whose labels are read at a time


def check_module(model: Any) -> None:
    """Raise InputError unless the model is a module with a parameter that training may change."""
    if not isinstance(model, nn.Module):
        raise InputError(f"unlearn: model is a {type(model).__name__}; give a torch module")
    parameters = list(model.parameters())
    if not any(parameter.requires_grad for parameter in parameters):
        what = "every parameter is frozen (requires_grad is False)" if parameters else "it has no parameters"
        raise InputError(f"unlearn: the model cannot be trained: {what}; let those require a gradient that may change")


def count_classes(task: UserTask) -> int:
    """Return the number of classes that the model's outputs tell apart, from one small batch of the forget set.

    Raises InputError for outputs and labels that are not those of a classifier: one output a row, labels that are no
    whole numbers, or that do not fit the outputs; and for a data set whose every label is −100.
    """
    batch = _first_labelled(task, "forget")
    logits = logits_of(_answer(task, batch))
    if not isinstance(logits, Tensor) or logits.dim() < 2:
        shown = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"unlearn: outputs must be logits [rows, classes], got {shown}; {OWN}")
    labels, classes = labels_of(batch), logits.shape[-1]
    if classes < 2:
        raise InputError(f"unlearn: the model has one output a row, no logits of classes; {OWN}")
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dtype == torch.bool:
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise InputError(f"unlearn: labels are {kind}, no class numbers (int64): for other targets {OWN}")
    real = labels[labels != IGNORED]
    if labels.shape != logits.shape[:-1] or not 0 <= int(real.min()) <= int(real.max()) < classes:
        raise InputError(
            f"unlearn: labels {list(labels.shape)} from {int(real.min())} to {int(real.max())} do not fit logits "
            f"{list(logits.shape)}; {OWN}"
        )
    for part in task.sets:
        if part in ("retain", "validation"):
            _first_labelled(task, part)
    return classes


def answers_next_token(task: UserTask) -> bool:
    """Whether the outputs at a token answer the label of the next one, as those of causal language models do.

    So it is where the outputs' own loss is the cross-entropy of labels [b, L] one place further on, and not that of the
    labels in place, to a thousandth. Raises InputError where it is neither and is trained on: then accuracies cannot be
    read from them.
    """
    batch = _first_labelled(task, "forget")
    outputs = _answer(task, batch)
    labels, own = labels_of(batch), getattr(outputs, "loss", None)
    if not isinstance(own, Tensor) or labels.dim() != 2:
        return False
    logits = logits_of(outputs).float()
    here, there = (_mean_loss(*aligned(logits, labels, shifted)) for shifted in (False, True))
    found = [bool((loss - own.float()).abs() <= 1e-3 * (1 + own.float().abs())) for loss in (here, there)]
    if not any(found) and task.objective is loss_of_batch:
        raise InputError(
            f"unlearn: the outputs' own loss ({float(own):.4g}) is the cross-entropy of the labels neither in place "
            f"({float(here):.4g}) nor at the next token ({float(there):.4g}); give evaluate(model)"
        )
    return found == [False, True]


def _mean_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED)


def is_drawn_among(task: UserTask) -> bool:
    """Whether the forget rows are rows among others of their classes, not classes as a whole.

    Of every class of theirs retain must hold at least half as many, and validation at least one. False where labels are
    no tensors: what such rows are is not known.
    """
    found: dict[str, Counter[int]] = {}
    for part, rows in task.parts().items():
        if part in ("forget", "retain", "validation"):
            batches = task.loading.loader(task.table, rows, LABEL_BATCH, torch.Generator(), shuffle=False)
            labels = [labels_of(batch) for batch in batches]
            if not all(isinstance(one, Tensor) for one in labels):
                return False
            found[part] = Counter(torch.cat([one.flatten() for one in labels]).tolist() if labels else [])
            del found[part][IGNORED]
    forget, retain, validation = (found.get(part, Counter()) for part in ("forget", "retain", "validation"))
    return all(goes_on(retain[label], count) and validation[label] for label, count in forget.items())


def check_loss(task: UserTask) -> None:
    """Raise InputError unless the loss of one small batch of the forget set is a finite number with a gradient."""
    model = task.template().train()
    batch = _first_batch(task)
    with torch.random.fork_rng(devices=[]):
        loss = task.loss(model, batch)
    if not isinstance(loss, Tensor) or loss.dim() or not loss.isfinite():
        shown = f"{list(loss.shape)}" if isinstance(loss, Tensor) and loss.dim() else f"{loss!r}"
        raise InputError(f"unlearn: loss(outputs, batch) must return a finite scalar tensor, got {shown}")
    if not loss.requires_grad:
        raise InputError("unlearn: the loss does not depend on a parameter that may be trained; check forward and loss")


PERCENT = ("validation", "validation_forget")  # beside those that every objective asks for


def check_evaluation(values: Any, objective_score: str) -> tuple[str, ...]:
    """Return the names of the scores that `evaluate` returned for the given model.

    Raises InputError unless they are numbers with `forget`, `retain` and the objective's own score among them, or for
    such a score outside 0 … 100.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"unlearn: evaluate(model) must return a mapping of scores, got {type(values).__name__}")
    if "alpha" in values:
        raise InputError("unlearn: evaluate(model) must not return a score named 'alpha'; that is the scale's name")
    odd = [name for name, value in values.items() if isinstance(value, bool) or not isinstance(value, int | float)]
    if odd:
        raise InputError(f"unlearn: evaluate(model) must return numbers, got {values[odd[0]]!r} for {odd[0]!r}")
    # The gap compares all of them, each as much as the others.
    further = list(values) if objective_score == "gap" else [name for name in PERCENT if name in values]
    for name in dict.fromkeys(("forget", "retain", objective_score, *further)):
        value = values.get(name)
        if name != "gap" and (not isinstance(value, int | float) or not 0.0 <= value <= 100.0):
            found = "nothing" if value is None else value
            raise InputError(
                f"unlearn: evaluate(model) must return {name!r} as a percentage from 0 to 100, got {found}"
            )
    return tuple(values)


def _first_labelled(task: UserTask, part: str) -> Any:
    """Return the first small batch of a data set that has another label than −100. Raises InputError for none."""
    rows = task.parts()[part]
    for chosen in rows.split(PROBED):
        batch = task.batch(chosen, task.device)
        if has_labels(labels_of(batch)):
            return batch
    raise InputError(f"unlearn: every label of the {part} set is {IGNORED}, which is left out; give rows with labels")


def _first_batch(task: UserTask) -> Any:
    forget = task.parts()["forget"]
    return task.batch(forget[:PROBED], task.device)


@torch.no_grad()
def _answer(task: UserTask, batch: Any) -> Any:
    return task.forward(task.template().eval(), batch)
