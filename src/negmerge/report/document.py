"""A page of results in Markdown: what was run, the tables, and what every share is a share of."""

import re

from negmerge.report import numbers, projected
from negmerge.report.comparison import gap_to, is_retrain, label, main_method, seeds
from negmerge.report.evidence import evidence_document
from negmerge.report.explain import forget_seen, seen_by_selection
from negmerge.report.inputs import Json, rows_of
from negmerge.report.numbers import count
from negmerge.report.scores import may_know, scores_of
from negmerge.report.searches import search_table
from negmerge.report.tables import escape, gap_table, markdown_table, oracle_text, settings_text
from negmerge.report.verdict import judge

FOLDERS = re.compile(r"(?<![\w.…])/(?:[^\s/'\"{}]+/)+")  # an absolute path, up to the name at its end


def results_document(results: Json, record: Json) -> str:
    """Return the results of a run as a document in Markdown: equal inputs give equal text.

    Accuracies, membership and gap are in percent and percentage points, mean ± standard deviation (n − 1) over the
    seeds; the numbers of rows that they are shares of stand above the table. Folders of absolute paths are shortened.
    """
    parts = [
        f"# {escape(results['name'])}: {escape(results['task'].get('text') or '')}".rstrip(": "),
        _what(results),
        f"```\n{FOLDERS.sub('…/', record.get('command') or 'negmerge run')}\n```",
        _how(results, record),
        markdown_table(results, minutes=True).rstrip(),
        _denominators(results),
        _verdict(results),
        evidence_document(results),
        _gaps(results),
        _by_seed(results),
        _noise(results),
        _settings(results),
        _projections(results),
        _oracle(results),
        _searches(results),
        _pool(results),
        _warnings(results),
        _on_disk(record),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(results: Json) -> str:
    rows = results["task"].get("rows") or {}
    named = ", ".join(f"{count(rows[key])} {key.replace('_', ' ')}" for key in rows if rows[key])
    model = results.get("model") or {}
    size = f" ({numbers.many(model['parameters'])} parameters)" if model.get("parameters") else ""
    return f"Model: {escape(str(model.get('family')))}{size}. Rows: {named}."


def _how(results: Json, record: Json) -> str:
    machine, versions = record.get("machine") or {}, record.get("versions") or {}
    found = seeds(results)
    many = f"Seeds {', '.join(map(str, found))}; mean ± standard deviation." if found else "One seed."
    where = ", ".join(
        part
        for part in (
            str(machine.get("cpu") or ""),
            f"{count(machine['cores'])} cores" if machine.get("cores") else "",
            str(machine.get("device") or ""),
            f"torch {versions['torch']}" if versions.get("torch") else "",
            f"negmerge {results['negmerge']}" if results.get("negmerge") else "",
        )
        if part
    )
    return f"{escape(where)}. {many}" if where else many


def _denominators(results: Json) -> str:
    task, selection = results["task"], results.get("selection") or {}
    rows = task.get("evaluated") or task.get("rows") or {}
    shares = [
        f"{key} of {count(rows[key])} rows" for key in ("forget", "test_forget", "retain", "test") if rows.get(key)
    ]
    unseen = "held out" if may_know(results) else "unseen"
    text = f"Shares: {', '.join(shares).replace('test_forget', f'forget ({unseen})')}."
    if rows.get("forget"):
        text += f" Membership: the share of the {count(rows['forget'])} forget rows that the attack calls non-members."
    merged = (results.get("model") or {}).get("merged_elements")
    if merged:
        text += f" Consensus: the share of {count(merged)} merged elements that the method changes."
    if selection.get("objective"):
        floor = (
            "" if selection.get("floor") is None else f", floor {numbers.share(selection['floor'])} of the original's"
        )
        text += (
            f" α and settings are chosen by {selection['objective']}{floor}, from "
            f"{numbers.listed([*forget_seen(results), *seen_by_selection(results)])}."
        )
    return text + " Minutes include the training of the pool and of what was tried in a search."


def _verdict(results: Json) -> str:
    found = judge(results)
    said = [found.headline, found.because, *found.sentences, found.comparison]
    return "## In words\n\n" + " ".join(one for one in said if one)


def _gaps(results: Json) -> str:
    rows = gap_table(results)
    if not rows:
        return ""
    titles = [score.title for score in scores_of(results) if score.in_gap]
    head = ("method", *titles, "average gap")
    lines = [[escape(name), *cells] for name, _, cells in rows]
    return "## The parts of the gap\n\nDistance to the retrained model, in percentage points.\n\n" + _table(head, lines)


def _by_seed(results: Json) -> str:
    """The gap of each row seed by seed, beside that of the main method."""
    main = main_method(results)
    mine = _seed_gaps(results, main) if main and seeds(results) else []
    if not mine or main is None:
        return ""
    lines = []
    for name in results["methods"]:
        gaps = _seed_gaps(results, name)
        closer = sum(own < gap for own, gap in zip(mine, gaps, strict=False))
        told = "" if name == main else f"{closer} of {len(gaps)}"
        cells = [numbers.percent(gap) for gap in gaps] + [""] * (len(mine) - len(gaps))
        lines.append([escape(label(results, name)), *cells, told])
    head = ("gap of", *(f"seed {seed}" for seed in seeds(results)), f"{escape(label(results, main))} is closer in")
    return "## Seed by seed\n\n" + _table(head, lines)


def _seed_gaps(results: Json, name: str) -> list[float]:
    rows = results["methods"][name].get("seeds") or []
    found = [row.get("gap") for row in rows]
    return [] if None in found else [gap for gap in found if gap is not None]


def _noise(results: Json) -> str:
    again = [row for name, row in rows_of(results) if name != "reference" and is_retrain(name, row)]
    gaps = [gap_to(results, row) for row in again]
    found = [gap for gap in gaps if gap]
    if not found:
        return ""
    return (
        f"A model retrained once more, from another seed, has a gap of {numbers.percent(min(found))}: differences of "
        "that size are chance."
    )


def _settings(results: Json) -> str:
    found = [(name, settings_text(row, results)) for name, row in results["methods"].items()]
    lines = [f"* {escape(label(results, name))}: {escape(text)}" for name, text in found if text]
    return "\n".join(["## Settings", "", *lines]) if lines else ""


def _projections(results: Json) -> str:
    lines = [
        f"* {escape(label(results, name))}: {escape(' '.join(projected.sentences(row)))}"
        for name, row in results["methods"].items()
        if projected.projection_of(row)
    ]
    return "\n".join(["## What the projection did", "", *lines]) if lines else ""


def _oracle(results: Json) -> str:
    lines = [
        f"* {escape(label(results, n))}: {oracle_text(r)}" for n, r in results["methods"].items() if r.get("oracle")
    ]
    return "\n".join(["## Chosen without the retrained model", "", *lines]) if lines else ""


def _searches(results: Json) -> str:
    rows = search_table(results)
    if not rows:
        return ""
    lines = [[escape(text) for text in (r.label, r.ranges, r.winner, r.tried, r.seconds)] for r in rows]
    head = ("method", "searched", "chosen", "candidates", "time of the search")
    return "## Settings searched\n\nOn the first seed, judged by what chooses α.\n\n" + _table(head, lines, text=3)


def _pool(results: Json) -> str:
    pool = results.get("pool") or {}
    members = pool.get("members") or []
    if not members:
        return ""
    cosine = pool.get("mean_cosine")
    text = (
        f"## The pool\n\n{len(members)} members: {numbers.share(pool.get('consensus'))} of the elements agree in sign "
        f"(by chance {numbers.share(pool.get('chance'))})"
    )
    text += f", mean pairwise cosine {cosine:.2f}." if cosine is not None else "."
    if seeds(results):
        text += " These are the first seed's."
    if pool.get("advice"):
        text += f" Advice: {escape(pool['advice'])}."
    head = ("member", "loss on the forget rows", "forget", "like the others", "size")
    lines = [
        [
            escape(m["name"]),
            numbers.number(m.get("forget_loss")),
            numbers.percent(m.get("forget")),
            numbers.number(m.get("likeness")),
            numbers.number(m.get("size")),
        ]
        for m in members
    ]
    return f"{text}\n\n{_table(head, lines)}"


def _warnings(results: Json) -> str:
    found = results.get("warnings") or []
    lines = [
        f"* {escape(one['name'])} ({escape(one['method'])}): "
        + escape("; ".join(one[key] for key in ("text", "advice") if one.get(key)))
        for one in found
    ]
    return "\n".join(["## Warnings", "", *lines]) if lines else ""


def _on_disk(record: Json) -> str:
    """What was removed of a purged run, and what is left: a run that was not purged says nothing here."""
    if not record.get("purged"):
        return ""
    lines = [f"* `{FOLDERS.sub('…/', one['path'])}`: {escape(one['what'])}" for one in record.get("on_disk") or []]
    removed = ", ".join(f"`{path}`" for path in record["purged"])
    return "\n".join(["## On disk", "", f"Removed: {removed}. Left:", "", *lines])


def _table(head: tuple[str, ...], rows: list[list[str]], text: int = 1) -> str:
    """Return a table in Markdown; the first `text` columns are words, the others numbers."""
    marks = ["---"] * text + ["---:"] * (len(head) - text)
    return "\n".join(f"| {' | '.join(line)} |" for line in [list(head), marks, *rows])
