"""Is what the model does on the forget rows nearer to Retrain, or to the base? Relative MMD, with a p-value."""

from collections.abc import Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor

from negmerge.evidence.protocol import Cost, EvidenceSettings, Found
from negmerge.evidence.scale import WIDEST, Reading, Role, unread
from negmerge.evidence.subject import ROLES, Subject

SUMMARY = "whether the answers to forget rows are nearer to Retrain's or to the base's: relative MMD with a p-value"
COLUMNS = ("loss",)
WEIGHT = "description"  # it says which is nearer, not whether anything can be brought back
REFERENCE = "Bounliphone et al., A Test of Relative Similarity for Model Selection, 2016 (arXiv 1511.04581)"
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the median distance: the bandwidths
LEVEL = 0.05


class Settings(EvidenceSettings):
    """How often the rows are resampled."""

    resamples: int = Field(999, ge=99, description="of the rows, jointly in all three models")


def features(loss: Tensor) -> Tensor:
    """Return confidence and margin, float64 [n, 2], of losses −log p, float64 [n].

    confidence p = exp(−loss); margin log p − log(1 − p) = −loss − log(1 − exp(−loss)), held between −50 and 50.
    """
    loss = loss.double()
    margin = -loss - torch.log(-torch.expm1(-loss))
    return torch.stack([torch.exp(-loss), margin.clamp(-50.0, 50.0)], 1)


def kernel_differences(x: Tensor, y: Tensor, bandwidths: Sequence[float]) -> Tensor:
    """Return H [kernels, n, n]: k(x_i, x_j) + k(y_i, y_j) − k(x_i, y_j) − k(y_i, x_j), k(a, b) = exp(−|a−b|² / 2h²).

    Its mean is MMD² of the two samples [n, d] (the biased estimate, never below 0).
    """

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        squared = torch.cdist(a, b).square()
        return torch.stack([torch.exp(-squared / (2.0 * h * h)) for h in bandwidths])

    across = kernel(x, y)
    return kernel(x, x) + kernel(y, y) - across - across.transpose(1, 2)


def cost(settings: Settings, rows: Mapping[str, int]) -> Cost:
    """Return the rows that pass through the three models."""
    return Cost(evaluated=3 * rows["forget"])


def run(subject: Subject, settings: Settings) -> Found:
    """Compare U, R and B, confidence and margin of the forget rows (each divided by its deviation over all three).

    For each of five RBF kernels (bandwidth: the median distance times ¼, ½, 1, 2, 4) d = MMD²(U, B) − MMD²(U, R).
    Statistic: the largest d / σ, σ the deviation of d over the resamples; p of H0 "U is no nearer to R than to B" is
    the share of resamples whose centred statistic is as large (1 added to both counts), and p of the opposite likewise.
    Nearer is what has p < 0.05; "undecided" is an answer.

    Position: MMD²(U, R) / (MMD²(U, R) + MMD²(U, B)), MMD² summed over the kernels, with the 2.5 and 97.5 % quantiles
    of the resamples. Informative where MMD²(B, R) exceeds twice its deviation and the interval is narrower than 0.5.
    """
    rows = subject.rows("forget")
    seen: dict[Role, Tensor] = {
        role: features(subject.observe(subject.kept(role), rows, ("loss",))["loss"]) for role in ROLES
    }
    pooled = torch.cat(list(seen.values()))
    spread = pooled.std(0)
    scaled = {role: found / torch.where(spread > 0, spread, 1.0) for role, found in seen.items()}
    median = float(torch.pdist(torch.cat(list(scaled.values()))[:: max(1, len(pooled) // 1500)]).median())
    if len(rows) < 2 or median == 0.0:
        why = "the three models answer alike"
        return Found((unread("relative MMD", why),), "The three models answer these rows alike.")
    bandwidths = [factor * median for factor in FACTORS]
    u, r, b = scaled["model"], scaled["reference"], scaled["base"]
    n = len(rows)
    drawn = torch.randint(n, (settings.resamples, n), generator=subject.generator("three-sample"))
    weights = torch.zeros(settings.resamples + 1, n, dtype=torch.float64)
    weights[0] = 1.0  # the sample itself
    weights[1:].scatter_add_(1, drawn, torch.ones(drawn.shape, dtype=torch.float64))
    to_r, to_b, apart = (_mmd(kernel_differences(x, y, bandwidths), weights) for x, y in ((u, r), (u, b), (b, r)))
    p_reference, p_base = p_values(to_b - to_r)
    nearer = "reference" if p_reference < LEVEL else "base" if p_base < LEVEL else None
    total = to_r.sum(0) + to_b.sum(0)
    position = to_r.sum(0) / torch.where(total > 0, total, 1.0)
    low, high = (float(end) for end in position[1:].quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)))
    separate = float(apart.sum(0)[0]) > 2.0 * float(apart.sum(0)[1:].std())
    why = "" if separate else "base and Retrain answer these rows alike"
    why = why or ("the interval is wider than half the scale" if high - low >= WIDEST else "")
    reading = Reading(
        "relative MMD", 1.0, 0.0, float(position[0]), float(position[0]), low, high, n, "rows", not why, why
    )
    words = {
        "reference": "nearer to Retrain than to the base",
        "base": "nearer to the base than to Retrain",
        None: "not surely nearer to either of Retrain and the base",
    }[nearer]
    p = min(p_reference, p_base)
    text = f"What it answers to the forgotten rows is {words} (p = {p:.3f})."
    return Found((reading,), text, {"p_reference": p_reference, "p_base": p_base, "nearer": nearer})


def p_values(differences: Tensor) -> tuple[float, float]:
    """Return p of H0 d ≤ 0 and of H0 d ≥ 0 from differences [kernels, 1 + resamples], the sample itself first.

    Standardised by the deviation of the resamples; a kernel whose resamples do not vary is left out; no kernel: 1, 1.
    """
    sample, resampled = differences[:, 0], differences[:, 1:]
    sigma = resampled.std(1)
    kept = sigma > 0
    if not bool(kept.any()):
        return 1.0, 1.0
    centred = (resampled[kept] - resampled[kept].mean(1, keepdim=True)) / sigma[kept, None]
    statistic = sample[kept] / sigma[kept]
    count = resampled.shape[1]
    found = [
        (1 + int(((sign * centred).amax(0) >= (sign * statistic).max()).sum())) / (1 + count) for sign in (1.0, -1.0)
    ]
    return found[0], found[1]


def _mmd(differences: Tensor, weights: Tensor) -> Tensor:
    """Return MMD² [kernels, draws] of the rows taken as often as the weights [draws, n] say; never below 0."""
    n = weights.shape[1]
    return torch.stack([((weights @ kernel) * weights).sum(1) / n**2 for kernel in differences]).clamp_min(0.0)
