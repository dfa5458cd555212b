"""Failure signatures: what a result looks like when something in it is wrong."""

from collections.abc import Mapping, Sequence

NEAR_CHANCE = 1.5  # consensus below this multiple of the chance level says that signs hardly agree
ALIKE = 0.95  # members whose task vectors have this mean cosine are one member, repeated
HARM = 5.0  # percentage points of forget accuracy below the base: a member that was trained on these rows diverged
WELL_KNOWN = 0.1  # mean loss below which the base knows the forget rows so well that little is left to learn
SENSITIVITY = 0.5  # α may move by this share of itself when one member is left out
SELECTIVITY = 2.0  # forget accuracy must fall at least this much faster than retain accuracy


def _warning(name: str, method: str, text: str) -> dict[str, str]:
    return {"name": name, "method": method, "text": text}


def pool_warnings(
    consensus: float, chance: float, cosine: Sequence[Sequence[float]], names: Sequence[str]
) -> list[dict[str, str]]:
    """Return `unstable-signs` where consensus is near the chance level or a member points away from all others.

    Near means below 1.5 × chance. A member is foreign where its mean cosine to the others is not above 0.
    """
    found = []
    if len(names) > 1 and consensus < NEAR_CHANCE * chance:
        found.append(
            _warning(
                "unstable-signs",
                "pool",
                f"{100 * consensus:.1f} % of the elements agree where independent signs would give "
                f"{100 * chance:.1f} %: members diverged, or they have too little in common",
            )
        )
    for i, name in enumerate(names):
        others = [value for j, value in enumerate(cosine[i]) if j != i]
        if others and sum(others) / len(others) <= 0.0:
            found.append(
                _warning("unstable-signs", "pool", f"member {name} points away from the others (mean cosine ≤ 0)")
            )
    return found


def health_warnings(cosine: float | None, health: Mapping[str, Mapping[str, float]]) -> list[dict[str, str]]:
    """Return what is wrong with the members of a pool; `health` holds loss and forget accuracy of base and members.

    `weak-forgetting`: the mean pairwise cosine is above 0.95, so that consensus filters nothing; or a member's loss on
    the forget rows is not below the base's, where that is above 0.1: it learned nothing that could be negated.
    `unstable-signs`: a member's forget accuracy is more than 5 percentage points below the base's: it diverged.
    """
    found = []
    if cosine is not None and cosine > ALIKE:
        text = f"the members' task vectors have a mean cosine of {cosine:.2f}: they are too alike to filter one another"
        found.append(_warning("weak-forgetting", "pool", f"{text}; vary learning rate and epochs more"))
    base = health["base"]
    for name, one in health.items():
        if "forget" in one and one["forget"] < base["forget"] - HARM:
            text = f"member {name} recognises {one['forget']:.1f} % of the forget rows, the base {base['forget']:.1f} %"
            found.append(_warning("unstable-signs", "pool", f"{text}: its training diverged"))
        elif name != "base" and "loss" in one and base["loss"] > WELL_KNOWN and one["loss"] >= base["loss"]:
            text = f"member {name} has a loss of {one['loss']:.3g} on the forget rows, the base {base['loss']:.3g}"
            found.append(_warning("weak-forgetting", "pool", f"{text}: it has learned nothing; raise lr or epochs"))
    return found


def leave_one_out_warnings(alpha: float, without: Mapping[str, float]) -> list[dict[str, str]]:
    """Return `unstable-signs` for every member without which the chosen α changes by more than half."""
    return [
        _warning(
            "unstable-signs",
            "pool",
            f"without member {name} the chosen α is {other:g} instead of {alpha:g}: the result hangs on one member",
        )
        for name, other in without.items()
        if abs(other - alpha) > SENSITIVITY * alpha
    ]


def curve_warnings(
    method: str, curve: Sequence[Mapping[str, float]], alpha: float, open_end: bool
) -> list[dict[str, str]]:
    """Return the warnings of one method's α curve.

    `weak-forgetting`: the floor still holds at the largest α tried and the forget set is still recognised, or no α
    above 0 was better than the base. `retain-damage`: at the first α above the chosen one (or the chosen one, if it
    is the last) forget accuracy has lost less than twice what retain accuracy has lost, both as shares of the base's.
    """
    base = curve[0]
    found = []
    if open_end:
        found.append(
            _warning(
                "weak-forgetting",
                method,
                f"the best α may lie beyond {curve[-1]['alpha']:g}, the largest tried: "
                f"nothing broke there, and forget accuracy is still {curve[-1]['forget']:.1f} %",
            )
        )
    elif alpha == 0.0:
        found.append(_warning("weak-forgetting", method, "no α above 0 was better than the base"))
    beyond = [point for point in curve if point["alpha"] > alpha] or [curve[-1]]
    point = beyond[0]
    lost_forget = 1.0 - point["forget"] / base["forget"] if base["forget"] else 0.0
    lost_retain = 1.0 - point["retain"] / base["retain"] if base["retain"] else 0.0
    if lost_retain > 0.02 and lost_forget < SELECTIVITY * lost_retain:
        found.append(
            _warning(
                "retain-damage",
                method,
                f"at α = {point['alpha']:g} retain accuracy has lost {100 * lost_retain:.0f} % of its value and forget "
                f"accuracy {100 * lost_forget:.0f} %: they fall together",
            )
        )
    return found
