"""The page: everything that a run found, in one HTML file that asks nothing of anywhere."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from negmerge.errors import NegmergeError
from negmerge.report import explain, numbers, projected
from negmerge.report.comparison import erases, gap_to, label, main_method, seeds
from negmerge.report.document import results_document
from negmerge.report.evidence import lines_of
from negmerge.report.figures import classes, cosine, cost, curve, layers, scale
from negmerge.report.figures import projected as projected_layers
from negmerge.report.inputs import Json, read_forgotten, read_run
from negmerge.report.scores import gap_names, noun, nouns, scores_of
from negmerge.report.searches import search_table
from negmerge.report.tables import gap_table, method_table
from negmerge.report.verdict import judge

MOST_LISTED = 10_000  # rows by id and hash, on the page: more would not open in a browser
TEMPLATES = Path(__file__).parent / "templates"
FILTERS = (
    "percent", "percent_sign", "share", "alpha", "number", "times", "count", "seconds", "size", "setting",
    "first_upper", "with_article",
)  # fmt: skip


def write_report(run_dir: Path) -> Path:
    """Write `report.html` of a finished run and return its path.

    Reads `results.json`, `record.json` and the list in `split.json` of `run_dir`. Equal inputs give equal bytes. The
    page appears whole or not at all. Raises InputError when one of the two files is missing or not as expected.
    """
    run_dir = Path(run_dir)
    results, record = read_run(run_dir)
    page = render(results, record, read_forgotten(run_dir))
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


def render(results: Json, record: Json, forgotten: Sequence[Json] = ()) -> str:
    """Return the page as HTML; `forgotten` are the rows to forget, one by one."""
    page: str = _template().render(context(results, record, forgotten))
    return page + "\n"


@cache  # compiling the templates takes longer than filling them
def _template() -> Any:
    """Return the template of the page."""
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
    return environment.get_template("page.html.j2")


def context(results: Json, record: Json, forgotten: Sequence[Json] = ()) -> dict[str, Any]:
    """Return what the templates show."""
    main = main_method(results)
    row = results["methods"].get(main) if main is not None else None
    columns, table = method_table(results)
    return {
        "results": results,
        "record": record,
        "verdict": judge(results),
        "erases": erases(results),
        "seeds": seeds(results),
        "main": label(results, main) if main is not None else "",
        "tiles": _tiles(results, row),
        "evidence": _evidence(results),
        "asked": explain.asked(results),
        "forgotten": {"rows": forgotten[:MOST_LISTED], "all": len(forgotten)},
        "warnings": explain.warnings(results),
        "curves": _curves(results, main),
        "classes": _classes(results, row),
        "columns": columns,
        "table": table,
        "heads": {score.name: score.title for score in scores_of(results)},
        "gap_names": gap_names(results),
        "gaps": gap_table(results),
        "nouns": nouns(results),
        "noun": noun(results),
        "cost": _cost(results, main),
        "searches": search_table(results),
        "projection": _projection(results, main, row),
        "layers": _layers(results, main, row),
        "pool": _pool(results.get("pool") or {}),
        "measured": explain.measured(results),
        "config": "\n".join(_lines(record.get("config") or {})),
    }


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
    lines = lines_of(results)
    if not lines:
        return None
    seconds = sum(line.seconds or 0.0 for line in lines)
    return {
        "figure": _markup(scale.scale_figure(lines, "scale")),
        "lines": lines,
        "seconds": seconds,
        "controls": round(results["evidence"].get("controls") or 0),
        "seed": results["evidence"].get("seed"),
        "several": bool(seeds(results)),
    }


def _curves(results: Json, main: str | None) -> list[dict[str, Any]]:
    """Return the α curves, that of the main method first."""
    names = sorted(results["methods"], key=lambda name: name != main)
    shown: list[dict[str, Any]] = []
    target = (results.get("reference") or {}).get("forget") if explain.sees_own_rows(results) else None
    for i, name in enumerate(names):
        found = curve.curves_of(results["methods"][name], target)
        if found:
            title = label(results, name)
            figure = curve.curve_figure(found, f"curve{i}", title, small=name != main)
            shown.append(
                {
                    "main": name == main,
                    "title": title,
                    "figure": _markup(figure),
                    "left_out": curve.left_out(found),
                    "target": target,
                    "held_out": all(curve.HELD_OUT in point for one in found for point in one.points),
                    "floor": found[0].floor,
                    "alphas": [one.chosen for one in found if one.chosen is not None],
                    "note": results["methods"][name].get("note"),
                    "seeds": len(found),
                }
            )
    return shown


def _cost(results: Json, main: str | None) -> Any:
    costs = cost.costs_of(results, main)
    if len(costs) < 2:
        return None
    return _markup(cost.cost_figure(costs, gap_to(results, results["base"]), "cost"))


def _classes(results: Json, row: Json | None) -> dict[str, Any] | None:
    names, forgotten = results["task"].get("classes") or [], results["task"].get("forget_classes") or []
    if row is None or not names:
        return None
    before, after = _per_class(results["base"]), _per_class(row)
    target = _per_class(results.get("reference") or {}) or [None] * len(names)
    if len(before) != len(names) or len(after) != len(names) or len(target) != len(names):
        return None
    changes = [
        classes.ClassChange(str(name), b, a, t, name in forgotten)
        for name, b, a, t in zip(names, before, after, target, strict=True)
        if a is not None and b is not None
    ]
    if not changes:
        return None
    kept = [change for change in changes if not change.forgotten]
    shown = classes.pick(changes)
    return {
        "figure": _markup(classes.classes_figure(shown, "classes", nouns(results))),
        "shown": len(shown),
        "all": len(changes),
        "with_target": any(change.target is not None for change in shown),
        "worst": min(kept, key=lambda change: change.after - change.before, default=None),
    }


def _per_class(row: Json) -> list[float | None]:
    if row.get("per_class") is None and row.get("seeds"):
        row = row["seeds"][0]
    return row.get("per_class") or []


def _projection(results: Json, main: str | None, row: Json | None) -> dict[str, Any] | None:
    done = projected.projection_of(row) if row is not None else None
    if row is None or done is None or main is None:
        return None
    shown = projected_layers.pick(done["layers"])
    return {
        "title": label(results, main),
        "figure": _markup(projected_layers.projected_figure(shown, "projected")) if shown else "",
        "shown": len(shown),
        "all": len(done["layers"]),
        "sentences": projected.sentences(row),
        "strengths": projected.strengths_table(row),
    }


def _layers(results: Json, main: str | None, row: Json | None) -> dict[str, Any] | None:
    if row is None:
        return None
    filters = (row.get("method") or main) == "consensus"
    source = row if row.get("layers") or not row.get("seeds") else row["seeds"][0]
    everything = (source.get("layers") or []) if filters else []
    shown = layers.pick(everything)
    pool = results.get("pool") or {}
    share = row.get("consensus") if filters and row.get("consensus") is not None else pool.get("consensus")
    if not shown and share is None:
        return None
    threshold = float((row.get("settings") or {}).get("threshold") or 1.0)
    chance = pool.get("chance")
    if filters and threshold < 1.0 and pool.get("members"):
        chance = layers.chance_level(len(pool["members"]), threshold)
    figure = layers.layers_figure(shown, chance, "layers") if shown else ""
    return {
        "figure": _markup(figure),
        "shown": len(shown),
        "all": len(everything),
        "share": share,
        "chance": chance,
        "filters": filters,
        "threshold": threshold,
        "kept": row.get("kept") if filters else None,
        "merged": row.get("merged_elements"),
    }


def _pool(pool: Json) -> dict[str, Any] | None:
    members = pool.get("members") or []
    if not members:
        return None
    settings: dict[str, list[str]] = {}
    for member in members:
        for key in member.get("settings") or {}:
            settings.setdefault(key, [])
    for key, values in settings.items():
        values += [numbers.setting((member.get("settings") or {}).get(key)) for member in members]
    measured = [key for key in ("alpha", "forget", "retain") if any(member.get(key) is not None for member in members)]
    matrix = pool.get("cosine") or []
    pairs = [value for i, line in enumerate(matrix) for value in line[:i] if value is not None]
    return {
        "members": members,
        "varied": [key for key, values in settings.items() if len(set(values)) > 1],
        "fixed": [
            (key, values[0])
            for key, values in settings.items()
            if len(set(values)) == 1 and values[0] != numbers.MISSING
        ],
        "settings": settings,
        "measured": measured,
        "figure": _markup(cosine.cosine_figure(matrix, "cosine")) if pairs else "",
        "shown": min(len(matrix), cosine.MOST),
        "adapter": pool.get("adapter"),
        "cosine_low": min(pairs, default=None),
        "cosine_high": max(pairs, default=None),
        "cosine_mean": sum(pairs) / len(pairs) if pairs else None,
        "zero_share": pool.get("zero_share"),
        "base_loss": ((pool.get("health") or {}).get("base") or {}).get("loss"),
        "seconds": pool.get("seconds"),
    }


def _markup(svg: str) -> Any:
    from markupsafe import Markup

    return Markup(svg)  # built by our own figures, in which every text was escaped
