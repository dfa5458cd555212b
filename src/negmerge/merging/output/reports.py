"""What a merge says of itself when it is done."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from negmerge.checkpoints.base import elements
from negmerge.checkpoints.dtypes import DType
from negmerge.errors import shortened
from negmerge.execution.memory import peak_rss
from negmerge.merging.agreement import Effect
from negmerge.merging.output.beside import Beside
from negmerge.merging.passes.jobs import OnBytes
from negmerge.merging.plan import Plan
from negmerge.merging.resolution import effect_warnings
from negmerge.merging.tally import Merged, TensorCount
from negmerge.merging.warnings import term_warnings
from negmerge.notebook import html_of

OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class TermReport:
    """What one term of a recipe is: ±α times a method of so many members, and what it kept of its merged elements."""

    method: str
    add: bool
    alpha: float
    members: int
    elements: int
    kept: int
    projection: Mapping[str, Any] | None = None

    @property
    def text(self) -> str:
        """The term as a summand, and what it kept."""
        share = 100 * self.kept / max(1, self.elements)
        return (
            f"{'+' if self.add else '−'} {self.alpha:g} · {self.method} of {self.members} member(s), "
            f"kept {self.kept:,} of {self.elements:,} elements ({share:.2f} %)"
        )

    def as_json(self) -> dict[str, Any]:
        """Return the term as `negmerge merge --json` prints it."""
        return {key: value for key, value in vars(self).items() if key != "projection" or value is not None}


@dataclass(frozen=True)
class MergeReport:
    """What a merge did. `seconds` from opening the inputs to the rename; `bytes_read` and `peak_rss` in bytes.

    `left_behind` names what of the base's folder is not in OUT, if OUT is a folder; a folder's name ends in a slash.
    `elements` are those of the base, tied tensors once; `kept` is counted in every term. `common_elements` and
    `common_kept` leave out the merged tensors that some adapters have no part in. `effect` is None where OUT is an
    adapter, whose change is not applied.
    """

    output: Path
    method: str
    members: tuple[str, ...]
    elements: int
    merged_elements: int
    kept: int
    common_elements: int
    common_kept: int
    alpha: float
    seconds: float
    bytes_read: int
    tensors: tuple[TensorCount, ...]
    effect: Effect | None
    warnings: tuple[str, ...] = ()
    left_behind: tuple[str, ...] = ()
    terms: tuple[TermReport, ...] = ()

    @property
    def projection(self) -> Mapping[str, Any] | None:
        """What a projection did to the one term; None where there was none, or there are several terms."""
        return self.terms[0].projection if len(self.terms) == 1 else None

    @property
    def consensus(self) -> float:
        """The share that was kept of the elements that all members can change; 0 where there are none."""
        return self.common_kept / self.common_elements if self.common_elements else 0.0

    @property
    def title(self) -> str:
        """OUT and what it was made of, in a line."""
        if len(self.terms) > 1:
            return f"{self.output}: base and {len(self.terms)} term(s)"
        added = ", added" if self.terms and self.terms[0].add else ""
        return f"{self.output}: {self.method} of {len(self.members)} member(s), α = {self.alpha:g}{added}"

    def summary(self) -> list[tuple[str, str]]:
        """Return what was kept, changed and left out, each with a word for what it is."""
        share = f"{self.common_kept:,} of {self.common_elements:,} elements ({100 * self.consensus:.2f} %)"
        partial = self.merged_elements - self.common_elements
        partly = f"{partial:,} elements of tensors that only some members change, not counted above"
        found = [] if len(self.terms) > 1 else [("kept", share)]
        for term in self.terms if len(self.terms) > 1 else ():
            found += [("term", term.text), *(_projected(term.projection) if term.projection is not None else ())]
        if partial and len(self.terms) == 1:
            found.append(("partly", partly))
        found.append(("untouched", f"{self.elements - self.merged_elements:,} elements passed through from the base"))
        if self.effect is not None:
            found += self.effect.summary()
        if self.projection is not None:
            found += _projected(self.projection)
        found += self._of_the_output()
        if self.left_behind:
            found.append(("left behind", shortened(self.left_behind)))
        return [*found, ("took", f"{self.seconds:.2f} s, {peak_rss() / 2**20:.0f} MiB")]

    def _of_the_output(self) -> list[tuple[str, str]]:
        """Return what only some forms of OUT have to say."""
        return []

    def _repr_html_(self) -> str:
        """Return title, summary and warnings as notebooks show them."""
        return html_of(self.title, self.summary(), self.warnings)

    def as_json(self) -> dict[str, Any]:
        """Return the report as `negmerge merge --json` prints it."""
        return {
            "output": str(self.output),
            "method": self.method,
            "members": list(self.members),
            "elements": self.elements,
            "merged_elements": self.merged_elements,
            "kept": self.kept,
            "common_elements": self.common_elements,
            "common_kept": self.common_kept,
            "consensus": self.consensus,
            "alpha": self.alpha,
            "seconds": self.seconds,
            "bytes_read": self.bytes_read,
            "peak_rss": peak_rss(),
            "left_behind": list(self.left_behind),
            **(self.effect.as_json() if self.effect is not None else {}),
            **({} if self.projection is None else {"projection": dict(self.projection)}),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, kw_only=True)
class AdapterReport(MergeReport):
    """What a merge to an adapter did: its rank, and its error relative to the change in the Frobenius norm.

    `whole` are tensors that are not factored; `left_out` those that PEFT has no place for, with their share of ‖τ‖².
    """

    rank: int
    error: float
    whole: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    left_out_share: float = 0.0

    def _of_the_output(self) -> list[tuple[str, str]]:
        lost = 100 * self.error
        found = [("adapter", f"rank {self.rank}, which leaves out {lost:.2f} % of the change (Frobenius norm)")]
        if self.whole:
            found.append(("whole", shortened(self.whole)))
        if self.left_out:
            found.append(("left out", f"{100 * self.left_out_share:.2f} % of ‖τ‖²: {shortened(self.left_out)}"))
        return found

    def as_json(self) -> dict[str, Any]:
        """Return the report as `negmerge merge --json` prints it."""
        return {
            **super().as_json(),
            "adapter_rank": self.rank,
            "adapter_error": self.error,
            "adapter_whole": list(self.whole),
            "adapter_left_out": list(self.left_out),
            "adapter_left_out_share": self.left_out_share,
        }


@dataclass(frozen=True)
class VectorReport:
    """What a merge to a vector kept, in all and of each tensor."""

    tensors: tuple[TensorCount, ...]

    @property
    def kept(self) -> int:
        """Elements kept."""
        return sum(tensor.kept for tensor in self.tensors)

    @property
    def merged_elements(self) -> int:
        """Elements of all merged tensors."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def consensus(self) -> float:
        """The share of the merged elements that were kept."""
        return self.kept / self.merged_elements


