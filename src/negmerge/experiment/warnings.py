"""Failure signatures: what a result looks like when something in it is wrong, and the one thing to do about it.

A warning is `{"name", "method", "text", "advice"}`. Advice of one run never contradicts itself: what speaks for a whole
pool gives way to what names the members that are the cause.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

NEAR_CHANCE = 1.5  # consensus below this multiple of the chance level says that signs hardly agree
ALIKE = 0.95  # members whose task vectors have this mean cosine are one member, repeated
HARM = 5.0  # percentage points of forget accuracy below the base: a member that was trained on these rows diverged
SENSITIVITY = 0.5  # α may move by this share of itself when one member is left out
MOVED = 0.02  # standard deviations by which running means may differ from the base's
COST = 0.01  # share of the base's retain accuracy that a row may lose before its statistics are blamed
SELECTIVITY = 2.0  # forget accuracy must fall at least this much faster than retain accuracy
NAMED = 6  # members that a line names; of more it says how many
KS_LEVEL = 1.36  # Kolmogorov-Smirnov: D beyond this · √(1/n + 1/m) is no chance, at 5 %

Health = Mapping[str, Mapping[str, float]]
Warnings = list[dict[str, str]]


def _warning(name: str, method: str, text: str, advice: str) -> dict[str, str]:
    return {"name": name, "method": method, "text": text, "advice": advice}


def diverged_members(health: Health) -> list[str]:
    """Return the members whose forget accuracy is more than 5 percentage points below the base's."""
    base = health["base"].get("forget")
    if base is None:
        return []
    return [name for name, one in health.items() if "forget" in one and one["forget"] < base - HARM]


def unlearned_members(health: Health) -> list[str]:
    """Return the members whose loss on the forget rows is not below the base's."""
    base = health["base"].get("loss")
    return [name for name, one in health.items() if name != "base" and base is not None and one["loss"] >= base]


def data_warnings(notes: Sequence[str]) -> list[dict[str, str]]:
    """Return `data` for everything that should be known of how rows were read and found."""
    return [_warning("data", "data", note, "look at the rows with `negmerge rows CONFIG`") for note in notes]


def diverged_warnings(diverged: Mapping[str, str]) -> list[dict[str, str]]:
    """Return `diverged-member` for every member whose training diverged, by its name and what happened."""
    return [
        _warning("diverged-member", "pool", f"member {name} is left out: {text}", "take its settings out of the grid")
        for name, text in diverged.items()
    ]


def pool_warnings(
    consensus: float, chance: float, cosine: Sequence[Sequence[float]], names: Sequence[str], health: Health
) -> Warnings:
    """Return what is wrong with a pool; `health` holds loss and forget accuracy of base and members.

    `unstable-signs`: members diverged (see `diverged_members`); a member points away from the others (its mean cosine
    to them is not above 0); or consensus is below 1.5 × the chance level.
    `weak-forgetting`: members have learned nothing that could be negated (see `unlearned_members`); or the mean
    pairwise cosine is above 0.95, so that consensus filters nothing.
    """
    found, count = [], len(names)
    base = health["base"]
    diverged = diverged_members(health)
    if diverged:
        worst = min(health[name]["forget"] for name in diverged)
        found.append(
            _warning(
                "unstable-signs",
                "pool",
                f"{_members(diverged)} diverged in training: forget accuracy down to {worst:.1f} %, "
                f"the base's is {base['forget']:.1f} %",
                "lower their learning rate, or leave them out of the grid",
            )
        )
    unlearned = [name for name in unlearned_members(health) if name not in diverged]
    if unlearned:
        most = max(health[name]["loss"] for name in unlearned)
        found.append(
            _warning(
                "weak-forgetting",
                "pool",
                f"{_members(unlearned)} ended with a loss on the forget rows that is not below the base's (up to "
                f"{most:.3g}, the base {base['loss']:.3g}): {'it knows' if len(unlearned) == 1 else 'they know'} "
                "these rows no better than the base does",
                "change learning rate, epochs or label smoothing until the loss falls, or leave them out of the grid",
            )
        )
    means = [sum(v for j, v in enumerate(row) if j != i) / (count - 1) for i, row in enumerate(cosine) if count > 1]
    apart = [name for name, mean in zip(names, means, strict=False) if mean <= 0.0 and name not in diverged]
    if apart:
        found.append(
            _warning(
                "unstable-signs",
                "pool",
                f"{_members(apart)} point{'s' if len(apart) == 1 else ''} away from the others (mean cosine ≤ 0)",
                "leave them out of the grid",
            )
        )
    if count > 1 and consensus < NEAR_CHANCE * chance:
        text = f"{100 * consensus:.1f} % of the elements agree where independent signs would give {100 * chance:.1f} %"
        blamed = diverged or unlearned or apart
        advice = "see to the members that are named above" if blamed else "use fewer, or smaller, learning rates"
        found.append(_warning("unstable-signs", "pool", text, advice))
    elif count > 1 and sum(means) / count > ALIKE:
        text = (
            f"the members' task vectors have a mean cosine of {sum(means) / count:.2f}: too alike to filter one another"
        )
        found.append(_warning("weak-forgetting", "pool", text, "vary learning rate and epochs more"))
    return found


