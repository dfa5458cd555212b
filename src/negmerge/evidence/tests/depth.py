"""At which block does the knowledge still lie? The unlearned model's hidden states, put into the base, tell."""

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from negmerge.evidence.blocks import chain_of, patched, recorded
from negmerge.evidence.features import linear_cka, pooled
from negmerge.evidence.protocol import Cost, EvidenceSettings, Found
from negmerge.evidence.scale import Role, read_scale, unread
from negmerge.evidence.subject import CHUNK, ROLES, Subject
from negmerge.tasks.task import RowLosses

SUMMARY = "whether the base can still read what was forgotten from the model's hidden states, block by block"
REQUIRES = (RowLosses,)
REFERENCE = "activation patching, arXiv 2605.24614"
PAIRS: tuple[tuple[Role, Role], ...] = (("model", "base"), ("model", "reference"), ("base", "reference"))
LEAST = 2  # rows that a share of erasure can be told of


class Settings(EvidenceSettings):
    """Rows, and what counts as an effect."""

    rows: int = Field(200, ge=2, description="forget rows at most")
    effect: float = Field(0.05, gt=0, description="nat that Retrain's hidden states must cost, for a block to count")


def erased(reference: Tensor, model: Tensor, effect: float = 0.05) -> Tensor:
    """Return D of each row, float64 [n], from Δ of Retrain and of the model, [n, blocks] each; NaN of rows left out.

    D = Σ Δ_l(Retrain) · clip(Δ_l(model) / Δ_l(Retrain), 0, 1) / Σ Δ_l(Retrain), over the blocks l where Δ_l(Retrain) >
    `effect`: 1 where it is erased as deep as by Retrain, 0 where all can be recovered. A row without such a block is
    left out.

    >>> erased(torch.tensor([[0.0, 1.0, 3.0]]), torch.tensor([[9.0, 2.0, 1.5]])).item()
    0.625
    """
    counts = reference > effect
    weight = torch.where(counts, reference, 0.0).double()
    share = torch.where(counts, model / torch.where(counts, reference, 1.0), 0.0).double().clamp(0.0, 1.0)
    return (weight * share).sum(1) / weight.sum(1)  # 0 / 0 is NaN


def cost(settings: Settings, rows: Mapping[str, int]) -> Cost:
    """Return the passes for a chain of eight blocks: the number of blocks is known once the model is open."""
    return Cost(evaluated=(5 + 2 * 8) * min(settings.rows, rows["forget"]))


def run(subject: Subject, settings: Settings) -> Found:
    """Replace the output of one block of the base by that of another model on the same rows, and see what it costs.

    Δ_l(m) = log p of the right answer by the base, less that with block l's output from m, in nat; m is Retrain or the
    judged model. The blocks are those whose outputs feed the next layer with weights, the last layer left out: its
    output is the answer. Score: 100 · (1 − D) of each forget row, D as in `erased`: the base has 100, Retrain 0.

    Facts: `nat`, the mean Δ of each block; `cka`, how alike each block's output is in two models (`linear_cka` of the
    forget rows, averaged over places or tokens), of the model beside the base and Retrain and of these two.
    """
    base = subject.kept("base")
    rows = subject.rows("forget")[: settings.rows]
    names = chain_of(subject.task, base, rows[:2], subject.device)
    others = [chain_of(subject.task, subject.kept(role), rows[:2], subject.device) for role in ("reference", "model")]
    if not names or any(other != names for other in others):
        return Found((unread("depth", "the models are no chain of the same blocks"),), "The models are no chain.")
    costs: dict[Role, list[Tensor]] = {"reference": [], "model": []}
    seen: dict[Role, dict[str, list[Tensor]]] = {role: {name: [] for name in names} for role in ROLES}
    for some in rows.split(CHUNK):
        batch = subject.task.batch(some, subject.device)
        real = subject.task.real_tokens(batch)
        for role in ROLES:
            states = recorded(subject.task, subject.kept(role), batch, names)
            for name, state in states.items():
                seen[role][name].append(pooled(state[0] if isinstance(state, tuple) else state, real))
            if role in costs:
                costs[role].append(patched(subject.task, base, batch, states))
    by_role = {role: torch.cat(found) for role, found in costs.items()}
    shares = erased(by_role["reference"], by_role["model"], settings.effect)
    told = ~shares.isnan()
    facts = {
        "blocks": names,
        "nat": {role: found.mean(0).tolist() for role, found in by_role.items()},
        "cka": {
            f"{one} and {other}": [linear_cka(torch.cat(seen[one][n]), torch.cat(seen[other][n])) for n in names]
            for one, other in PAIRS
        },
        "rows": {"counted": int(told.sum()), "left_out": int((~told).sum())},
    }
    if int(told.sum()) < LEAST:
        return Found((unread("depth", "Retrain's hidden states cost the base nothing"),), "Nothing to read.", facts)
    left = 100.0 * (1.0 - shares[told])
    everything, nothing = torch.full_like(left, 100.0), torch.zeros_like(left)
    reading = read_scale("1 − D", {"base": everything, "reference": nothing, "model": left}, span=100.0)
    text = (
        f"Of what the base can read from its own hidden states and not from Retrain's, it can still read "
        f"{float(left.mean()):.0f} % from the model's."
    )
    return Found((reading,), text, facts)
