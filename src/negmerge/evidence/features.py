"""Hidden states as features of rows, a linear classifier on them, and how alike two sets of features are."""

from typing import Any

import torch
from torch import Tensor, nn

from negmerge.errors import InputError, nearest
from negmerge.evidence.blocks import answering
from negmerge.evidence.subject import CHUNK, Subject

PENALTY = 1.0  # of the squared weights of a linear classifier, as is usual
NEWTON = 50  # steps at most
HALVINGS = 30


def features_of(subject: Subject, model: nn.Module, rows: Tensor, layer: str | None = None) -> Tensor:
    """Return the output of a layer on each row, pooled, float64 [n, features]; of the penultimate one unless given.

    Penultimate: what the last layer gets that holds a matrix. Raises InputError, with the nearest name, for a layer
    that is not there or is not called.
    """
    names = [name for name, _ in model.named_modules() if name]
    if layer is not None and layer not in names:
        raise InputError(f"evidence: probe: the model has no layer {layer!r}{nearest(layer, names)}")
    name = layer if layer is not None else answering(subject.task, model, rows[:2], subject.device)
    module, found = model.get_submodule(name), []
    seen: list[Any] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        values = inputs if layer is None else output
        seen.append(values[0] if isinstance(values, tuple) else values)

    handle = module.register_forward_hook(keep)
    try:
        for some in rows.split(CHUNK):
            batch = subject.task.batch(some, subject.device)
            seen.clear()
            with torch.inference_mode():
                subject.task.run_model(model, batch)
            if not seen or not isinstance(seen[-1], Tensor):
                raise InputError(f"evidence: probe: layer {name!r} is not called with tensors; name another one")
            found.append(pooled(seen[-1], subject.task.real_tokens(batch)))
    finally:
        handle.remove()
    return torch.cat(found)


def pooled(states: Tensor, real: Tensor | None = None) -> Tensor:
    """Return features of rows, float64 [b, features] on the CPU, of hidden states [b, …].

    [b, features] as they are; [b, tokens, features] as the mean over the tokens, of those that are `real` (bool [b,
    tokens]) where a mask of this shape is given; [b, channels, …] of four dimensions or more as the mean over places.
    """
    states = states.double().cpu()
    if states.dim() < 3:
        return states.reshape(len(states), -1)
    if states.dim() == 3:
        mask = torch.ones(states.shape[:2]) if real is None or real.shape != states.shape[:2] else real.cpu()
        weight = mask.double()[:, :, None]
        return (states * weight).sum(1) / weight.sum(1).clamp_min(1.0)
    return states.flatten(2).mean(2)


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Return how alike two sets of features of the same rows are, [n, d] and [n, e]: 1 up to rotation and scale.

    ‖YᵀX‖² / (‖XᵀX‖ · ‖YᵀY‖), Frobenius, columns centred. Features that do not vary are like each other (1) and like
    nothing else (0).

    Source: Kornblith et al., Similarity of Neural Network Representations Revisited, 2019 (arXiv 1905.00414).

    >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
    >>> round(linear_cka(x, 3.0 * x.flip(1) + 1.0), 6)
    1.0
    """
    ours, theirs = (_gram(one.double()) for one in (x, y))
    size = float(ours.norm() * theirs.norm())
    if size == 0.0:
        return float(float(ours.norm()) == float(theirs.norm()))
    return float((ours * theirs).sum()) / size


def _gram(x: Tensor) -> Tensor:
    centred = x - x.mean(0)
    return centred @ centred.T


def fit_linear(x: Tensor, y: Tensor) -> Tensor:
    """Return the weights of a logistic regression, float64 [d + 1], the intercept last.

    The minimiser of Σ log(1 + exp(−t·z)) + ½ · |w|², t = ±1 of labels y (bool [n]), z = x·w + b of features x [n, d];
    the intercept b is not held back. By Newton's method, in the span of the rows where d > n.
    """
    x = x.double()
    basis = torch.linalg.svd(x, full_matrices=False).Vh if x.shape[1] > len(x) else None
    inside = x if basis is None else x @ basis.T
    ones = torch.cat([inside, torch.ones(len(x), 1, dtype=torch.float64)], 1)
    hold = torch.full((ones.shape[1],), PENALTY, dtype=torch.float64)
    hold[-1] = 0.0
    target, w = y.double(), torch.zeros(ones.shape[1], dtype=torch.float64)

    def objective(w: Tensor) -> float:
        z = ones @ w
        return float(torch.nn.functional.softplus(z).sum() - (target * z).sum() + 0.5 * (hold * w * w).sum())

    value = objective(w)
    for _ in range(NEWTON):
        p = torch.sigmoid(ones @ w)
        slope = ones.T @ (p - target) + hold * w
        curved = (ones.T * (p * (1 - p))) @ ones + torch.diag(hold.clamp_min(1e-9))
        step, scale = torch.linalg.solve(curved, slope), 1.0
        for _ in range(HALVINGS):
            if objective(w - scale * step) <= value:
                break
            scale /= 2
        w = w - scale * step
        before, value = value, objective(w)
        if before - value <= 1e-10 * max(1.0, abs(before)):
            break
    return w if basis is None else torch.cat([w[:-1] @ basis, w[-1:]])


def held_out_right(x: Tensor, y: Tensor, fold: Tensor) -> Tensor:
    """Return whether each row is on the right side of a line fitted to the rows of other folds, bool [n].

    Features x [n, d] are brought to mean 0 and deviation 1 by those rows (a feature that does not vary stays); labels
    y bool [n], folds int64 [n].
    """
    x, right = x.double(), torch.zeros(len(x), dtype=torch.bool)
    for one in fold.unique().tolist():
        out = fold == one
        mean, spread = x[~out].mean(0), x[~out].std(0)
        scaled = (x - mean) / torch.where(spread > 0, spread, torch.ones_like(spread))
        w = fit_linear(scaled[~out], y[~out])
        right[out] = ((scaled[out] @ w[:-1] + w[-1]) > 0) == y[out]
    return right
