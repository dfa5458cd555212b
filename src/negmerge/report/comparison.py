"""What the numbers of one run say about its methods: which is the main one, and which of two did better."""

from negmerge.report.inputs import Json
from negmerge.report.numbers import count, listed, percent
from negmerge.report.scores import gap_names, may_know, nouns

FLOOR = 0.95
FLOOR_SLACK = 0.5  # selection saw a sample of the retain rows: so much may be lost on all of them
GAP_STEP = 0.2  # average gaps closer than this are not told apart


def main_method(results: Json) -> str | None:
    """Return the method that the page is about: the one of the evidence, where there is some.

    Or else consensus, projected if there is such a row, the first merge, the first method.
    """
    methods = results["methods"]
    judged = (results.get("evidence") or {}).get("method")
    if judged in methods:
        return str(judged)
    for fits in (
        lambda name: methods[name].get("method") == "consensus" and methods[name].get("projection"),
        lambda name: name == "consensus",
        lambda name: methods[name].get("method") == "consensus",
        lambda name: methods[name].get("kind") == "merge",
        lambda name: True,
    ):
        for name in methods:
            if fits(name):
                return str(name)
    return None


def erases(results: Json) -> bool:
    """Return whether forget accuracy should fall as low as possible.

    True for a class or a data set. Chosen rows of the classes that stay should only become like unseen ones; so should
    groups that are matched with unseen rows.
    """
    task = results["task"]
    if (results.get("selection") or {}).get("objective") == "match-holdout":
        return False
    return task.get("kind") in ("class", "source") or bool(task.get("forget_classes"))


def subject(results: Json) -> str:
    """Return what was to be forgotten, as the object of a sentence."""
    task = results["task"]
    names = [f"“{name}”" for name in task.get("forget_classes") or []]
    if names:
        if len(names) > 6:
            return f"the {len(names)} chosen classes"
        return f"{'class' if len(names) == 1 else 'the classes'} {listed(names)}"
    if task.get("kind") == "source":
        return "the data to forget"
    rows = (task.get("rows") or {}).get("forget")
    return f"the {count(rows)} chosen {nouns(results)}" if rows else f"the chosen {nouns(results)}"


def is_retrain(name: str, row: Json) -> bool:
    """Return whether a method is retraining itself: what the others aim at, not one of them."""
    # Older results do not say it.
    return row.get("stands_for") == "reference" or (row.get("method") or name) == "retrain"


def is_trained_anew(name: str, row: Json) -> bool:
    """Return whether a method trains a model anew without the rows, which is exact, rather than changing the base."""
    return (row.get("method") or name) in ("retrain", "sisa")


def label(results: Json, name: str) -> str:
    """Return how a method is called on the page."""
    return str(results["methods"][name].get("label") or name)


def seeds(results: Json) -> list[int]:
    """Return the seeds when there are several, else nothing."""
    found = results.get("seeds") or []
    return found if len(found) > 1 else []


def floor_of(results: Json) -> float | None:
    """Return the retain accuracy that must hold over all retain rows, in percent."""
    retain = results["base"].get("retain")
    given = (results.get("selection") or {}).get("floor")
    return None if retain is None else (FLOOR if given is None else given) * retain


def holds_floor(results: Json, row: Json) -> bool:
    """Return whether a method kept retain accuracy above the floor, up to the slack of a sample."""
    floor = floor_of(results)
    return floor is None or row.get("retain") is None or row["retain"] >= floor - FLOOR_SLACK


def gap_to(results: Json, row: Json) -> float | None:
    """Return the row's average gap, computed from its parts where the file does not have it."""
    if row.get("gap") is not None:
        return float(row["gap"])
    reference, names = results.get("reference"), gap_names(results)
    if not reference or any(row.get(name) is None or reference.get(name) is None for name in names):
        return None
    return float(sum(abs(row[name] - reference[name]) for name in names) / len(names))


def compare(results: Json, row: Json, mine: Json) -> tuple[int, str]:
    """Return 1, 0 or −1 when `row` is better than, about the same as, or worse than `mine`, and why.

    With a reference the smaller average gap wins. Otherwise a method that breaks the retain floor loses to
    one that holds it; then the lower forget accuracy wins (for chosen rows: the one closer to accuracy on
    unseen rows), then the higher retain accuracy. Differences within the spread of the seeds, or of two
    rows, count as none.
    """
    n = (results["task"].get("rows") or {}).get("forget")
    two = 200.0 / n if n else 0.0  # what two rows more or less make of forget accuracy
    gaps = gap_to(results, row), gap_to(results, mine)
    if gaps[0] is not None and gaps[1] is not None:
        why = f"gap {percent(gaps[0])} against {percent(gaps[1])}"
        step = max(GAP_STEP, two / len(gap_names(results)), _spread(row, mine, "gap"))
        return _order(gaps[1] - gaps[0], step), why
    why = (
        f"forget {percent(row['forget'])} against {percent(mine['forget'])}, "
        f"retain {percent(row['retain'])} against {percent(mine['retain'])}"
    )
    held = holds_floor(results, row), holds_floor(results, mine)
    if held[0] != held[1]:
        return (1 if held[0] else -1), why + f"; {'it held' if held[0] else 'it broke'} the retain floor"
    step = max(0.5, two, _spread(row, mine, "forget"))
    order = _order(_distance(results, mine) - _distance(results, row), step)
    if order == 0:
        order = _order(row["retain"] - mine["retain"], max(0.5, _spread(row, mine, "retain")))
    return order, why


def _distance(results: Json, row: Json) -> float:
    if erases(results) or may_know(results) or row.get("test") is None:
        return float(row["forget"])
    return abs(float(row["forget"]) - float(row["test"]))


def _spread(row: Json, mine: Json, key: str) -> float:
    return max((one.get("std") or {}).get(key) or 0.0 for one in (row, mine))


def _order(gain: float, step: float) -> int:
    return 0 if abs(gain) <= step + 1e-9 else 1 if gain > 0 else -1
