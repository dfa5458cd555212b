"""The page: everything that a run found, in one HTML file that asks nothing of anywhere."""

import json
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from negmerge.errors import NegmergeError
from negmerge.report import asking, detail, explain, numbers, remaining
from negmerge.report.comparison import erases, gap_to, label, main_method, seeds
from negmerge.report.document import results_document
from negmerge.report.evidence import deciding, lines_of, made_and_not, meaning, plain
from negmerge.report.figures import classes, scale
from negmerge.report.inputs import Json, read_forgotten, read_run
from negmerge.report.lasting import lasting_section
from negmerge.report.markup import markup
from negmerge.report.relearning import relearning_section
from negmerge.report.scores import gap_names, groups, known_rows, measure, noun, nouns, scores_of
from negmerge.report.searches import search_table
from negmerge.report.tables import gap_table, method_table
from negmerge.report.verdict import judge

MOST_LISTED = 10_000  # rows by id and hash, on the page: more would not open in a browser
TEMPLATES = Path(__file__).parent / "templates"
FILTERS = (
    "percent", "percent_sign", "share", "alpha", "number", "times", "count", "seconds", "size", "setting",
    "first_upper", "with_article",
)  # fmt: skip


def write_report(run_dir: Path, shipped: Mapping[str, Path] | None = None) -> Path:
    """Write `report.html` of a finished run and return its path.

    What is signed for is the model of the main method, or the files that are `shipped`, by the names that they have
    there.
    Reads `results.json`, `record.json` and the list in `split.json` of `run_dir`. Equal inputs give equal bytes. The
    page appears whole or not at all. Raises InputError when one of the two files is missing or not as expected.
    """
    run_dir = Path(run_dir)
    results, record = read_run(run_dir)
    own = remaining.model_file(run_dir, results, main_method(results)) if shipped is None else None
    models = [own] if own else [remaining.hashed(name, file) for name, file in (shipped or {}).items()]
    page = render(results, record, read_forgotten(run_dir), models)
    target, partial = run_dir / "report.html", run_dir / ".report.html.partial"
    try:
        partial.write_text(page, encoding="utf-8", newline="\n")
        partial.replace(target)
    except OSError as error:
        raise NegmergeError(f"{target} cannot be written: {error.strerror or error}") from None
    return target


def write_document(run_dir: Path, target: Path) -> Path:
    """Write the results of a finished run as a document in Markdown, and return its path; a file there is replaced.

    Raises InputError as `write_report` does, NegmergeError where the file cannot be written.
    """
    text = results_document(*read_run(Path(run_dir)))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise NegmergeError(f"{target} cannot be written: {error.strerror or error}") from None
    return target


def render(
    results: Json, record: Json, forgotten: Sequence[Json] = (), models: Sequence[remaining.ModelFile] = ()
) -> str:
    """Return the page as HTML; `forgotten` are the rows to forget, one by one, `models` are the files to sign for."""
    return rendered("page.html.j2", context(results, record, forgotten, models))


def rendered(template: str, shown: Mapping[str, Any]) -> str:
    """Return what a template makes of what it shows."""
    page: str = _template(template).render(shown)
    return page + "\n"


@cache  # compiling the templates takes longer than filling them
def _template(file: str) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: numbers.printable(value) if type(value) is str else value,
    )
    for name in FILTERS:
        environment.filters[name] = getattr(numbers, name)
    environment.filters |= {"plain": plain, "quoted": shlex.quote}
    return environment.get_template(file)


