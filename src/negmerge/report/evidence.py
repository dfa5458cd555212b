"""The evidence of a run in words: the verdict, and a line for each test."""

from dataclasses import dataclass
from typing import Any

from negmerge.report.inputs import Json
from negmerge.report.numbers import MISSING, listed

OWN = "own-rows"
TITLES = {OWN: "own rows"}
CANNOT = "can't tell here"


@dataclass(frozen=True)
class Line:
    """A test as the page shows it; `low`, `high` and `position` are None where it can't tell."""

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
    return [_line(test, evidence.get("own") or "") for test in evidence.get("tests") or []]


def evidence_lines(results: Json) -> list[str]:
    """Return verdict and tests as lines for a terminal."""
    verdict = results["verdict"]
    lines = lines_of(results)
    width = max((len(line.title) for line in lines), default=0)
    found = [f"Verdict on {results['evidence']['method']}: {verdict['text']} Because of: {listed(verdict['because'])}."]
    found.append("Position of each test, 0 Retrain … 1 the base, with its 95 % interval:")
    for line in lines:
        after = f" [{line.why}]" if line.state == "silent" and line.why else ""
        found.append(f"  {line.title:<{width}}  {line.place:<24}  {line.text}{after}")
    return found


def evidence_document(results: Json) -> str:
    """Return the section on the evidence of a document in Markdown, '' where none was asked for."""
    if not results.get("verdict"):
        return ""
    rows = [
        f"| {line.title} | {line.place} | {' '.join([line.text + _why(line), line.others]).strip()} |"
        for line in lines_of(results)
    ]
    verdict = results["verdict"]
    head = f"## Evidence\n\n{verdict['text']} Because of: {listed(verdict['because'])}."
    about = "Position: 0 is Retrain, 1 the base; with its 95 % interval."
    return "\n".join([head, "", about, "", "| test | position | what it found |", "|---|---|---|", *rows])


def _why(line: Line) -> str:
    return f" ({line.why})" if line.state == "silent" and line.why else ""


def _line(test: dict[str, Any], own: str) -> Line:
    counted = test["counted"]
    told = bool(counted["informative"])
    position, low, high = ((counted[key] if told else None) for key in ("position", "low", "high"))
    title, why = TITLES.get(test["name"], test["name"]), counted.get("why") or ""
    return Line(title, test["text"], position, low, high, _state(test, own), why, test.get("seconds"), *_bar(counted))


def _bar(reading: dict[str, Any]) -> tuple[float, tuple[float, ...]]:
    return float(reading.get("bar") or 0.1), tuple(reading.get("controls") or ())


def _state(test: dict[str, Any], own: str) -> str:
    counted = test["counted"]
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
