"""The verdict, by rules: from what was read on the request's own rows and by every test, to one word."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from negmerge.evidence.protocol import Found, Weight

Own = Literal["held", "partly", "not", "too far", "nothing"]
Word = Literal["forgotten", "suppressed", "partly", "not", "too far", "can't tell", "not refuted"]

HEADLINES: dict[Word, str] = {
    "forgotten": "Forgotten: the model does on these {rows} as Retrain does, and no test brings them back.",
    "suppressed": "Suppressed, not removed: the model does not show these {rows} any more, but it still holds them.",
    "partly": "Partly forgotten: the model still does better on these very {rows} than Retrain would.",
    "not": "Not forgotten: on these very {rows} the model does about as well as before.",
    "too far": "Too far: the model does worse on these {rows} than one that never saw them, which is as telling.",
    "can't tell": "Can't tell: no test that was made can tell a model that forgot from one that did not.",
    "not refuted": "Not refuted: nothing contradicts the claim, but without a Retrain model nothing proves it.",
}

WITHOUT: dict[Word, str] = {  # where there is no Retrain, nor unseen rows in its place
    "partly": "Partly forgotten: the model still knows some of these very {rows}.",
    "too far": "Too far: the model does worse on these {rows} than one that forgot them would.",
}
AGAINST_UNSEEN: dict[Word, str] = {  # where unseen rows stand in the place of Retrain
    "partly": "Partly forgotten: the model still does better on these very {rows} than on unseen ones.",
    "too far": "Too far: the model does worse on these {rows} than on unseen ones, which is as telling.",
}
UNSEEN = "Forgotten, as far as unseen {rows} tell: the model does on these {rows} as on others that it never saw."
OWN_ROWS = "the request's own rows"


@dataclass(frozen=True)
class Verdict:
    """The word, one sentence on it, and the reasons."""

    word: Word
    text: str
    because: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the verdict as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Answer:
    """What a test found, under its name, and how it counts."""

    name: str
    weight: Weight
    found: Found


def decide(
    own: Own, answers: Sequence[Answer], *, reference: bool = True, both_ends: bool = False, rows: str = "rows"
) -> Verdict:
    """Return the verdict; `rows` is what its sentence calls them.

    In this order: *not* and *partly* where the request's own rows are not within Retrain's interval; *can't tell* where
    the base does no better on them than Retrain; *suppressed* where an informative probe or refutation does not reach
    0.1; *too far* where own rows or a reading lie surely beyond Retrain; *can't tell* where no probe is informative;
    else *forgotten*. Without a reference the last two are *not refuted*, unless `both_ends`: unseen rows of the same
    kind stand in its place, for own rows and for an informative probe.
    """

    said = HEADLINES if reference else {**HEADLINES, **(AGAINST_UNSEEN if both_ends else WITHOUT)}

    def verdict(word: Word, because: Sequence[str]) -> Verdict:
        return Verdict(word, said[word].format(rows=rows), tuple(because))

    if own in ("not", "partly"):
        return verdict(own, [OWN_ROWS])
    if own == "nothing":
        why = "the base knew them no better than a model that never saw them"
        if not reference:
            why = "the base knew them no better than unseen ones" if both_ends else "the base hardly knew them"
        return verdict("can't tell", [why])
    told = [one for one in answers if one.weight != "description" and one.found.counted.informative]
    failed = [one.name for one in told if not one.found.counted.passes]
    if failed:
        return verdict("suppressed", failed)
    beyond = [one.name for one in answers if any(reading.beyond for reading in one.found.readings)]
    if own == "too far" or beyond:
        return verdict("too far", [*([OWN_ROWS] if own == "too far" else []), *beyond])
    probes = [one.name for one in told if one.weight == "probe"]
    if not reference:
        if both_ends and probes:
            return Verdict("forgotten", UNSEEN.format(rows=rows), tuple(probes))
        return verdict("not refuted", ["there is no Retrain model to read the tests against"])
    if not probes:
        return verdict("can't tell", ["no test that looks for what was forgotten tells anything here"])
    return verdict("forgotten", probes)


def answers_json(answers: Sequence[Answer], seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return what every test found as plain JSON values; `counted` is the reading that counts."""
    return [
        {
            "name": one.name,
            "weight": one.weight,
            "text": one.found.text,
            "counted": one.found.counted.as_json(),
            "readings": [reading.as_json() for reading in one.found.readings],
            "facts": dict(one.found.facts),
            "seconds": seconds[one.name],
        }
        for one in answers
    ]
