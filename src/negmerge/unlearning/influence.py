"""Influence unlearning: one Newton step from the optimum with the forget rows to the one without them."""

import json
import time

import torch
from pydantic import BaseModel, ConfigDict, Field

from negmerge.checkpoints import write_bytes_atomic
from negmerge.training import derive_seed
from negmerge.unlearning import Context, Outcome
from negmerge.unlearning._fitting import write_weights
from negmerge.unlearning._gradients import mean_gradient, row_losses, trained_parameters
from negmerge.unlearning._woodfisher import inverse_hessian_vector

KIND = "train"
NEEDS = ("forget", "retain")
SUMMARY = "one Newton step to where training without the forget rows would have ended, by the WoodFisher Hessian"
REFERENCE = "Izzo et al., Approximate Data Deletion, AISTATS 2021 (arXiv 2002.10077); WoodFisher, arXiv 2004.14340"
SEARCH = {"scale": (0.5, 1.0, 2.0, 3.0, 4.0)}


class Settings(BaseModel):
    """The step and what the Hessian is made of."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    scale: float = Field(1.0, gt=0, description="factor of the step; 1 is Newton's, 5 and more diverge")
    samples: int = Field(1000, ge=1, description="retain rows whose gradients make the Hessian")
    damping: float = Field(1.0, gt=0, description="added to the diagonal of the Hessian")


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Take the step θ = θ₀ + scale · H⁻¹ · (n_f / N) · (ḡ_f − ḡ_r).

    ḡ_f and ḡ_r are the mean gradients of the cross-entropy on the n_f forget and the n_r retain rows, N = n_f + n_r;
    their weighted difference is ∇L(1/N − w) with w = 1/n_r on the retain rows and 0 on the forget rows, the published
    form. H = damping · I + mean over m retain rows of g gᵀ is the WoodFisher estimate, drawn from the seed where there
    are more than `samples` retain rows. Buffers stay those of the base; the model is in evaluation mode throughout.

    An interrupted computation starts anew. Raises NegmergeError where a weight is not finite.

    Source: arXiv 2304.04934, section 3 (IU); Singh & Alistarh, WoodFisher, NeurIPS 2020 (arXiv 2004.14340).
    """
    checkpoint, facts_file = context.directory / "model.safetensors", context.directory / "influence.json"
    if not facts_file.exists():
        started = time.perf_counter()
        context.directory.mkdir(parents=True, exist_ok=True)
        data = context.data
        model = data.load(context.base)
        parameters = trained_parameters(model)
        forget, retain = (mean_gradient(data, model, rows) for rows in (data.forget, data.retain))
        share = len(data.forget) / (len(data.forget) + len(data.retain))
        difference = [share * (f - r) for f, r in zip(forget, retain, strict=True)]
        order = torch.randperm(
            len(data.retain), generator=torch.Generator().manual_seed(derive_seed(data.seed, "hessian"))
        )
        rows = data.retain[order[: settings.samples]]
        found = inverse_hessian_vector(
            lambda: row_losses(data, model, rows), parameters, difference, len(rows), settings.damping
        )
        with torch.no_grad():
            for parameter, direction in zip(parameters, found.vector, strict=True):
                parameter.add_(direction, alpha=settings.scale)
        write_weights(checkpoint, model)
        facts = {"seconds": time.perf_counter() - started, "iterations": found.iterations, "residual": found.residual}
        write_bytes_atomic(facts_file, json.dumps(facts).encode())
    facts = json.loads(facts_file.read_text())
    seconds = facts.pop("seconds")
    return Outcome(checkpoint=checkpoint, facts=facts, seconds={"training": seconds})
