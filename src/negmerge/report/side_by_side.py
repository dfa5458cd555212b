"""Runs beside one another: what was asked of each, what its tests found, what it cost, and which file it made."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from negmerge.errors import InputError, NegmergeError
from negmerge.report import asking, numbers, remaining
from negmerge.report.comparison import gap_to, label, main_method
from negmerge.report.evidence import Line, lines_of, made_and_not
from negmerge.report.figures import scale
from negmerge.report.inputs import Json, read_run
from negmerge.report.markup import markup
from negmerge.report.page import rendered
from negmerge.report.scores import nouns, scores_of
from negmerge.report.verdict import judge

WORST = 3  # classes that lost most, of each run


def write_comparison(run_dirs: Sequence[Path], target: Path) -> Path:
    """Write a page that lays finished runs side by side, in the order given, and return its path.

    A file there is replaced. Raises InputError for fewer than two runs, one that is named twice, and files of a run
    that are missing or not as expected; NegmergeError where the page cannot be written.
    """
    if len(run_dirs) < 2:
        raise InputError("report --compare: give two runs at least: negmerge report --compare RUN RUN")
    places = [Path(run_dir).resolve() for run_dir in run_dirs]
    twice = sorted({str(place) for place in places if places.count(place) > 1})
    if twice:
        raise InputError(f"report --compare: {twice[0]} is named twice; name each run once")
    runs = [(Path(run_dir), *read_run(Path(run_dir))) for run_dir in run_dirs]
    page = rendered("compare.html.j2", comparison(runs))
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(page, encoding="utf-8", newline="\n")
        partial.replace(target)
    except OSError as error:
        raise NegmergeError(f"{target} cannot be written: {error.strerror or error}") from None
    return target


def comparison(runs: Sequence[tuple[Path, Json, Json]]) -> dict[str, Any]:
    """Return what the page of several runs shows, given directory, results and record of each.

    Names are those of the results; equal ones are told apart by their directories.
    """
    names = [str(results["name"]) for _, results, _ in runs]
    titles = [
        f"{name} ({run.name})" if names.count(name) > 1 else name for name, (run, _, _) in zip(names, runs, strict=True)
    ]
    columns = [_column(*run) for run in runs]
    sorted_out = [made_and_not(lines_of(results)) for _, results, _ in runs]
    tests = list(dict.fromkeys(line.name for lines, _ in sorted_out for line in lines))
    scores = list(
        dict.fromkeys((one.name, one.title) for _, results, _ in runs for one in scores_of(results) if one.shown)
    )
    return {
        "titles": titles,
        "columns": columns,
        "tests": [_test(name, titles, [lines for lines, _ in sorted_out]) for name in tests],
        "not_made": [(title, said) for title, (_, said) in zip(titles, sorted_out, strict=True) if said],
        "scores": [row for row in (_score(*one, runs) for one in scores) if row["any"]],
    }


def _column(run: Path, results: Json, record: Json) -> dict[str, Any]:
    main = main_method(results)
    row = results["methods"].get(main) if main is not None else None
    found = results.get("verdict") or {}
    rows = (results["task"].get("rows") or {}).get("forget")
    kept = [] if row is None else [one for one in remaining.changes_of(results, row) if not one.forgotten]
    worst = [
        f"{one.name}: {numbers.percent(one.before)} → {numbers.percent(one.after)}"
        for one in kept[:WORST]
        if one.after < one.before - remaining.SURE
    ]
    return {
        "text": results["task"].get("text") or "",
        "request": asking.request(results),
        "forget": f"{numbers.count(rows)} {nouns(results)}" if rows else "",
        "model": (results.get("model") or {}).get("family") or "",
        "method": "" if main is None else label(results, main),
        "alpha": numbers.alpha((row or {}).get("alpha")),
        "word": found.get("word") or "not tested",
        "tone": judge(results).tone,
        "headline": found.get("text") or judge(results).headline,
        "worst": worst,
        "gap": numbers.percent(gap_to(results, row)) if row else numbers.MISSING,
        "seconds": numbers.seconds((row or {}).get("seconds")),
        "file": remaining.model_file(run, results, main),
    }


def _test(name: str, titles: Sequence[str], made: Sequence[Sequence[Line]]) -> dict[str, Any]:
    """Return one test in all runs, of which each has the tests that it made: a line for each, and their picture."""
    found = [next((line for line in lines if line.name == name), None) for lines in made]
    drawn = [(title, line) for title, line in zip(titles, found, strict=True) if line is not None]
    lines = [scale.named(line, title) for title, line in drawn]
    return {
        "title": drawn[0][1].title,
        "question": drawn[0][1].question,
        "figure": markup(scale.scale_figure(lines, f"test-{name}")),
        "lines": [(title, line) for title, line in zip(titles, found, strict=True)],
    }


def _score(name: str, title: str, runs: Sequence[tuple[Path, Json, Json]]) -> dict[str, Any]:
    """Return one score of all runs: before, now and of Retrain."""
    cells = []
    for _, results, _ in runs:
        row = results["methods"].get(main_method(results)) or {}
        of = {"before": results["base"], "now": row, "retrained": results.get("reference") or {}}
        cells.append({key: numbers.percent(one.get(name)) for key, one in of.items()})
    return {"title": title, "cells": cells, "any": any(cell["now"] != numbers.MISSING for cell in cells)}
