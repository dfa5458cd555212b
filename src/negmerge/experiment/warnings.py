"""Failure signatures: what a result looks like when something in it is wrong, and the one thing to do about it.

A warning is `{"name", "method", "text", "advice"}`. Advice of one run never contradicts itself: what speaks for a whole
pool gives way to what names the members that are the cause.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from negmerge.experiment.choices import SelectionConfig
from negmerge.merging.health import UNLIKE
from negmerge.selection import OBJECTIVES, chosen_point

NEAR_CHANCE = 1.5  # consensus below this multiple of the chance level says that signs hardly agree
HARM = 5.0  # percentage points of forget accuracy below the base: a member that was trained on these rows diverged
SENSITIVITY = 0.5  # α may move by this share of itself when one member is left out
MOVED = 0.02  # standard deviations by which running means may differ from the base's
BY_HEART = 99.9  # percent of the forget rows that the base gets right, from which members can hardly know them better
COST = 0.01  # share of the base's retain accuracy that a row may lose before its statistics are blamed
SELECTIVITY = 2.0  # forget accuracy must fall at least this much faster than retain accuracy
LEFT = 0.1  # share of the base's forget accuracy that counts as still recognised
NAMED = 6  # members that a line names; of more it says how many
KS_LEVEL = 1.36  # Kolmogorov-Smirnov: D beyond this · √(1/n + 1/m) is no chance, at 5 %

Health = Mapping[str, Mapping[str, Any]]
Warnings = list[dict[str, str]]


def _warning(name: str, method: str, text: str, advice: str) -> dict[str, str]:
    return {"name": name, "method": method, "text": text, "advice": advice}


def by_weights(one: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a member's loss and accuracy, with the base's running statistics where these serve its weights better."""
    kept: Mapping[str, Any] | None = one.get("kept")
    return one if kept is None or _badness(one) <= _badness(kept) else kept


def _badness(one: Mapping[str, Any]) -> tuple[float, float]:
    return one.get("loss", 0.0), -one.get("forget", 0.0)


def diverged_members(health: Health) -> list[str]:
    """Return the members whose weights give a forget accuracy more than 5 percentage points below the base's."""
    base = health["base"].get("forget")
    if base is None:
        return []
    return [name for name, one in health.items() if "forget" in one and by_weights(one)["forget"] < base - HARM]


def unlearned_members(health: Health) -> list[str]:
    """Return the members whose weights give a loss on the forget rows that is not below the base's."""
    base = health["base"].get("loss")
    others = [name for name in health if name != "base"]
    return [name for name in others if base is not None and by_weights(health[name])["loss"] >= base]


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
    consensus: float,
    chance: float,
    cosine: Sequence[Sequence[float]],
    names: Sequence[str],
    health: Health,
    odd: Sequence[str] = (),
    measure: str = "accuracy",
) -> Warnings:
    """Return what is wrong with a pool; `health` holds loss and forget accuracy (`measure`) of base and members.

    `odd` are the members that `merging.health.odd_members` finds.

    `unstable-signs`: members diverged (see `diverged_members`); a member points away from the others (its mean cosine
    to them is not above 0) or is odd; or consensus is below 1.5 × the
    chance level.
    `weak-forgetting`: members have learned nothing that could be negated (see `unlearned_members`).
    """
    found, count = [], len(names)
    base = health["base"]
    diverged = diverged_members(health)
    if diverged:
        worst = min(by_weights(health[name])["forget"] for name in diverged)
        found.append(
            _warning(
                "unstable-signs",
                "pool",
                f"{_members(diverged)} diverged in training: forget {measure} down to {worst:.1f} %, "
                f"the base's is {base['forget']:.1f} %",
                f"lower {_their(diverged)} learning rate, or leave {_them(diverged)} out of the grid",
            )
        )
    unlearned = [name for name in unlearned_members(health) if name not in diverged]
    if unlearned:
        change = f"change the training until the loss falls, or leave {_them(unlearned)} out of the grid"
        if base.get("forget", 0.0) >= BY_HEART:  # such members were good ones: docs/results/random-rows.md
            change = f"a base that knows all of them leaves little to learn: if no row of the table forgets, {change}"
        most = max(by_weights(health[name])["loss"] for name in unlearned)
        found.append(
            _warning(
                "weak-forgetting",
                "pool",
                f"{_members(unlearned)} ended with a loss on the forget rows that is not below the base's (up to "
                f"{most:.3g}, the base {base['loss']:.3g}): {'it knows' if len(unlearned) == 1 else 'they know'} "
                "these rows no better than the base does",
                change,
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
                f"leave {_them(apart)} out of the grid" if len(apart) < count else FEWER,
            )
        )
    named = {*apart, *diverged}  # asked for membership only
    unlike = [name for name in odd if name not in named]
    if unlike:
        found.append(
            _warning(
                "unstable-signs",
                "pool",
                f"{_members(unlike)} {'has' if len(unlike) == 1 else 'have'} little in common with the others "
                f"(below {100 * UNLIKE:.0f} % of what they have, or hardly trained)",
                f"leave {_them(unlike)} out of the grid",
            )
        )
    at_chance = warn_of_chance(consensus, chance, count)
    if at_chance and (diverged or unlearned or apart or unlike):
        return [*found, {**at_chance[0], "advice": "see to the members that are named above"}]
    found += at_chance
    return found