def merge_report(
    plan: Plan,
    merged: Merged,
    output: Path,
    started: float,
    total: int,
    beside: Beside | None = None,
    warnings: Sequence[str] = (),
    dtypes: Sequence[DType] = (),
) -> MergeReport:
    """Return the report of a merge that began at `started` of time.perf_counter() and read `total` bytes.

    `warnings` are those of the writing, beside those of the pools, of the effect on OUT, whose merged tensors have
    `dtypes`, and of what lies beside the weights.
    """
    counts = [count for term in merged.counts for count in term]
    partial = {name for term in plan.terms for name in term.pool.partial}
    common = [count for count in counts if count.name not in partial]
    return MergeReport(
        output=output,
        method=" + ".join(term.merger.name for term in plan.terms),
        members=tuple(str(member.path) for term in plan.terms for member in term.pool.members),
        elements=sum(elements(plan.base.shape(name)) for name in plan.base.names if name not in plan.tied),
        merged_elements=sum(plan.sizes.values()),
        kept=sum(count.kept for count in counts),
        common_elements=sum(count.elements for count in common),
        common_kept=sum(count.kept for count in common),
        alpha=plan.terms[0].alpha,
        seconds=time.perf_counter() - started,
        bytes_read=total,
        tensors=tuple(counts),
        effect=merged.effect,
        warnings=(
            *dict.fromkeys(line for term in plan.terms for line in term.pool.warnings),  # terms share their base
            *_odd(plan, merged, dtypes),
            *(beside.warnings if beside is not None else ()),
            *warnings,
        ),
        left_behind=beside.left_behind if beside is not None else (),
        terms=tuple(
            TermReport(
                term.merger.name,
                term.add,
                term.alpha,
                len(term.pool.members),
                sum(count.elements for count in found),
                sum(count.kept for count in found),
                None if term.change is None else term.change.report.as_json(),
            )
            for term, found in zip(plan.terms, merged.counts, strict=True)
        ),
    )


def _projected(done: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a projection did to retain and forget outputs, in the mean over layers."""
    retain = done["rows"]["retain"]
    found = [("projected", f"λ = {done['strength']:g}, on {retain['rows']:,} rows: {retain['about']}")]
    for part in ("forget", "retain"):
        kept = [one[f"{part}_after"] / one[f"{part}_before"] for one in done["layers"] if one[f"{part}_before"]]
        if kept and min(kept) > 0:
            mean = 100 * geometric_mean(kept)
            found.append(("", f"what layers do to {part} inputs: {mean:.1f} % of before (geometric mean)"))
    missing = done.get("missing")
    if done["without"]:
        why = "the moments have no layer of these names" if missing else "their inputs cannot be seen"
        found.append(("left out", f"{shortened(done['without'])}: {why}"))
    if missing:
        found.append(("not found", f"{shortened(missing)}: layers of the moments that BASE lacks"))
    return found


def _odd(plan: Plan, merged: Merged, dtypes: Sequence[DType]) -> list[str]:
    """Return the warnings of each term, by its number where there are several, and of the effect on OUT."""
    found = []
    for i, (term, counts, agreement) in enumerate(zip(plan.terms, merged.counts, merged.agreements, strict=True)):
        label = f"term {i + 1}: " if len(plan.terms) > 1 else ""
        found += [label + line for line in term_warnings(term, counts, agreement)]
    return found + effect_warnings(plan.terms, merged.counts, merged.effect, dtypes)


def byte_counter(on_event: OnEvent | None, total: int) -> OnBytes | None:
    """Return a callback that adds up the bytes read by all threads and tells of the sum; None where nobody listens."""
    if on_event is None:
        return None
    lock, done = threading.Lock(), 0

    def count_bytes(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            on_event({"event": "merged", "bytes": done, "of": total})

    return count_bytes
