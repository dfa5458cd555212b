"""The result table: for the terminal, for the docs, and for the page."""

from dataclasses import dataclass, field
from statistics import stdev

from negmerge.notebook import html_of
from negmerge.report import numbers, projected
from negmerge.report.comparison import compare, erases, gap_to, is_retrain, main_method
from negmerge.report.inputs import Json, check_results, rows_of
from negmerge.report.scores import gap_names, scores_of

TITLES = {"base": "Original", "reference": "Retrained without it"}
FIRST = {"label": "method", "needs": "data it needs"}  # the columns before the scores, and those behind them
LAST = {"gap": "gap", "consensus": "consensus", "alpha": "α", "seconds": "seconds"}
NEEDS = {
    "pool": "the pool",
    "forget": "forget",
    "retain": "retain",
    "validation": "validation",
    "other rows": "other rows",
    "reference": "a retrained model",
}


@dataclass
class TableRow:
    """One method as the page shows it: every number is a text already."""

    name: str
    label: str
    group: str
    needs: str
    cells: dict[str, str]
    best: set[str] = field(default_factory=set)
    main: bool = False
    settings: str = ""
    note: str = ""


def summary_table(results: Json) -> list[list[str]]:
    """Return the rows for the terminal, the header first; a missing value is an en dash.

    Columns: label, the scores that make the gap, gap (all in %), alpha, seconds.
    Raises InputError when `results` does not have the shape of format 1.
    """
    check_results(results)
    columns = ["label", *gap_names(results), "gap", "alpha", "seconds"]
    rows = []
    for name, row in rows_of(results):
        cells = {**_cells(results, row), "label": _title(name, row)}
        cells["seconds"] = numbers.MISSING if row.get("seconds") is None else f"{row['seconds']:.1f}"
        rows.append([cells[key] for key in columns])
    return [columns, *rows]


def html_table(results: Json) -> str:
    """Return the rows of `summary_table`, and the warnings, in HTML, as notebooks show them."""
    head, *rows = summary_table(results)
    title = f"{results['name']}: {results['task'].get('text') or ''}".rstrip(": ")
    warned = [f"{one['name']} ({one['method']}): {one['text']}" for one in results.get("warnings") or []]
    return html_of(title, rows, warned, head)


