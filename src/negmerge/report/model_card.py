"""The model card of an exported model: a README.md with the front matter that the Hugging Face hub reads."""

from collections.abc import Mapping
from typing import Any

import yaml

from negmerge.intervals import wilson
from negmerge.report import numbers, projected
from negmerge.report.comparison import is_trained_anew, label
from negmerge.report.evidence import evidence_document, lines_of
from negmerge.report.inputs import Json
from negmerge.report.scores import measure, nouns, scores_of
from negmerge.report.tables import escape

TAGS = ["machine-unlearning", "task-arithmetic", "negmerge"]
PIPELINES = ("image-classification", "text-classification", "zero-shot-image-classification", "text-generation")
TASKS = {"zero-shot": "zero-shot-image-classification", "causal-lm": "text-generation"}

APPROXIMATE = (
    "This is approximate unlearning, not exact: weights were changed so that the model behaves as if it had not seen "
    "the rows. It is no proof of deletion, and no guarantee as retraining or differential privacy give one."
)
EXACT = (
    "This model was trained anew, and the rows were left out of that: exact unlearning, as far as what it started from "
    "and the rows that stayed hold nothing of them."
)


def card(results: Json, row: str, about: Mapping[str, Any]) -> str:
    """Return the card of a row's model; equal inputs give equal text.

    `about` holds `declared` (licence and language of the base), `library` (which loads the folder, or None), `adapter`
    (rank, and the share that is missed, or None), `task` (of
    the config), `files` (names of the weights, and their SHA-256), `base` (the SHA-256 of the base), `seed`, `judged`
    (whether the verdict is on this row and seed), `ids` (whether classes and ids may be named), `finished` (a date) and
    `versions`.
    """
    parts = [
        _front_matter(results, row, about),
        _title(results, row, about),
        _done(results, row, about),
        _evidence(results, about),
        _numbers(results, row, about),
        _limits(results, row, about),
        _files(about),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(results: Json, row: str, about: Mapping[str, Any]) -> str:
    task = TASKS.get(about["task"], about["task"])
    head: Json = dict(about["declared"])
    if about["library"]:
        head["library_name"] = about["library"]
    if task in PIPELINES:
        head["pipeline_tag"] = task
    head["tags"] = TAGS
    source = results["task"].get("source") if about["ids"] else None
    metrics = [
        {"type": "accuracy" if n else name, "name": title, "value": round(value, 4)}
        for name, title, value, n in _measured(results, results["methods"][row])
    ]
    if metrics:
        shown = str(source or "not named")
        dataset = {"type": "custom" if "/" not in shown else shown, "name": shown}
        entry = {"task": {"type": task or "other"}, "dataset": dataset, "metrics": metrics}
        head["model-index"] = [{"name": results["name"] if about["ids"] else "unlearned", "results": [entry]}]
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---"


def _measured(results: Json, row: Json) -> list[tuple[str, str, float, int]]:
    """Return name, title, value and number of rows of each score of a row; no rows for what is no share of any."""
    return [
        (score.name, score.about, row[score.name], _counted(results, row, score.name))
        for score in scores_of(results)
        if row.get(score.name) is not None
    ]


def _rows(results: Json, name: str) -> int:
    """Return how many rows an accuracy is a share of; 0 for any other score."""
    seen = results["task"].get("evaluated") or results["task"].get("rows") or {}
    return int(seen.get(name) or 0) if _unit(results, name) == "%" else 0


def _counted(results: Json, row: Json, name: str) -> int:
    """Return how many rows a score is a share of; 0 where it counts none, as a mean of probabilities does not."""
    if measure(results) != "accuracy":
        return 0
    n = _rows(results, name)
    right = n * row[name] / 100.0
    return n if abs(right - round(right)) < 1e-6 * max(1, n) else 0


def _unit(results: Json, name: str) -> str:
    return next((str(one.get("unit") or "") for one in results.get("scores") or [] if one["name"] == name), "%")


def _asked(results: Json, about: Mapping[str, Any]) -> str:
    """Return what was to be forgotten; without ids only how much."""
    n = (results["task"].get("rows") or {}).get("forget")
    rows = f"{numbers.count(n)} {nouns(results)}"
    if not about["ids"]:
        return f"forget {rows}, which are not named here"
    text = str(results["task"].get("text") or f"forget {rows}")
    return text if numbers.count(n) in text else f"{text} ({rows})"


def _title(results: Json, row: str, about: Mapping[str, Any]) -> str:
    name = results["name"] if about["ids"] else "A model"
    return f"# {escape(name)}: unlearned by {escape(label(results, row))}"


def _done(results: Json, row: str, about: Mapping[str, Any]) -> str:
    found, model = results["methods"][row], results.get("model") or {}
    size = f" of {numbers.many(model['parameters'])} parameters" if model.get("parameters") else ""
    needs = numbers.listed([str(need) for need in found.get("needs") or []]) or "nothing"
    lines = [
        f"The request was to {escape(_asked(results, about))}. A {escape(str(model.get('family')))} model{size} was "
        f"{'trained anew' if is_trained_anew(row, found) else 'changed'} by the method "
        f"`{escape(row)}`, which used: {needs}."
    ]
    members = len((results.get("pool") or {}).get("members") or [])
    if found.get("alpha") is not None:
        lines.append(
            f"The base was fine-tuned {'once' if members == 1 else f'{members} times'} on what was to be forgotten; "
            f"what the method made of {'this fine-tuning' if members == 1 else 'these fine-tunings'} was subtracted "
            f"with α = {numbers.alpha(found['alpha'])}."
        )
    lines += [escape(said) for said in projected.sentences(found)]
    if about["adapter"]:
        rank, missed = about["adapter"]["rank"], 100 * about["adapter"]["missed"]
        lines.append(
            "What was to be forgotten had been learnt in an adapter on a model that never saw it. The weights here are "
            f"an adapter of rank {rank} on that model (its hash is in `record.json`), which leaves out {missed:.2g} % "
            "of the change; taken off, it leaves that model."
        )
    settings = {key: value for key, value in (found.get("settings") or {}).items() if value is not None}
    if settings:
        lines.append(f"Settings: {escape(numbers.setting(settings))}.")
    when = f" The run ended on {about['finished']}." if about.get("finished") else ""
    versions = ", ".join(f"{name} {value}" for name, value in about["versions"].items())
    lines.append(f"Seed {about['seed']}.{when} Made with {escape(versions)}.")
    return "## What was done\n\n" + " ".join(lines)


def _evidence(results: Json, about: Mapping[str, Any]) -> str:
    if results.get("verdict") and about["judged"]:
        return evidence_document(results)
    why = "No test of the claim was made on this model."
    if results.get("verdict"):
        why = f"The verdict of the run is on another model (row {escape(results['evidence']['method'])}), not on this."
    what = "Accuracies" if measure(results) == "accuracy" else "Numbers"
    return (
        f"## Evidence\n\n{why} {what} alone do not tell whether something is forgotten or only hidden: nothing is "
        "claimed but the numbers below."
    )


def _numbers(results: Json, row: str, about: Mapping[str, Any]) -> str:
    columns = {"before": results["base"], "after": results["methods"][row]}
    if results.get("reference"):
        columns["retrained without it"] = results["reference"]
    lines = []
    for score in scores_of(results):
        values = {name: column.get(score.name) for name, column in columns.items()}
        if values["after"] is not None:
            cells = " | ".join(_cell(results, columns[name], score.name) for name in columns)
            lines.append(f"| {escape(score.about)} | {cells} |")
    head = f"| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}"
    many = len(results.get("seeds") or [])
    spread = f"mean ± standard deviation over {many} seeds; the weights here are of seed {about['seed']}"
    text = spread
    if many <= 1:
        text = "in brackets Wilson's 95 % interval over the rows, of shares of rows alone; one run with one seed"
    return f"## Numbers\n\nShares in percent; {text}.\n\n{head}\n" + "\n".join(lines)


def _cell(results: Json, row: Json, name: str) -> str:
    value, std = row.get(name), (row.get("std") or {}).get(name)
    if _unit(results, name) != "%":
        return numbers.number(value)
    if value is None or std is not None:
        return numbers.percent(value, std)
    n = _counted(results, row, name)
    if not n:
        rows = _rows(results, name)
        return numbers.percent(value) + (f" (n = {numbers.count(rows)})" if rows else "")
    low, high = wilson(min(1.0, max(0.0, value / 100.0)), n)
    return f"{numbers.percent(value)} ({100 * low:.1f} … {100 * high:.1f}; n = {numbers.count(n)})"


def _limits(results: Json, row: str, about: Mapping[str, Any]) -> str:
    found = results["methods"][row]
    beside = " So has whoever has the vector that was subtracted, or the fine-tuned members, beside this model."
    subtracted = found.get("alpha") is not None
    made = {line.name for line in lines_of(results) if line.made} if about["judged"] else set()
    lines = [
        EXACT if is_trained_anew(row, found) else APPROXIMATE,
        "The verdict and the numbers are about the tests and rows that are named; another test may find more.",
        f"Whoever has the base (SHA-256 `{about['base']}`) has what was forgotten."
        f"{beside if subtracted else ''} {'None of these' if subtracted else 'It'} is {'' if subtracted else 'not '}"
        "in this folder.",
    ]
    if "quantisation" not in made:
        lines.append("Rounding of the weights to fewer bits was not tested: it can bring back what was forgotten.")
    if "relearning" not in made:
        lines.append("Further training was not tested: a few rows may teach again what was forgotten.")
    return "## Limits\n\n" + "\n".join(f"* {line}" for line in lines)


def _files(about: Mapping[str, Any]) -> str:
    listed = "\n".join(f"* `{name}`: SHA-256 `{sha256}`" for name, sha256 in about["files"].items())
    rows = "which rows were to be forgotten (by id and hash)" if about["ids"] else "how many rows were to be forgotten"
    return (
        f"## Files\n\n{listed}\n\n`record.json` is an in-toto statement with SLSA provenance: the SHA-256 of every "
        f"file, of what they were made, with which versions, and {rows}. `negmerge verify .` compares the folder with "
        "it. Where `model.sig` stands beside it, `negmerge verify . --public-key KEY` and `model_signing verify key . "
        "--signature model.sig --public_key KEY` check who signed it."
    )
