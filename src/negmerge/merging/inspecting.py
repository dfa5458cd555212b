"""What a pool looks like before it is merged: consensus per tensor, cosines, zeros, and what to be wary of."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from negmerge.merging.advice import advise
from negmerge.merging.agreement import Agreement, Effect
from negmerge.merging.applying import Floats, no_effect
from negmerge.merging.health import MemberHealth, count_signs, health_of
from negmerge.merging.passes.jobs import Piece, cut, in_threads
from negmerge.merging.passes.plain import CHUNK, NOTHING, PieceFound, inspect_piece
from negmerge.merging.plan import Plan, plan_merge
from negmerge.merging.pool.opening import open_pool
from negmerge.merging.request import check_request
from negmerge.merging.resolution import effect_warnings
from negmerge.merging.tally import Tally, TensorCount
from negmerge.merging.term import Term
from negmerge.merging.warnings import chance_level, term_warnings
from negmerge.notebook import html_of


@dataclass(frozen=True)
class Inspection:
    """The statistics of a pool; shares are from 0 to 1, `cosine` is N × N in the members' order.

    `to_base` has cos(θᵢ, θ₀), `away_from_base` cos(τᵢ, θ₀) and `relative_size` ‖τᵢ‖/‖θ₀‖ of each member, all of the
    matrices alone (tensors of two dimensions or more) where there are any; `effect` is that
    of a merge with α = 1 in the base's dtypes. `health` says how each member stands to the others, and which are to be
    left out; `advice` is what to merge such a pool by, where measurements say so.
    `partial` maps merged tensors that some adapters have no part in to how many members can change them; the shares
    leave these tensors out.
    """

    members: tuple[str, ...]
    consensus: float
    chance: float
    zero_share: float
    cosine: tuple[tuple[float, ...], ...]
    to_base: tuple[float, ...]
    away_from_base: tuple[float, ...]
    relative_size: tuple[float, ...]
    effect: Effect
    warnings: tuple[str, ...]
    tensors: tuple[TensorCount, ...]
    dtypes: tuple[str, ...]
    health: tuple[MemberHealth, ...]
    advice: str | None = None
    partial: Mapping[str, int] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """How many members and elements were looked at."""
        return f"{len(self.members)} member(s), {sum(tensor.elements for tensor in self.tensors):,} merged elements"

    def summary(self) -> list[tuple[str, str]]:
        """Return how far the members agree, each number with a word for what it is."""
        effect = self.effect
        return [
            ("consensus", f"{100 * self.consensus:.2f} %  (independent signs would give {100 * self.chance:.2f} %)"),
            ("zeros", f"{100 * self.zero_share:.2f} % of all differences"),
            (
                "effect",
                f"α = 1 would change {100 * effect.changed_share:.2f} %, ‖τ‖/‖θ₀‖ = {effect.relative_step:.2g}",
            ),
            *(
                ("cosine", f"{' '.join(f'{value:6.3f}' for value in row)}   {path}")
                for path, row in zip(self.members, self.cosine, strict=True)
            ),
            *(
                ("to base", f"cos(θᵢ, θ₀) = {cosine:.3f}, ‖τᵢ‖/‖θ₀‖ = {size:.2g}   {path}")
                for path, cosine, size in zip(self.members, self.to_base, self.relative_size, strict=True)
            ),
            *(("health", one.text) for one in self.health if len(self.health) > 1),
            *([("advice", self.advice)] if self.advice else []),
        ]

    def _repr_html_(self) -> str:
        """Return title, summary and warnings as notebooks show them."""
        return html_of(self.title, self.summary(), self.warnings)

    def as_json(self) -> dict[str, Any]:
        """Return the statistics as `negmerge inspect --json` prints them."""
        return {
            "members": list(self.members),
            "elements": sum(tensor.elements for tensor in self.tensors),
            "consensus": self.consensus,
            "chance": self.chance,
            "zero_share": self.zero_share,
            "cosine": [list(row) for row in self.cosine],
            "cosine_to_base": list(self.to_base),
            "cosine_of_change_to_base": list(self.away_from_base),
            "size_over_base": list(self.relative_size),
            **self.effect.as_json(),
            "health": [one.as_json() for one in self.health],
            "advice": self.advice,
            "warnings": list(self.warnings),
            "tensors": [
                {
                    "name": tensor.name,
                    "shape": list(tensor.shape),
                    "dtype": dtype,
                    "elements": tensor.elements,
                    "members": self.partial.get(tensor.name, len(self.members)),
                    "consensus": tensor.kept / tensor.elements if tensor.elements else 0.0,
                }
                for tensor, dtype in zip(self.tensors, self.dtypes, strict=True)
            ],
        }


def inspect_checkpoints(
    base: Path | str,
    members: Sequence[Path | str],
    *,
    threshold: float = 1.0,
    zeros: str = "veto",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    workers: int | None = None,
) -> Inspection:
    """Measure a pool in one streamed pass, and write nothing.

    consensus: the share of elements that the consensus method would keep; chance: the share that independent fair signs
    would give; zero_share: the share of all task vector elements that are exactly 0, both over the tensors that all
    members can change; cosine: between the members' whole task vectors, accumulated in float64. Raises InputError as
    `merge_checkpoints` does.
    """
    settings = {"threshold": threshold, "zeros": zeros}
    merger = check_request(
        "consensus", settings, base=base, members=members, include=include, exclude=exclude, workers=workers
    )
    with open_pool(Path(base), [Path(member) for member in members], include, exclude) as pool:
        plan = plan_merge(pool.base, [Term(pool, merger)])
        counts, agreement, effect = _look(plan, workers)
        dtypes = [pool.base.dtype(name) for name in pool.merged]
        common = [tensor for tensor in counts if tensor.name not in pool.partial]
        elements = sum(tensor.elements for tensor in common)
        consensus = sum(tensor.kept for tensor in common) / max(1, elements)
        chance = chance_level(len(pool.members), threshold)
        names = tuple(str(member.path) for member in pool.members)
        cosine = agreement.cosine()
        health = health_of(names, cosine, agreement.relative_size(), count_signs(pool))
        return Inspection(
            members=names,
            consensus=consensus,
            chance=chance,
            zero_share=agreement.zero_share,
            cosine=cosine,
            to_base=agreement.to_base(),
            away_from_base=agreement.away_from_base(),
            relative_size=agreement.relative_size(),
            effect=effect,
            warnings=(
                *pool.warnings,
                *term_warnings(plan.terms[0], counts, agreement),
                *effect_warnings(plan.terms, [counts], effect, dtypes),
            ),
            tensors=counts,
            partial=dict(pool.partial),
            dtypes=tuple(map(str, dtypes)),
            health=health,
            advice=advise(cosine, consensus, threshold),
        )


def _look(plan: Plan, workers: int | None) -> tuple[tuple[TensorCount, ...], Agreement, Effect]:
    """Count, multiply and merge every element of a pool: by compiled loops where these can read a tensor."""
    (term,) = plan.terms
    pool, tally, total = term.pool, Tally(term.pool), no_effect()
    (sources,) = plan.sources
    fast = sources.names if sources is not None else ()
    rest = [name for name in pool.merged if sources is None or name not in sources.index]

    def plainly(batch: list[Piece]) -> list[PieceFound]:
        return [inspect_piece(term, piece) for piece in batch]

    if sources is not None:
        from negmerge.merging.compiled.inspecting import FusedInspection
        from negmerge.merging.compiled.rules import rule_of

        rule = rule_of(term.merger, len(pool.members))
        assert rule is not None
        fused = FusedInspection(pool, rule, sources)

        def quickly(batch: list[Piece]) -> list[PieceFound]:
            found = fused.inspect(batch)
            if found is None:
                return plainly(batch)
            differs = found.agreement[2:] < found.agreement[0]
            sums = found.products, found.agreement
            nothing = np.zeros_like(sums[0]), np.zeros_like(sums[1])
            return [
                PieceFound(NOTHING, int(count), differs, *(sums if i == 0 else nothing), found.effects[i])
                for i, count in enumerate(found.kept)
            ]

        total += _add_up(tally, quickly, cut(plan.sizes, fast, 2 * CHUNK), workers)
    total += _add_up(tally, plainly, cut(plan.sizes, rest, plan.chunk), workers)
    return tally.counts(), tally.agreement, Effect.of(sum(plan.sizes.values()), total)


def _add_up(
    tally: Tally,
    look: Callable[[list[Piece]], list[PieceFound]],
    jobs: Iterable[list[Piece]],
    workers: int | None,
) -> Floats:
    total = no_effect()

    def work(batch: list[Piece]) -> tuple[list[Piece], list[PieceFound]]:
        return batch, look(batch)

    for batch, pieces in in_threads(work, jobs, workers):
        for (name, _, _), found in zip(batch, pieces, strict=True):
            tally.add([(name, found.kept)], found.differs, found.products, found.agreement)
            total += found.effect
    return total
