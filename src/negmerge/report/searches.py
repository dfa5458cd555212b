"""What was searched for each method's settings, as rows of a table."""

from dataclasses import dataclass

from negmerge.report import numbers
from negmerge.report.inputs import Json


@dataclass(frozen=True)
class SearchRow:
    """The search of one method, every number a text: ranges, winner, candidates tried, time beyond the winner's own."""

    label: str
    ranges: str
    winner: str
    tried: str
    seconds: str


def search_table(results: Json) -> list[SearchRow]:
    """Return the searches of a run, which are made on its first seed, in the order of the methods."""
    rows = []
    for name, row in results["methods"].items():
        search = row.get("search")
        if not search:
            continue
        failed = sum(one["scores"] is None for one in search["candidates"])
        tried = str(len(search["candidates"])) + (f" ({failed} diverged)" if failed else "")
        ranges = "; ".join(f"{key}: {numbers.setting(values)}" for key, values in search["ranges"].items())
        winner = ", ".join(f"{key} {numbers.setting(value)}" for key, value in search["winner"].items())
        label = numbers.printable(str(row.get("label") or name))
        rows.append(SearchRow(label, ranges, winner, tried, numbers.seconds(search["seconds"])))
    return rows
