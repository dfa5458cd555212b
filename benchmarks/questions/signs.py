"""Why signs: what the agreement of the members says of a fresh one, and of the gradients on forget and retain rows."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from negmerge.checkpoints import write_state_dict
from negmerge.projection import Moments, Projection, project_vector
from questions.draws import Draw, Row
from questions.tables import Spread, markdown

TITLE = "Why signs"
FRESH = 3
FEW = 9
ROWS = 1000
MERGES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("uniform", "uniform", {}),
    ("consensus of 75 %", "consensus", {"threshold": 0.75}),
)
STRENGTHS = (1.0, 10.0)


def flat(parts: Mapping[str, Tensor]) -> Tensor:
    """Return all tensors as one vector, in the order of their names."""
    return torch.cat([parts[name].flatten() for name in sorted(parts)])


def gradient(draw: Draw, part: str) -> Tensor:
    """Return the gradient of the base's mean loss on rows of a part, as it answers (statistics stay)."""
    task, model = draw.material.task, draw.material.task.open(draw.run.base, draw.material.device).eval()
    rows = draw.sample(part, ROWS, "gradient")
    for piece in rows.split(100):
        (task.losses(model, task.batch(piece, draw.material.device)).sum() / len(rows)).backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return flat({name: value.double() for name, value in grads.items()})


def measure(draw: Draw) -> dict[str, Any]:
    """Return what is counted over all elements of a draw's pool, what vectors do to others, and rows of the merges."""
    counted = draw.kept("signs", [sorted(draw.members), FRESH, ROWS], lambda: count(draw))
    return {**counted, "effects": effects(draw), "rows": projected(draw)}


def count(draw: Draw) -> dict[str, Any]:
    """Count signs; see `table`."""
    members = torch.stack([flat(draw.delta(path)) for path in draw.members.values()])
    forget = draw.material.parts["forget"]
    fresh = torch.stack([
        flat(draw.delta(draw.trained(f"fresh-{i}", forget, {}, part=f"fresh {i}"))) for i in range(FRESH)
    ])  # fmt: skip
    mean, spread = members.mean(0), members.std(0)
    votes = torch.maximum((members > 0).sum(0), (members < 0).sum(0)) / len(members)
    ratio = mean.abs() / (spread / len(members) ** 0.5).clamp_min(1e-30)
    against = {part: gradient(draw, part) for part in ("forget", "retain")}
    rankings = {"agreement": votes, "size of the mean": mean.abs(), "signal to noise": ratio}
    found: dict[str, Any] = {"elements": len(mean), "members": len(members)}
    found["signal to noise"] = [ratio.quantile(q).item() for q in (0.1, 0.25, 0.5, 0.75, 0.9)]
    bins = {"all": votes > 0, "≤ 60 %": votes <= 0.6, "60 – 80 %": (votes > 0.6) & (votes <= 0.8),
            "80 – 99 %": (votes > 0.8) & (votes < 1), "unanimous": votes == 1}  # fmt: skip
    found["bins"] = {}
    for name, inside in bins.items():
        norm = (mean[inside].square().sum() / mean.square().sum()).item()
        known = {"share": inside.double().mean().item(), "norm": norm}
        found["bins"][name] = known | predicted(mean, fresh, against, inside)
    top = max(1, int(0.1 * len(mean)))
    found["tenth"] = {}
    for name, value in rankings.items():
        inside = torch.zeros_like(votes, dtype=torch.bool)
        inside[value.topk(top).indices] = True
        found["tenth"][name] = predicted(mean, fresh, against, inside)
    return found


def predicted(mean: Tensor, fresh: Tensor, against: Mapping[str, Tensor], inside: Tensor) -> dict[str, float]:
    """Return how often the mean's sign is a fresh member's, and the opposite of the gradients', in percent."""
    some = mean[inside].sign()
    found = {"fresh": 100 * (fresh[:, inside].sign() == some).double().mean().item()}
    for part, grad in against.items():
        live = grad[inside] != 0
        found[part] = 100 * (grad[inside][live].sign() == -some[live]).double().mean().item()
    return found


