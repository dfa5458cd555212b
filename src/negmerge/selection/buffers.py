"""Running statistics of batch normalisation, re-estimated for weights that have moved."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from negmerge.errors import InputError
from negmerge.training.running_statistics import statistics_layers


def has_statistics(model: nn.Module) -> bool:
    """Whether a model has running statistics at all."""
    return bool(statistics_layers(model))


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[tuple[int, Any]], forward: Callable[[nn.Module, Any], Any]) -> None:
    """Re-estimate the running statistics of all batch-norm layers in place; `forward(model, batch)` runs the model.

    `batches` are pairs: how many rows a batch has, and the batch.

    For B batches, running_mean = Σ_b mean_b / B and running_var = Σ_b var_b / B with the unbiased variance of each
    batch; a layer sees what the layers before it make of the same batch with the batch's own statistics. Every other
    tensor stays as it is, `num_batches_tracked` too, and all layers but these are in evaluation mode.

    Raises InputError for a model without such layers, for no batch, and for a batch of one row.

    Source: Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, 2018
    (arXiv 1803.05407), section 3.2.
    """
    layers = statistics_layers(model)
    if not layers:
        raise InputError("buffers: the model has no batch-norm layer with running statistics; use buffers: keep")
    counters = [layer.num_batches_tracked for layer in layers if layer.num_batches_tracked is not None]
    tracked = [counter.clone() for counter in counters]
    momenta = [layer.momentum for layer in layers]
    model.eval()
    count = 0
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # the cumulative average: every batch counts the same
            layer.train()
        for rows, batch in batches:
            if rows < 2:
                raise InputError("buffers: statistics of a batch of one row do not exist; give at least 2 rows")
            forward(model, batch)
            count += 1
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()
        for counter, value in zip(counters, tracked, strict=True):
            counter.copy_(value)
    if not count:
        raise InputError("buffers: recalibrating needs at least one batch of rows")
