"""Influence unlearning: one Newton step from the optimum with the forget rows to the one without them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from negmerge.checkpoints import read_state_dict, write_bytes_atomic, write_state_dict
from negmerge.seeding import derive_seed
from negmerge.tasks.task import RowLosses
from negmerge.unlearning.context import SHARED, Context, Outcome
from negmerge.unlearning.fitting import write_weights
from negmerge.unlearning.gradients import mean_gradient, row_losses, trained_parameters
from negmerge.unlearning.method import Passes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from negmerge.unlearning.gradients import LossesOf
    from negmerge.unlearning.woodfisher import Solved

KIND = "train"
NEEDS = ("forget", "retain")
SUMMARY = "one Newton step to where training without the forget rows would have ended, by the WoodFisher Hessian"
REFERENCE = "Izzo et al., Approximate Data Deletion, AISTATS 2021 (arXiv 2002.10077); WoodFisher, arXiv 2004.14340"
REQUIRES = (RowLosses,)
SEARCH = {"scale": (0.5, 1.0, 2.0, 3.0, 4.0)}


class Settings(BaseModel):
    """The step and what the Hessian is made of."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    scale: float = Field(1.0, gt=0, description="factor of the step; 1 is Newton's, 5 and more diverge")
    samples: int = Field(1000, ge=1, description="retain rows whose gradients make the Hessian")
    damping: float = Field(1.0, gt=0, description="added to the diagonal of the Hessian")


def passes(settings: Settings, rows: Mapping[str, int]) -> Passes:
    """Return the rows whose gradients are taken, once for all scales: twice in each of about three iterations."""
    return Passes(0, shared=rows["forget"] + rows["retain"] + 2 * 4 * min(settings.samples, rows["retain"]))


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Take the step θ = θ₀ + scale · H⁻¹ · (n_f / N) · (ḡ_f − ḡ_r).

    ḡ_f and ḡ_r are the mean gradients of the cross-entropy on the n_f forget and the n_r retain rows, N = n_f + n_r;
    their weighted difference is ∇L(1/N − w) with w = 1/n_r on the retain rows and 0 on the forget rows, the published
    form. H = damping · I + mean over m retain rows of g gᵀ is the WoodFisher estimate, drawn from the seed where there
    are more than `samples` retain rows. Buffers stay those of the base; the model is in evaluation mode throughout.

    The direction does not depend on the scale: it is computed once for all scales of a search, and kept. An interrupted
    computation starts anew. Raises NegmergeError where a weight is not finite.

    Source: arXiv 2304.04934, section 3 (IU); Singh & Alistarh, WoodFisher, NeurIPS 2020 (arXiv 2004.14340).
    """
    import torch

    checkpoint, facts_file = context.directory / "model.safetensors", context.directory / "influence.json"
    if not facts_file.exists():
        context.directory.mkdir(parents=True, exist_ok=True)
        model = context.data.task.open(context.base, context.data.device)
        facts = _direction(context, settings, model)
        started = time.perf_counter()
        with torch.no_grad():
            for parameter, direction in zip(trained_parameters(model), facts.pop("vector"), strict=True):
                parameter.add_(direction, alpha=settings.scale)
        write_weights(checkpoint, model)
        write_bytes_atomic(facts_file, json.dumps({"seconds": time.perf_counter() - started, **facts}).encode())
    facts = json.loads(facts_file.read_text())
    seconds = {"training": facts.pop("seconds"), SHARED: facts.pop("direction_seconds")}
    return Outcome(checkpoint=checkpoint, facts=facts, seconds=seconds)


def _direction(context: Context, settings: Settings, model: nn.Module) -> dict[str, Any]:
    """Return the Newton step at the base, with how it was solved for; from the shared folder, where it is there."""
    import torch

    data, parameters = context.data, trained_parameters(model)
    folder = context.shared / f"influence-{settings.samples}-{settings.damping:g}"
    vector_file, facts_file = folder / "direction.safetensors", folder / "direction.json"
    if not facts_file.exists():
        started = time.perf_counter()
        folder.mkdir(parents=True, exist_ok=True)
        order = torch.randperm(
            len(data.retain), generator=torch.Generator().manual_seed(derive_seed(data.seed, "hessian"))
        )
        sample = data.retain[order[: settings.samples]]
        step = newton_step(
            partial(row_losses, data, model), parameters, data.forget, data.retain, sample, settings.damping
        )
        write_state_dict(vector_file, {str(i): part.cpu().contiguous() for i, part in enumerate(step.vector)})
        seconds = time.perf_counter() - started
        facts = {"iterations": step.iterations, "residual": step.residual, "direction_seconds": seconds}
        write_bytes_atomic(facts_file, json.dumps(facts).encode())
    vector = read_state_dict(vector_file)
    parts = [vector[str(i)].to(parameter) for i, parameter in enumerate(parameters)]
    return {"vector": parts, **json.loads(facts_file.read_text())}


def newton_step(
    losses: LossesOf,
    parameters: Sequence[nn.Parameter],
    forget: Tensor,
    retain: Tensor,
    sample: Tensor,
    damping: float,
) -> Solved:
    """Return H⁻¹ · (n_f / N) · (ḡ_f − ḡ_r), with H from the rows in `sample`, at the parameters as they are.

    Exact where the loss is quadratic with H its Hessian and the parameters minimise the damped mean over all rows: then
    parameters plus step minimise the damped mean over the retain rows.
    """
    from negmerge.unlearning.woodfisher import inverse_hessian_vector

    of_forget, of_retain = (mean_gradient(losses, parameters, rows) for rows in (forget, retain))
    share = len(forget) / (len(forget) + len(retain))
    difference = [share * (f - r) for f, r in zip(of_forget, of_retain, strict=True)]
    return inverse_hessian_vector(lambda: losses(sample), parameters, difference, len(sample), damping)