def vectors(draw: Draw) -> dict[str, dict[str, Tensor]]:
    """Return vectors of the pool by name: the mean, and the mean on a tenth or so of the elements, chosen in ways."""
    deltas = [draw.delta(path) for path in draw.members.values()]
    names = list(deltas[0])
    mean = {n: torch.stack([d[n] for d in deltas]).mean(0) for n in names}
    spread = {n: torch.stack([d[n] for d in deltas]).std(0) for n in names}
    votes = {
        n: torch.maximum(sum((d[n] > 0).int() for d in deltas), sum((d[n] < 0).int() for d in deltas)) for n in names
    }
    need = -(-3 * len(deltas) // 4)
    kept = {n: votes[n] >= need for n in names}
    share = flat({n: kept[n].double() for n in names}).mean().item()
    generator = torch.Generator().manual_seed(draw.number)

    def largest(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        cutoff = flat(values).sort(descending=True).values[max(0, int(share * len(flat(values))) - 1)]
        return {n: mean[n] * (values[n] >= cutoff) for n in names}

    return {
        "mean": mean,
        "consensus of 75 %": {n: mean[n] * kept[n] for n in names},
        "largest of the mean": largest({n: mean[n].abs() for n in names}),
        "largest signal to noise": largest({n: mean[n].abs() / spread[n].clamp_min(1e-30) for n in names}),
        "random": largest({n: torch.rand(mean[n].shape, generator=generator, dtype=torch.float64) for n in names}),
    }


def effects(draw: Draw) -> dict[str, float]:
    """Return √(E‖τx_r‖² / E‖τx_f‖²) over all layers, of each vector, as it is and projected: what it does to others."""
    asked = [sorted(draw.members), list(STRENGTHS)]
    return draw.kept("effects", asked, lambda: measure_effects(draw))


def measure_effects(draw: Draw) -> dict[str, float]:
    """Measure what `effects` returns, by the report of the projection."""
    found, folder = {}, draw.work / "effects"
    folder.mkdir(parents=True, exist_ok=True)
    for name, vector in vectors(draw).items():
        source, target = folder / "vector.safetensors", folder / "projected.safetensors"
        write_state_dict(source, {key: value.float() for key, value in vector.items()})
        for strength in STRENGTHS:
            with Moments(draw.moments()) as moments:
                layers = project_vector(Projection(moments, strength), source, target).layers
            found[name] = ratio([(one.retain_before, one.forget_before) for one in layers])
            found[f"{name}, λ = {strength:g}"] = ratio([(one.retain_after, one.forget_after) for one in layers])
    return found


def ratio(layers: Sequence[tuple[float, float]]) -> float:
    """Return √(Σ retain² / Σ forget²)."""
    return math.sqrt(sum(r * r for r, _ in layers) / sum(f * f for _, f in layers))


def projected(draw: Draw) -> list[Row]:
    """Return rows of mean and consensus, plain and projected, of nine members and of all."""
    names = draw.order(0)
    return [
        {"size": size, "merge": label, "strength": strength, **draw.row(members, method, settings, strength)}
        for size in sorted({min(FEW, len(names)), len(names)})
        for members in [draw.some(names[:size])]
        for label, method, settings in MERGES
        for strength in (None, *STRENGTHS)
    ]


def table(draws: Sequence[dict[str, Any]]) -> str:
    """Return what agreement predicts, what vectors do to others, and what the projection does to the gap."""
    keys, lines = ("fresh", "forget", "retain"), []
    for name in draws[0]["bins"]:
        rows = [draw["bins"][name] for draw in draws]
        shares = [f"{100 * Spread.of(row[key] for row in rows).mean:.1f}" for key in ("share", "norm")]
        lines.append([name, *shares, *(Spread.of(row[key] for row in rows) for key in keys)])
    for name in draws[0]["tenth"]:
        rows = [draw["tenth"][name] for draw in draws]
        lines.append([f"the tenth of largest {name}", "10.0", "", *(Spread.of(r[key] for r in rows) for key in keys)])
    told = ["a fresh member", "descent on forget rows", "descent on retain rows"]
    predicts = markdown(["elements", "share %", "of ‖mean‖² %", *(f"sign of {one} %" for one in told)], lines)
    names = [name for name in draws[0]["effects"] if "λ" not in name]
    columns = ["", *(f", λ = {strength:g}" for strength in STRENGTHS)]
    lines = [[n, *(two(draw["effects"][n + c] for draw in draws) for c in columns)] for n in names]
    acts = markdown(["vector", "plain", *(column[2:] for column in columns[1:])], lines)
    lines = []
    for i, row in enumerate(draws[0]["rows"]):
        rows = [draw["rows"][i] for draw in draws]
        scores = [Spread.of(one[key] for one in rows) for key in ("gap", "forget", "retain", "test")]
        lines.append([row["merge"], row["size"], "–" if row["strength"] is None else f"{row['strength']:g}", *scores])
    return "\n".join([predicts, acts, markdown(["merge", "N", "λ", "gap", "forget", "retain", "test"], lines)])


def two(values: Iterable[float]) -> str:
    """Return a mean with its standard error, to two places."""
    spread = Spread.of(values)
    return f"{spread.mean:.2f}" if spread.error is None else f"{spread.mean:.2f} ± {spread.error:.2f}"