def warn_of_chance(consensus: float, chance: float, members: int) -> Warnings:
    """Return `unstable-signs` where consensus is below 1.5 × the chance level; said of a pool before α is searched."""
    if members < 2 or consensus >= NEAR_CHANCE * chance:
        return []
    text = f"{100 * consensus:.1f} % of the elements agree where independent signs would give {100 * chance:.1f} %"
    return [_warning("unstable-signs", "pool", text, FEWER)]


def leave_one_out_warnings(alpha: float, without: Mapping[str, float]) -> Warnings:
    """Return `unstable-signs` where the chosen α changes by more than half without some member."""
    moved = {name: other for name, other in without.items() if abs(other - alpha) > SENSITIVITY * alpha}
    if not moved:
        return []
    cases = ", ".join(f"{other:g} without {name}" for name, other in list(moved.items())[:NAMED])
    more = "" if len(moved) <= NAMED else f", and {len(moved) - NAMED} more"
    text = f"the chosen α hangs on single members: {alpha:g} with all, {cases}{more}"
    return [_warning("unstable-signs", "pool", text, "add members with settings between those of the grid")]


FEWER = "use fewer, or smaller, learning rates"
LONGER = "train the members longer, or at a higher rate"


def curve_warnings(
    method: str,
    row: Mapping[str, Any],
    rule: SelectionConfig,
    *,
    blamed: bool = False,
    measure: str = "accuracy",
) -> Warnings:
    """Return the warnings of one row's α curve, chosen by a rule; `blamed`: earlier warnings name the cause.
    `measure` is what the task's scores are: accuracy, probability.

    `weak-forgetting`: the floor still holds at the largest α tried and at the chosen one the forget set, or held-out
    rows of its kind, are still recognised; or no α above 0 was better than the base. `retain-damage`: at the first α
    above the chosen one (or the chosen one, if it is the last) forget accuracy has lost less than twice what retain
    accuracy has lost, both as shares of the base's; said of a chosen α above 0 only.
    """
    curve, alpha, floor = row["curve"], row["alpha"], row["floor"]
    base, end = curve[0], curve[-1]
    longer = "see to the warnings above" if blamed else LONGER
    value = OBJECTIVES[rule.objective].value
    if row["open_end"]:
        text = f"the best α may lie beyond {end['alpha']:g}, the largest tried: nothing broke there, and forget "
        text += f"{measure} is still {end['forget']:.1f} %"
        limit = rule.max_alpha or (None if rule.search == "bracket" else 1.0)
        limited = limit is not None and end["alpha"] > limit - rule.step
        return [_warning("weak-forgetting", method, text, "raise selection.max_alpha" if limited else longer)]
    if alpha == 0.0 and base["forget"] <= rule.gone_at:
        text = "the base recognises none of the rows to forget, so there is nothing to forget"
        text += f" (forget {measure} {base['forget']:.2g} %)" if base["forget"] else ""
        return [_warning("weak-forgetting", method, text, "check that the base was trained on these rows")]
    if alpha == 0.0:
        broke = floor is not None and len(curve) > 1 and curve[1]["retain"] < floor
        text = "no α above 0 was better than the base, so the model is unchanged"
        if broke:
            text += f": at α = {curve[1]['alpha']:g}, the smallest tried, the retain floor was broken already"
        return [_warning("weak-forgetting", method, text, "try smaller α (selection.step)" if broke else longer)]
    holds = floor is not None and end["retain"] >= floor
    if rule.objective == "retain-floor" and holds:
        chosen = chosen_point(row)
        left = value(chosen, rule.gone_at)
        if left > LEFT * value(base):
            own = f"forget {measure} is" if left <= chosen["forget"] else f"{measure} on held-out rows of their kind is"
            text = f"{own} still {left:.1f} % and falls no further up to α = {end['alpha']:g}, where the "
            return [_warning("weak-forgetting", method, text + "floor holds", longer)]
    point = next((point for point in curve if point["alpha"] > alpha), end)
    lost_forget = 1.0 - point["forget"] / base["forget"] if base["forget"] else 0.0
    lost_retain = 1.0 - point["retain"] / base["retain"] if base["retain"] else 0.0
    if lost_retain <= 0.02 or lost_forget >= SELECTIVITY * lost_retain:
        return []
    text = f"at α = {point['alpha']:g} retain {measure} has lost {100 * lost_retain:.0f} % of its value and forget "
    text += f"{measure} {100 * lost_forget:.0f} %: they fall together"
    projected = "try a higher strength of the projection", "project the vectors (projection: {rows: retain})"
    return [_warning("retain-damage", method, text, projected[row.get("projection") is None])]