def context(
    results: Json, record: Json, forgotten: Sequence[Json] = (), models: Sequence[remaining.ModelFile] = ()
) -> dict[str, Any]:
    """Return what the templates show."""
    main = main_method(results)
    row = results["methods"].get(main) if main is not None else None
    columns, table = method_table(results)
    return {
        "results": results,
        "record": record,
        "request": asking.request(results),
        "asked": asking.asked(results),
        "when": _when(record),
        "named": asking.named(list(forgotten)),
        "forgotten": {"rows": forgotten[:MOST_LISTED], "all": len(forgotten)},
        "verdict": judge(results),
        "word": (results.get("verdict") or {}).get("word") or "",
        "meaning": meaning(results),
        "deciding": deciding(results),
        "erases": erases(results),
        "seeds": seeds(results),
        "main": label(results, main) if main is not None else "",
        "tiles": _tiles(results, row),
        "evidence": _evidence(results),
        "said": results.get("said") or {},
        "lost": _lost(results, row),
        "limits": remaining.limits(results),
        "risks": remaining.risks(results, record),
        "warnings": explain.warnings(results),
        "models": models,
        "reviewer": (results.get("request") or {}).get("reviewer") or "",
        "curves": detail.curve_section(results, main),
        "relearning": relearning_section(results),
        "lasting": lasting_section(results, main),
        "lottery": detail.lottery_section(results, main),
        "examples": detail.examples_section(results),
        "answers": detail.answers_section(results),
        "layers": detail.layers_section(results, main, row),
        "matrix": detail.matrix_section(results),
        "columns": columns,
        "table": table,
        "heads": {score.name: score.title for score in scores_of(results)},
        "gap_names": gap_names(results),
        "gaps": gap_table(results),
        "nouns": nouns(results),
        "noun": noun(results),
        "measure": measure(results),
        "known_rows": known_rows(results, f"the {nouns(results)}"),
        "cost": detail.cost_figure(results, main),
        "searches": search_table(results),
        "projection": detail.projection_section(results, main, row),
        "single": len((results.get("pool") or {}).get("members") or []) == 1,
        "pool": detail.pool_section(results.get("pool") or {}),
        "measured": explain.measured(results),
        "config": "\n".join(_lines(record.get("config") or {})),
    }


def _when(record: Json) -> str:
    """Return the days from start to end of a run, where the record knows them."""
    days = [str(record[key])[:10] for key in ("started", "finished") if record.get(key)]
    return " to ".join(dict.fromkeys(days))


def _lines(config: Json, path: str = "") -> list[str]:
    """Return one line for each setting, named by its path as `--set` takes it."""
    lines = []
    for key, value in config.items():
        if isinstance(value, dict) and value:
            lines += _lines(value, f"{path}{key}.")
        else:
            lines.append(f"{path}{key} = {json.dumps(value, ensure_ascii=False)}")
    return lines


def _tiles(results: Json, row: Json | None) -> list[dict[str, str]]:
    """Return the few numbers at the top: before, after, and what the retrained model has."""
    if row is None:
        return []
    base, target = results["base"], results.get("reference") or {}
    tiles = []
    for key, title in ((score.name, score.about) for score in scores_of(results) if score.in_gap):
        if row.get(key) is not None:
            tiles.append(
                {
                    "key": key,
                    "title": title,
                    "before": numbers.percent(base.get(key)),
                    "after": numbers.percent(row[key], (row.get("std") or {}).get(key)),
                    "target": "" if target.get(key) is None else numbers.percent(target[key]),
                }
            )
    gap = gap_to(results, row)
    if gap is not None:
        before = gap_to(results, base)
        after = numbers.percent(gap, (row.get("std") or {}).get("gap"))
        tiles.append(
            {
                "key": "gap",
                "title": "Average gap to retraining",
                "before": numbers.percent(before),
                "after": after,
                "target": "",
            }
        )
    return tiles


def _evidence(results: Json) -> dict[str, Any] | None:
    """Return the tests of the claim and their picture, where evidence was asked for."""
    lines, skipped = made_and_not(lines_of(results))
    if not lines and not skipped:
        return None
    seconds = sum(line.seconds or 0.0 for line in lines)
    return {
        "figure": markup(scale.scale_figure(lines, "scale", "retrained" if results.get("reference") else "unseen"))
        if lines
        else "",
        "lines": lines,
        "not_made": skipped,
        "seconds": seconds,
        "controls": round(results["evidence"].get("controls") or 0),
        "seed": results["evidence"].get("seed"),
        "several": bool(seeds(results)),
    }


def _lost(results: Json, row: Json | None) -> dict[str, Any] | None:
    """Return the damage, and its picture where there are classes."""
    if row is None:
        return None
    found = remaining.lost_section(results, row)
    changes = found["changes"]
    figure = classes.classes_figure(changes, "classes", groups(results)) if changes else ""
    return {
        **found,
        "groups": groups(results),
        "figure": markup(figure),
        "shown": len(changes),
        "with_target": any(change.target is not None for change in changes),
        "with_forgotten": any(change.forgotten for change in changes),
    }
