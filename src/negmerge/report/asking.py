"""Who asked what, when, and of which model: the first thing on the page."""

from negmerge.report import numbers
from negmerge.report.comparison import erases, is_retrain, label, main_method, subject
from negmerge.report.inputs import Json
from negmerge.report.scores import may_know, noun, nouns

OWN_DATA = "your own data"  # of negmerge.unlearn
FIELDS = {
    "requester": "Asked for by",
    "reason": "Reason",
    "reviewer": "Reviewed by",
    "date": "Date of the request",
    "reference": "Reference",
}
MOST_NAMED = 12  # ids that stand in the open; all stand in a list that opens


def request(results: Json) -> list[tuple[str, str]]:
    """Return the free fields of the request, (term, text) pairs in the order of the config."""
    found = results.get("request") or {}
    return [(FIELDS.get(key, numbers.first_upper(key.replace("_", " "))), str(text)) for key, text in found.items()]


def asked(results: Json) -> list[tuple[str, str]]:
    """Return (term, text) pairs: what to forget, what to keep, which model, how."""
    task, rows = results["task"], results["task"].get("rows") or {}
    aim = (
        "It should no longer be recognised at all, as far as the rest allows."
        if erases(results)
        else f"The model should treat these {nouns(results)} like any it has never seen."
    )
    pairs = [
        ("To forget", f"{_rows(results, rows.get('forget'))}{_which(results)}. {aim}"),
        ("To keep", f"{_rows(results, rows.get('retain'))}: the rest of {task.get('source') or 'the training data'}."),
    ][: 1 if rows.get("retain") == 0 else 2]
    known = ", though the model may know them" if may_know(results) else ""
    checks = [
        f"{_rows(results, rows[key])} {text}"
        for key, text in (
            ("validation", "for choosing settings"),
            ("validation_forget", "of what is to be forgotten, for choosing settings"),
            ("test", f"never used before the final measurement{known}"),
            ("test_forget", "of what is to be forgotten, never used before the final measurement"),
        )
        if rows.get(key)
    ]
    if checks:
        pairs.append(("Set aside", f"{numbers.listed(checks)}."))
    model, pool = results.get("model") or {}, results.get("pool") or {}
    if model.get("family"):
        size = f" with {numbers.many(model['parameters'])} parameters" if model.get("parameters") else ""
        pairs.append(("Model", f"{model['family']}{size}."))
    main = main_method(results)
    if pool.get("members") and main is not None and results["methods"][main].get("alpha") is not None:
        consensus = "consensus" in (main, results["methods"][main].get("method"))
        taken = "what they have in common" if consensus else f"what the method “{label(results, main)}” made of that"
        copies = f"{len(pool['members'])} copies of the model were each trained further"
        if len(pool["members"]) == 1:
            copies, taken = "A copy of the model was trained further", "the change"
        pairs.append(("Method", f"{copies} on what is to be forgotten; {taken} was subtracted from the model."))
    names = [label(results, name) for name, row in results["methods"].items() if not is_retrain(name, row)]
    if len(names) > 1:
        pairs.append(("Ways tried", f"{numbers.listed(names)}."))
    return pairs


def named(forgotten: list[Json]) -> str:
    """Return the ids of the forgotten rows, the first few of many; nothing where they have none but their numbers."""
    if not forgotten:
        return ""
    ids = [str(row["id"]) for row in forgotten[:MOST_NAMED]]
    if all(row["id"] == str(row["row"]) for row in forgotten[:MOST_NAMED]):
        ids = [f"row {one}" for one in ids]
    rest = len(forgotten) - len(ids)
    return numbers.listed([*ids, f"{numbers.count(rest)} more"] if rest else ids)


def _which(results: Json) -> str:
    task = results["task"]
    if task.get("forget_classes"):
        return f": {subject(results)}"
    if task.get("source") == OWN_DATA:
        return ""
    return {"random": ", drawn at random", "rows": ", listed one by one", "source": " of another source"}.get(
        task.get("kind") or "", ""
    )


def _rows(results: Json, n: float | None) -> str:
    if n is None:
        return nouns(results)
    return f"{numbers.count(n)} {noun(results) if n == 1 else nouns(results)}"
