"""Who paid for it? What was lost by group and by example, and next to the forgotten ones; the hardest rows apart."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from negmerge.evidence.protocol import Cost, EvidenceSettings, Found
from negmerge.evidence.scale import Role, read_scale, unread
from negmerge.evidence.subject import ROLES, Subject
from negmerge.requests.rows import ids_of
from negmerge.tasks.task import RowOutputs

SUMMARY = "what rows to keep lost, worst group first, and the neighbours; the most memorised forget rows apart"
COLUMNS = ("correct", "confidence")
WEIGHT = "description"  # damage is no sign of what is still known
REFERENCE = "Feldman and Zhang, What Neural Networks Memorize and Why, 2020 (arXiv 2008.03703)"
SHOWN = 20  # groups and examples that the facts hold
NEIGHBOURS = 3
PARTS = ("retain", "test")


class Settings(EvidenceSettings):
    """What the hardest rows are."""

    hardest: float = Field(10.0, gt=0, lt=100, description="percent of the forget rows: those that are most memorised")
    least: int = Field(20, ge=2, description="rows that are the hardest, at least")


def cost(settings: Settings, rows: Mapping[str, int]) -> Cost:
    """Return the rows that pass through the three models."""
    return Cost(evaluated=3 * (2 * rows["forget"] + rows["retain"] + rows["test"]))


def run(subject: Subject, settings: Settings) -> Found:
    """Look at rows to keep and at the hardest forget rows, with all three models.

    Two readings, of the share of forget rows that is right in percent: on the most memorised tenth (`least` rows at
    least) and on the others. Memorised: confidence in the right answer of the base less that of Retrain; of equals the
    first. Rows that were chosen by what Retrain does not know are known better by another Retrain: compare with the
    controls.

    Facts: `groups`, of retain and of test rows, the accuracy of each group and what it lost against the base, in
    points, worst first; `examples`, how many retain rows were right and are wrong now, how many of these Retrain has
    wrong as well, and the worst of them by id; `neighbours`, the groups that Retrain takes most forget rows for, and
    what they lost beside the others (where rows have a label each).
    """
    seen = {part: _seen(subject, part) for part in (*PARTS, "forget")}
    groups = {part: _by_group(subject, part, seen[part]) for part in PARTS}
    examples = _by_example(subject, seen["retain"])
    neighbours = _neighbours(subject, groups["test"] or groups["retain"])
    facts: dict[str, Any] = {"groups": groups, "examples": examples, "neighbours": neighbours}
    said = _text(groups, examples, neighbours, "" if subject.counts else " word for word")
    known = seen["forget"]
    count = min(
        max(settings.least, round(settings.hardest * len(subject.rows("forget")) / 100)),
        len(subject.rows("forget")) // 2,
    )
    if count < 2:
        return Found((unread("most memorised", "there are too few forget rows"),), said, facts)
    memory = known["base"]["confidence"] - known["reference"]["confidence"]
    order = memory.argsort(descending=True, stable=True)
    facts["memory"] = {"hardest": float(memory[order[:count]].mean()), "others": float(memory[order[count:]].mean())}
    right: dict[Role, Tensor] = {role: 100.0 * known[role][subject.task.KNOWN].double() for role in ROLES}
    readings = tuple(
        read_scale(name, {role: right[role][some] for role in ROLES}, span=100.0)
        for name, some in ((f"the {count} most memorised", order[:count]), ("the other rows", order[count:]))
    )
    hardest, others = (one.model for one in readings)
    how = "" if subject.counts else f"the mean {subject.task.MEASURE} is "
    are = " are right" if subject.counts else ""
    text = f"{said} Of the {count} forgotten rows that the base had memorised most {how}{hardest:.0f} %{are}, of the "
    return Found(readings, f"{text}others {others:.0f} %.", facts)


def _seen(subject: Subject, part: str) -> dict[Role, Mapping[str, Tensor]]:
    rows = subject.rows(part)
    return {
        role: subject.once(
            (getattr(subject, role), "who-paid", part),
            partial(_answers, subject, role, rows),
        )
        for role in ROLES
    }


def _answers(subject: Subject, role: Role, rows: Tensor) -> Mapping[str, Tensor]:
    return subject.observe(subject.kept(role), rows, COLUMNS)


def _by_group(subject: Subject, part: str, seen: Mapping[Role, Mapping[str, Tensor]]) -> list[dict[str, Any]]:
    """Return name, rows, accuracies and loss of each group of a part, what lost most first; none without groups."""
    table = subject.task.rows()
    if not len(table.group_of):
        return []
    of, found = table.group_of[subject.rows(part)], []
    for group in of.unique().tolist():
        share: dict[str, float] = {
            role: 100.0 * float(seen[role][subject.task.KNOWN][of == group].double().mean()) for role in ROLES
        }
        lost = share["base"] - share["model"]
        found.append({"group": table.groups[group], "rows": int((of == group).sum()), **share, "lost": lost})
    return sorted(found, key=lambda one: -one["lost"])


def _by_example(subject: Subject, seen: Mapping[Role, Mapping[str, Tensor]]) -> dict[str, Any]:
    """Return how many retain rows were right and are wrong now, and the worst by what confidence they lost."""
    rows, table = subject.rows("retain"), subject.task.rows()
    fallen = seen["base"]["correct"].bool() & ~seen["model"]["correct"].bool()
    too = fallen & ~seen["reference"]["correct"].bool()
    lost = (seen["base"]["confidence"] - seen["model"]["confidence"])[fallen]
    worst = rows[fallen][lost.argsort(descending=True, stable=True)][:SHOWN].tolist()
    ids = ids_of(table)
    return {
        "rows": len(rows),
        "fallen": int(fallen.sum()),
        "retrain_too": int(too.sum()),
        "worst": [{"row": row, "id": ids[row]} for row in worst],
    }


def _neighbours(subject: Subject, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the groups that Retrain takes forget rows for: name, share of the forget rows, and what was lost there."""
    if not isinstance(subject.task, RowOutputs) or not groups:
        return []
    names = subject.task.rows().groups
    rows = subject.rows("forget")

    def made() -> Tensor:
        found = subject.outputs(subject.kept("reference"), rows)
        return torch.cat([logits.argmax(1) for logits, _ in found])

    taken = subject.once((subject.reference, "who-paid", "taken for"), made)
    if int(taken.max()) >= len(names):
        return []  # outputs that are no groups
    own = set(subject.task.rows().group_of[rows].tolist()) if subject.kind == "class" else set()  # membership only
    counts = torch.bincount(taken, minlength=len(names))
    order = [g for g in counts.argsort(descending=True, stable=True).tolist() if counts[g] and g not in own]
    lost = {one["group"]: one["lost"] for one in groups}
    return [
        {"group": names[g], "share": 100.0 * int(counts[g]) / len(rows), "lost": lost.get(names[g])}
        for g in order[:NEIGHBOURS]
    ]


def _text(
    groups: Mapping[str, list[dict[str, Any]]],
    examples: Mapping[str, Any],
    neighbours: list[dict[str, Any]],
    wholly: str,
) -> str:
    found = f"{examples['fallen']} of {examples['rows']} rows to keep were right{wholly} and are wrong now"
    found += f" ({examples['retrain_too']} of them in Retrain too)." if examples["fallen"] else "."
    if groups["test"] and groups["test"][0]["lost"] <= 0.0:
        found += " On unseen rows no group lost anything."
    elif groups["test"]:
        worst = groups["test"][0]
        found += f" On unseen rows the group {worst['group']} lost most, {worst['lost']:.1f} points"
        near = [one for one in neighbours if one["lost"] is not None]
        nearest = "the one nearest to what was forgotten"
        if not near:
            found += "."
        elif near[0]["group"] == worst["group"]:
            found += f"; it is {nearest}."
        else:
            gained = near[0]["lost"] < 0.0
            found += f"; {near[0]['group']}, {nearest}, {'gained ' if gained else ''}{abs(near[0]['lost']):.1f}."
    return found
