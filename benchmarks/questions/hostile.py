"""How the pool was chosen, and what one bad member does to it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from negmerge.checkpoints import read_state_dict, write_state_dict
from negmerge.merging.inspecting import inspect_checkpoints
from negmerge.seeding import derive_seed
from questions.draws import Draw, Row
from questions.tables import Spread, markdown

TITLE = "How the pool was chosen, and one bad member"
SIZE = 9
MERGES: dict[str, tuple[str, dict[str, Any]]] = {
    "consensus": ("consensus", {}),
    "consensus of 75 %": ("consensus", {"threshold": 0.75}),
    "uniform": ("uniform", {}),
    "median": ("median", {}),
    "trimmed-mean": ("trimmed-mean", {}),
    "ties": ("ties", {}),
}
BAD = ("sign-flipped", "other rows", "untrained", "diverged", "noise")


def honest_pools(draw: Draw) -> Iterator[tuple[str, dict[str, Path]]]:
    """Yield pools of nine: drawn from the grid, of one regime of it, and of a random search over the same ranges."""
    names = draw.order(0)
    yield "grid", draw.some(sorted(names[:SIZE]))
    middle = [name for name in sorted(names) if f"-lr{middle_of(draw, 'lr'):g}-" in name]
    yield "one regime", draw.some(middle)
    yield "random search", {f"search-{i}": searched(draw, i) for i in range(SIZE)}


def middle_of(draw: Draw, key: str) -> float:
    """Return the middle value of a setting of the grid."""
    values = sorted(draw.config.pool.grid[key])
    return float(values[len(values) // 2])


def searched(draw: Draw, number: int) -> Path:
    """Return a member whose settings are drawn from the ranges of the grid: log-uniform, epochs uniform."""
    generator = torch.Generator().manual_seed(derive_seed(draw.number, f"search {number}"))
    settings: dict[str, Any] = {}
    for key, values in draw.config.pool.grid.items():
        low, high = min(values), max(values)
        share = torch.rand((), generator=generator).item()
        if isinstance(low, int):
            settings[key] = round(low + share * (high - low))
        else:
            settings[key] = float(f"{low * (high / low) ** share:.3g}") if low > 0 else share * high
    return draw.trained(f"search-{number}", draw.material.parts["forget"], settings)


def bad_member(draw: Draw, kind: str) -> Path:
    """Return a member that is no fine-tuning on the forget rows, or one that went wrong."""
    forget = draw.material.parts["forget"]
    if kind == "other rows":
        return draw.trained("other-rows", draw.sample("retain", len(forget), "other rows"), {})
    if kind == "untrained":
        return draw.trained("untrained", forget, {"lr": 1e-5, "epochs": 1, "steps": 1})
    if kind == "diverged":
        return draw.trained("diverged", forget, {"lr": 100 * middle_of(draw, "lr")})
    target = draw.work / "bad" / f"{kind}.safetensors"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        path = draw.members[draw.order(0)[-1]]
        base, own, deltas = read_state_dict(draw.run.base), read_state_dict(path), draw.delta(path)
        if kind == "noise":
            generator = torch.Generator().manual_seed(derive_seed(draw.number, "noise"))
            drawn = {n: torch.randn(d.shape, generator=generator, dtype=d.dtype) for n, d in deltas.items()}
            deltas = {n: -drawn[n] * d.norm() / drawn[n].norm() for n, d in deltas.items()}
        write_state_dict(target, {**own, **{n: (base[n] - d).to(base[n].dtype) for n, d in deltas.items()}})
    return target


def measure(draw: Draw) -> list[Row]:
    """Return a row for every pool and merge; of the pools with a bad member, also what `inspect` names."""
    found = []
    pools: dict[str, tuple[dict[str, Path], str | None]] = {name: (of, None) for name, of in honest_pools(draw)}
    grid = pools["grid"][0]
    for kind in BAD:
        pools[f"grid and one {kind}"] = ({**grid, kind: bad_member(draw, kind)}, kind)
    for pool, (members, bad) in pools.items():
        named = named_by_inspect(draw, members)
        for label, (method, settings) in MERGES.items():
            row = draw.row(members, method, settings)
            found.append({"pool": pool, "merge": label, "bad": bad, "named": named, **row})
    return found


def named_by_inspect(draw: Draw, members: Mapping[str, Path]) -> list[str]:
    """Return the names of the members that `negmerge inspect` finds bad."""
    found = inspect_checkpoints(draw.run.base, list(members.values()))
    by_path = {str(path): name for name, path in members.items()}
    return [by_path[one.member] for one in found.health if one.bad]


def table(draws: Sequence[Sequence[dict[str, Any]]]) -> str:
    """Return a line for each pool: the gap by every merge, and how often the bad member was named."""
    rows = [row for draw in draws for row in draw]
    lines = []
    for pool in dict.fromkeys(row["pool"] for row in rows):
        own = [row for row in rows if row["pool"] == pool]
        kept = Spread.of(100 * row["kept"] for row in own if row["merge"] == "consensus")
        first = [row for row in own if row["merge"] == "consensus"]
        named = sum(row["bad"] in row["named"] for row in first)
        wrongly = sum(len([name for name in row["named"] if name != row["bad"]]) for row in first)
        told = f"{named} of {len(first)}" if first[0]["bad"] else "–"
        gaps = [Spread.of(row["gap"] for row in own if row["merge"] == merge) for merge in MERGES]
        lines.append([pool, f"{kept.mean:.1f}", *gaps, told, wrongly])
    return markdown(["pool", "unanimous %", *(f"gap: {m}" for m in MERGES), "bad member named", "others named"], lines)