def row_warnings(
    rows: Mapping[str, Mapping[str, Any]],
    rule: SelectionConfig,
    base: Mapping[str, Any],
    moved: Mapping[str, float],
    *,
    blamed: bool,
    measure: str,
) -> Warnings:
    """Return what curves and statistics say of all rows with a curve; see `curve_warnings`, `statistics_warnings`.

    Statistics are not judged where a row is projected: that is the advice, and the table shows what it is worth.
    A projected row that forgets too little beside a plain one that does not is the projection's doing.
    """
    judged = rule.objective == "retain-floor" and not any(row.get("projection") for row in rows.values())
    found = statistics_warnings(rows, base, moved) if judged else []
    known = bool(found)  # the cause that is known speaks for the damage
    said = {name: curve_warnings(name, row, rule, blamed=blamed, measure=measure) for name, row in rows.items()}
    for name, row in rows.items():
        beside = _plain(row, rows) if row.get("projection") else []
        forgot = not row["open_end"] and any(_has_forgotten(rows[other], rule) for other in beside)
        for one in said[name]:
            if one["name"] == "weak-forgetting" and forgot:
                one["advice"] = "take the plain row or a smaller strength: unprojected, the same vector forgets"
            if not (known and one["name"] == "retain-damage"):
                found.append(one)
    return found


def _has_forgotten(row: Mapping[str, Any], rule: SelectionConfig) -> bool:
    """Return whether what is left at the chosen α counts as no longer recognised."""
    value = OBJECTIVES["retain-floor"].value
    return value(chosen_point(row), rule.gone_at) <= LEFT * value(row["curve"][0])


def _plain(row: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the names of the rows of a row's method and settings that are not projected."""
    same = ("method", "settings", "include", "exclude")
    return [
        name
        for name, other in rows.items()
        if all(other.get(key) == row.get(key) for key in same) and not other.get("projection")
    ]


def unseen_warnings(
    base: Mapping[str, float], rows: int, unseen: int, *, trained_here: bool, reference: bool
) -> Warnings:
    """Return `nothing-to-match` where match-holdout has no aim: the base treats forget and validation rows alike.

    `base` are the scores at α = 0: `forget`, `holdout` and, where it is known, `validation`, of so many forget `rows`
    and `unseen` validation rows. Alike: the Kolmogorov-Smirnov distance of the losses, D = 2 · holdout − |FA − UA| (at
    most 2 · holdout where UA is not known), is not above 136 · √(1/rows + 1/unseen), its 5 % level in percent, and the
    accuracies differ by no more than twice their standard error. A base that was not trained here may have seen the
    validation rows; one that was has not.
    """
    if base.get("holdout") is None or not rows or not unseen:
        return []
    apart = abs(base["forget"] - base["validation"]) if "validation" in base else 0.0
    p = (base["forget"] * rows + base.get("validation", base["forget"]) * unseen) / (100.0 * (rows + unseen))
    share = 1.0 / rows + 1.0 / unseen
    if 2.0 * base["holdout"] - apart > 100.0 * KS_LEVEL * math.sqrt(share):
        return []
    if apart > 200.0 * math.sqrt(p * (1.0 - p) * share):
        return []
    text = f"the base treats the forget rows like the validation rows (distance {base['holdout']:.1f}, within chance)"
    if not trained_here:
        text += ": it has seen the validation rows as well, or knows the forget rows no better than unseen ones"
        return [_warning("nothing-to-match", "base", text, "give validation rows that this base was not trained on")]
    text += ": it knows them no better than rows that it never saw"
    need = "" if reference else "give a reference, and "
    return [_warning("nothing-to-match", "base", text, f"{need}choose selection.objective: match-reference")]


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


def _their(names: Sequence[str]) -> str:
    return "its" if len(names) == 1 else "their"


def _them(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"
