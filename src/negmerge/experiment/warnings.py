"""Failure signatures: what a result looks like when something in it is wrong."""

from collections.abc import Mapping, Sequence

NEAR_CHANCE = 1.5  # consensus below this multiple of the chance level says that signs hardly agree
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
                f"the floor still holds at α = {curve[-1]['alpha']:g}, the largest tried, "
                f"and forget accuracy is still {curve[-1]['forget']:.1f} %",
            )
        )
    elif alpha == 0.0:
        found.append(_warning("weak-forgetting", method, "no α above 0 lowered forget accuracy while the floor held"))
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