def leave_one_out_warnings(alpha: float, without: Mapping[str, float]) -> Warnings:
    """Return `unstable-signs` where the chosen α changes by more than half without some member."""
    moved = {name: other for name, other in without.items() if abs(other - alpha) > SENSITIVITY * alpha}
    if not moved:
        return []
    cases = ", ".join(f"{other:g} without {name}" for name, other in list(moved.items())[:NAMED])
    more = "" if len(moved) <= NAMED else f", and {len(moved) - NAMED} more"
    text = f"the chosen α hangs on single members: {alpha:g} with all, {cases}{more}"
    return [_warning("unstable-signs", "pool", text, "add members with settings between those of the grid")]


def curve_warnings(
    method: str,
    curve: Sequence[Mapping[str, float]],
    alpha: float,
    open_end: bool,
    *,
    floor: float | None = None,
    limit: float | None = None,
) -> Warnings:
    """Return the warnings of one method's α curve; `limit` is the largest α that the config allows, if it says so.

    `weak-forgetting`: the floor still holds at the largest α tried and the forget set is still recognised, or no α
    above 0 was better than the base. `retain-damage`: at the first α above the chosen one (or the chosen one, if it
    is the last) forget accuracy has lost less than twice what retain accuracy has lost, both as shares of the base's;
    said of a chosen α above 0 only.
    """
    base = curve[0]
    if open_end:
        text = f"the best α may lie beyond {curve[-1]['alpha']:g}, the largest tried: nothing broke there, and forget "
        text += f"accuracy is still {curve[-1]['forget']:.1f} %"
        limited = limit is not None and limit <= curve[-1]["alpha"] + 1e-9
        advice = "raise selection.max_alpha" if limited else "train the members longer, or at a higher rate"
        return [_warning("weak-forgetting", method, text, advice)]
    if alpha == 0.0:
        broke = floor is not None and len(curve) > 1 and curve[1]["retain"] < floor
        text = "no α above 0 was better than the base, so the model is unchanged"
        if broke:
            text += f": at α = {curve[1]['alpha']:g}, the smallest tried, the retain floor was broken already"
        advice = "try smaller α (selection.step)" if broke else "train the members longer, or at a higher rate"
        return [_warning("weak-forgetting", method, text, advice)]
    point = ([point for point in curve if point["alpha"] > alpha] or [curve[-1]])[0]
    lost_forget = 1.0 - point["forget"] / base["forget"] if base["forget"] else 0.0
    lost_retain = 1.0 - point["retain"] / base["retain"] if base["retain"] else 0.0
    if lost_retain <= 0.02 or lost_forget >= SELECTIVITY * lost_retain:
        return []
    text = f"at α = {point['alpha']:g} retain accuracy has lost {100 * lost_retain:.0f} % of its value and forget "
    text += f"accuracy {100 * lost_forget:.0f} %: they fall together"
    return [_warning("retain-damage", method, text, "try another policy for running statistics (buffers: negate)")]


def unseen_warnings(distance: float | None, rows: int, unseen: int, *, trained_here: bool) -> Warnings:
    """Return `nothing-to-match` where match-holdout has no aim: the base treats forget and validation rows alike.

    `distance` is its score `holdout` at α = 0, of so many forget `rows` and `unseen` validation rows: within chance
    where it is not above 136 · √(1/rows + 1/unseen), the 5 % level of the Kolmogorov-Smirnov distance in percent. A
    base that was not trained here may have seen the validation rows; of one that was, that is not so.
    """
    if distance is None or not rows or not unseen or distance > 100.0 * KS_LEVEL * math.sqrt(1 / rows + 1 / unseen):
        return []
    text = f"the base treats the forget rows like the validation rows (distance {distance:.1f}, within chance)"
    if trained_here:
        text += ": it knows them no better than rows that it never saw"
        return [_warning("nothing-to-match", "base", text, "give a reference, or more rows to forget")]
    text += ": it has seen the validation rows as well, or knows the forget rows no better than unseen ones"
    return [_warning("nothing-to-match", "base", text, "give validation rows that this base was not trained on")]


def _members(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
    return f"{'member' if len(names) == 1 else 'members'} {shown}"


def statistics_warnings(
    rows: Mapping[str, Mapping[str, Any]], base: Mapping[str, Any], moved: Mapping[str, float]
) -> Warnings:
    """Return `moved-statistics` where merges lost retain accuracy while their members' statistics did not count.

    That is said of a pool one of whose members moved its running means by more than 0.02 standard deviations, where a
    row that keeps the base's lost more than 1 % of the base's retain accuracy.
    """
    most, whole = max(moved.values(), default=0.0), base.get("retain")
    if most <= MOVED or not whole:
        return []
    kept = {label: row["retain"] for label, row in rows.items() if row.get("buffers") == "keep" and row.get("retain")}
    lost = {label: 1.0 - retain / whole for label, retain in kept.items()}
    if max(lost.values(), default=0.0) <= COST:
        return []
    worst = max(lost, key=lost.__getitem__)
    text = (
        f"the members were trained with running statistics of the forget rows ({most:.2f} standard deviations from the "
        f"base's), merges keep the base's, and retain accuracy lost up to {100 * lost[worst]:.0f} % of its value "
        f"({worst})"
    )
    return [_warning("moved-statistics", "pool", text, "project the vectors (projection: {rows: retain})")]
