"""The evidence of a run in words: the verdict, and a line for each test."""

import re
from dataclasses import dataclass
from typing import Any

from negmerge.report.inputs import Json
from negmerge.report.numbers import MISSING, listed
from negmerge.report.scores import nouns

OWN = "own-rows"
TITLES = {OWN: "own rows"}
CANNOT = "can't tell here"
NOT_MADE = "Not made"
# What a test asks, in plain words; {what} are the rows. A test that is not here says so by its `question`.
QUESTIONS = {
    OWN: "Does the model still get the very {what} of the request right?",
    "relearning": "Shown only a few of these {what} again, does it remember the others?",
    "offset": "Were the {what} removed, or was one output of the model merely turned down?",
    "quantisation": "Do they come back when the model is stored with rounded numbers?",
    "pruning": "Do they come back when small weights are cut away?",
    "fine-tuning": "Do they come back when the model is trained a little more on other {what}?",
    "klom": "Over models of many seeds: are the answers spread as those of retrained models are?",
    "disagreement": "How often does it answer otherwise than a model that never saw them?",
    "probe": "Is the knowledge still there to be read inside the model?",
    "depth": "How deep inside the model are they gone?",
    "three-sample": "Are the answers nearer to those of a model that never saw them, or to those from before?",
    "who-paid": "Who paid for it?",
    "reversibility": "Does anything that would be handed on restore the model from before?",
}
STATES = {
    "holds": "nothing found",
    "fails": "found again",
    "beyond": "too much gone",
    "silent": CANNOT,
    "described": "for information",
}
# What each verdict means for somebody who has to decide.
MEANINGS = {
    "forgotten": "This is what these tests can show, and no more; section 5 says what they cannot.",
    "suppressed": "Whoever signs should treat the model as one that still holds these {what}.",
    "partly": "The request is not fulfilled.",
    "not": "The request is not fulfilled.",
    "too far": "Whoever compares it with other models can tell which {what} were removed.",
    "can't tell": "The claim is neither supported nor refuted.",
    "not refuted": "The claim is neither supported nor refuted.",
}


@dataclass(frozen=True)
class Line:
    """A test as the page shows it; `low`, `high` and `position` are None where it can't tell."""

    name: str
    title: str
    text: str
    position: float | None
    low: float | None
    high: float | None
    state: str  # holds, fails, beyond, silent, or described: its answer does not count
    why: str
    seconds: float | None
    bar: float = 0.1
    controls: tuple[float, ...] = ()
    question: str = ""
    made: bool = True  # whether any model was read: without Retrain no test is made

    @property
    def answer(self) -> str:
        """What the test says, in two or three words."""
        return STATES[self.state]

    @property
    def place(self) -> str:
        """The position with its interval, or that the test can't tell."""
        if self.position is None:
            return CANNOT
        return f"{_signed(self.position)} ({_signed(self.low)} … {_signed(self.high)})"

    @property
    def others(self) -> str:
        """The positions of further Retrains, '' where there are none or the test can't tell."""
        if not self.controls or self.position is None:
            return ""
        return f"Further Retrains: {listed([_signed(one) for one in self.controls])}."


def lines_of(results: Json) -> list[Line]:
    """Return the tests of a run in the order of the file; none where no evidence was asked for."""
    evidence = results.get("evidence") or {}
    return [_line(test, evidence.get("own") or "", nouns(results)) for test in evidence.get("tests") or []]


def made_and_not(lines: list[Line]) -> tuple[list[Line], list[str]]:
    """Return the tests that were made, and a sentence for each reason why others were not.

    >>> def skipped(name):
    ...     return Line(name, name, "Not made: it rained.", None, None, None, "silent", "it rained", None, made=False)
    >>> made_and_not([skipped("depth"), skipped("offset")])
    ([], ['Not made, as it rained: depth and offset.'])
    """
    made = [line for line in lines if line.made or not line.text.startswith(NOT_MADE)]
    reasons: dict[str, list[str]] = {}
    for line in lines:
        if line not in made:
            reasons.setdefault(line.why, []).append(line.title)
    return made, [f"{NOT_MADE}{f', as {why}' if why else ''}: {listed(names)}." for why, names in reasons.items()]


def plain(text: str, what: str = "rows") -> str:
    """Return a line on a test in the words of the page: the model from before, a retrained model, `what` for rows.

    >>> plain("Right in 3 % of the forget rows (Retrain's 2 %, the base 9 %).", "images")
    "Right in 3 % of the forgotten images (the retrained model's 2 %, the model from before 9 %)."
    """
    for word, instead in (("forget rows", f"forgotten {what}"), ("retain rows", f"{what} to keep")):
        text = text.replace(word, instead)
    text = re.sub(r"\brows\b", what, text)
    for word, instead in (("The base", "The model from before"), ("the base", "the model from before")):
        text = text.replace(word, instead)
    text = re.sub(r"\bRetrain models?\b", lambda found: found[0].replace("Retrain", "retrained"), text)
    text = re.sub(r"(^|[.!?] )Retrain\b", r"\1The retrained model", text)
    return re.sub(r"\bRetrain\b", "the retrained model", text).replace("further the retrained", "further retrained")