def markdown_table(results: Json, *, minutes: bool = False) -> str:
    """Return the result table in Markdown; columns in which every value is missing are left out.

    The last column is the time in seconds, or in `minutes`.

    Raises InputError when `results` does not have the shape of format 1.
    """
    check_results(results)
    heads = {**FIRST, **_score_titles(results), **LAST}
    rows = []
    for name, row in rows_of(results):
        cells = {**_cells(results, row), "label": _title(name, row), "needs": _needs(row)}
        unit, std = 60.0 if minutes else 1.0, _std(row, "seconds")
        spent = None if row.get("seconds") is None else row["seconds"] / unit
        cells["seconds"] = numbers.percent(spent, None if std is None else std / unit)
        rows.append({key: escape(text) for key, text in cells.items()})
    keys = [key for key in heads if key == "label" or any(r[key] != numbers.MISSING for r in rows)]
    head = ["minutes" if key == "seconds" and minutes else heads[key] for key in keys]
    lines = [head, ["---", *("---:" if key != "needs" else "---" for key in keys[1:])]]
    lines += [[row[key] for key in keys] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def method_table(results: Json) -> tuple[list[str], list[TableRow]]:
    """Return the keys of the columns that hold anything, and the rows: base, methods, then the targets."""
    main = main_method(results)
    table = []
    for name, row in rows_of(results):
        target = name == "reference" or is_retrain(name, row)
        if _stands_twice(results, name, row):
            continue
        group = "base" if name == "base" else "target" if target else "methods"
        table.append(
            TableRow(
                name,
                _title(name, row),
                group,
                _needs(row),
                _cells(results, row),
                main=name == main,
                settings=settings_text(row, results),
                note=row.get("note") or "",
            )
        )
    table.sort(key=lambda row: ("base", "methods", "target").index(row.group))
    _mark_best(results, table)
    columns = (*_score_titles(results), *LAST)
    return [key for key in columns if any(row.cells[key] != numbers.MISSING for row in table)], table


def settings_text(row: Json, results: Json) -> str:
    """Return what a row was made with: the member, the settings, and what became of the running statistics.

    That the base's are kept is said where the run's policy is another one.
    """
    settings, buffers = row.get("settings") or {}, row.get("buffers")
    shown = ", ".join(f"{key} {numbers.setting(value)}" for key, value in settings.items() if value != {})
    member = f"member {row['member']}" if row.get("member") else ""
    usual = (results.get("model") or {}).get("buffers") or "keep"
    statistics = f"running statistics: {buffers}" if buffers and (buffers, usual) != ("keep", "keep") else ""
    return "; ".join(part for part in (member, shown, statistics, projected.short_text(row)) if part)


def oracle_text(row: Json) -> str:
    """Say how far the α chosen by match-holdout is from the one that the retrained model would have chosen."""
    oracle = row["oracle"]
    return (
        f"α {numbers.alpha(row.get('alpha'))} was chosen; with the retrained model at hand it would have been "
        f"{numbers.alpha(oracle['alpha'])}, with a gap of {numbers.percent(oracle['gap'])} instead of "
        f"{numbers.percent(oracle['gap_chosen'])} (as selection measures it)."
    )


def gap_table(results: Json) -> list[tuple[str, bool, list[str]]]:
    """Return (label, is main, [each score in the gap, average]) of each row that has a gap."""
    rows = []
    reference, main, names = results.get("reference"), main_method(results), gap_names(results)
    for name, row in rows_of(results):
        parts, gap = row.get("gap_parts"), gap_to(results, row)
        again = (row.get("settings") or {}).get("seed")  # another Retrain model: what chance makes of the gap
        if name == "reference" or gap is None or (is_retrain(name, row) and not again):
            continue
        if not parts and reference:
            parts = {name: abs(row[name] - reference[name]) for name in names}
        shown = [numbers.percent((parts or {}).get(name), _part_std(row, name)) for name in names]
        rows.append((_title(name, row), name == main, [*shown, numbers.percent(gap, _std(row, "gap"))]))
    return rows


def _mark_best(results: Json, table: list[TableRow]) -> None:
    """Mark the number that decides in the method that is clearly better than each other one, if there is one."""
    rows = dict(rows_of(results))
    fair = [one for one in table if one.group == "methods"]
    fair = [one for one in fair if None not in (rows[one.name].get("forget"), rows[one.name].get("retain"))]
    by_gap = all(gap_to(results, rows[one.name]) is not None for one in fair)
    if len(fair) < 2 or not (by_gap or erases(results)):
        return
    for one in fair:
        others = [other for other in fair if other is not one]
        if all(compare(results, rows[one.name], rows[other.name])[0] > 0 for other in others):
            one.best.add("gap" if by_gap else "forget")


def _score_titles(results: Json) -> dict[str, str]:
    return {score.name: score.title for score in scores_of(results) if score.shown}


def _cells(results: Json, row: Json) -> dict[str, str]:
    names = [score.name for score in scores_of(results)]
    cells = {name: numbers.percent(row.get(name), _std(row, name)) for name in names}
    kept, std = row.get("consensus"), _std(row, "consensus")
    return {
        **cells,
        "gap": numbers.percent(gap_to(results, row), _std(row, "gap")),
        "consensus": numbers.percent(None if kept is None else 100 * kept, None if std is None else 100 * std),
        "alpha": numbers.alpha(row.get("alpha"), _std(row, "alpha")),
        "seconds": numbers.seconds(row.get("seconds")),
    }


def _std(row: Json, key: str) -> float | None:
    found = (row.get("std") or {}).get(key)
    return None if found is None else float(found)


def _part_std(row: Json, key: str) -> float | None:
    """Return the standard deviation of one part of the gap over the seeds; None of fewer than two."""
    found = [(one.get("gap_parts") or {}).get(key) for one in row.get("seeds") or []]
    values = [value for value in found if value is not None]
    return stdev(values) if len(values) > 1 and len(values) == len(found) else None


def _title(name: str, row: Json) -> str:
    once = " (one seed)" if len(row.get("seeds") or []) == 1 else ""  # of a run of several
    return TITLES.get(name) or numbers.printable(str(row.get("label") or name)) + once


def _stands_twice(results: Json, name: str, row: Json) -> bool:
    """Whether a row is the very model that the reference is: Retrain stands in a table once."""
    reference = results.get("reference")
    if name in ("base", "reference") or not reference or not is_retrain(name, row):
        return False
    return all(row.get(score) == reference.get(score) for score in gap_names(results))


def _needs(row: Json) -> str:
    return ", ".join(NEEDS.get(need, str(need)) for need in row.get("needs") or []) or numbers.MISSING


def escape(text: str) -> str:
    """Return `text` so that it stands for itself in a cell of a Markdown table."""
    for mark, escaped in (
        ("\\", "\\\\"),
        ("|", "\\|"),
        ("<", "&lt;"),
        ("\n", " "),
        ("`", "\\`"),
        ("*", "\\*"),
    ):
        text = text.replace(mark, escaped)
    return text