def deciding(results: Json) -> Line | None:
    """Return the test on which the verdict rests: of those that it names the one furthest above its bar.

    Where it names none that tells anything, own rows, or else those that count; None where none of these tells
    anything, or no evidence was asked for.
    """
    named = (results.get("verdict") or {}).get("because") or []
    told = [line for line in lines_of(results) if line.low is not None]
    found = [line for line in told if line.name in named]
    found = found or [line for line in told if line.name == OWN] or [line for line in told if line.state != "described"]
    return max(found, key=lambda line: (line.low or 0.0) - line.bar, default=None)


def meaning(results: Json) -> str:
    """Return what the verdict means, for somebody who has to decide; '' where none stands in the results."""
    text = MEANINGS.get((results.get("verdict") or {}).get("word") or "", "")
    return text.format(what=nouns(results))


def evidence_lines(results: Json) -> list[str]:
    """Return verdict and tests as lines for a terminal."""
    verdict = results["verdict"]
    lines, skipped = made_and_not(lines_of(results))
    width = max((len(line.title) for line in lines), default=0)
    found = [f"Verdict on {results['evidence']['method']}: {verdict['text']} Because of: {listed(verdict['because'])}."]
    if lines:
        found.append(f"Position of each test, 0 {_zero(results)} … 1 the base, with its 95 % interval:")
    for line in lines:
        after = f" [{line.why}]" if line.state == "silent" and line.why else ""
        found.append(f"  {line.title:<{width}}  {line.place:<24}  {line.text}{after}")
    return [*found, *skipped]


def evidence_document(results: Json) -> str:
    """Return the section on the evidence of a document in Markdown, '' where none was asked for."""
    if not results.get("verdict"):
        return ""
    lines, skipped = made_and_not(lines_of(results))
    rows = [
        f"| {line.title} | {line.place} | {' '.join([line.text + _why(line), line.others]).strip()} |" for line in lines
    ]
    verdict = results["verdict"]
    parts = [f"## Evidence\n\n{verdict['text']} Because of: {listed(verdict['because'])}."]
    if rows:
        parts.append(f"Position: 0 is {_zero(results)}, 1 the base; with its 95 % interval.")
        parts.append("\n".join(["| test | position | what it found |", "|---|---|---|", *rows]))
    return "\n\n".join([*parts, *skipped])


def _zero(results: Json) -> str:
    return "Retrain" if results.get("reference") else f"unseen {nouns(results)}"


def _why(line: Line) -> str:
    return f" ({line.why})" if line.state == "silent" and line.why else ""


def _line(test: dict[str, Any], own: str, what: str) -> Line:
    counted = test["counted"]
    told = bool(counted["informative"])
    position, low, high = ((counted[key] if told else None) for key in ("position", "low", "high"))
    title, why = TITLES.get(test["name"], test["name"]), counted.get("why") or ""
    asked = test.get("question") or QUESTIONS.get(test["name"], "")
    return Line(
        test["name"], title, test["text"], position, low, high, _state(test, own), why, test.get("seconds"),
        *_bar(counted), question=asked.format(what=what), made=_made(test),
    )  # fmt: skip


def _bar(reading: dict[str, Any]) -> tuple[float, tuple[float, ...]]:
    return float(reading.get("bar") or 0.1), tuple(reading.get("controls") or ())


def _made(test: dict[str, Any]) -> bool:
    """Whether a test read any row; a reading of none is of a test that was not made."""
    return any(reading.get("n", 1) for reading in test.get("readings") or [test["counted"]])


def _state(test: dict[str, Any], own: str) -> str:
    counted = test["counted"]
    failed = bool(counted["informative"]) and not counted["passes"] and test.get("weight") != "description"
    if failed:
        return "fails"
    if any(reading.get("beyond") for reading in test.get("readings") or []):
        return "beyond"
    if test["name"] == OWN and own:
        return {"held": "holds", "too far": "beyond", "nothing": "silent"}.get(own, "fails")
    if not counted["informative"]:
        return "silent"
    if test.get("weight") == "description":
        return "described"
    return "holds" if counted["passes"] else "fails"


def _signed(value: float | None) -> str:
    if value is None:
        return MISSING
    text = f"{value:.2f}".replace("-0.00", "0.00")
    return text.replace("-", "−")
