"""What the page explains in words: the named warnings, what was asked, and how it was measured."""

from dataclasses import dataclass

from negmerge.report import numbers
from negmerge.report.comparison import erases, is_retrain, label, seeds, subject
from negmerge.report.inputs import Json
from negmerge.report.scores import noun, nouns, scores_of
from negmerge.report.tables import oracle_text


@dataclass(frozen=True)
class Advice:
    """What a named warning means and what to try."""

    meaning: str
    remedies: tuple[str, ...]


ADVICE = {
    "retain-damage": Advice(
        "What should be kept falls together with what should be forgotten: the merged direction is not "
        "specific to the forget set. Either the filter lets too much through, or all members share the "
        "same bias.",
        (
            "compare consensus with its chance level below: close to it, most of what is kept is noise",
            "lower the members' learning rates, or train them for fewer epochs",
            "vary more settings, so that members share less than the forget set itself",
        ),
    ),
    "weak-forgetting": Advice(
        "The model could have gone further without hurting the rest, or nothing it tried lowered forget "
        "accuracy: the members are too alike, or so few elements pass the filter that little is left to "
        "subtract.",
        (
            "look at the cosines below: near 1, the members are copies, so vary learning rate, epochs and augmentation",
            "lower the threshold (for example 0.8), or use fewer members",
            "if many differences are exactly zero (half precision), let zeros abstain",
            "allow a larger α",
        ),
    ),
    "unstable-signs": Advice(
        "The members agree on hardly more signs than coins would, or one of them points away from the "
        "others: some diverged, or one does not belong to this pool.",
        (
            "look for a member with a low cosine to all others, or a loss that stands out, and leave it out",
            "lower the largest learning rates",
            "check that every member was fine-tuned from this original model",
        ),
    ),
}

OBJECTIVES = {
    "retain-floor": "the lowest forget accuracy that keeps at least {floor} of the original's retain accuracy",
    "match-reference": "the smallest average gap to the retrained model",
    "match-holdout": "the behaviour on the forget set closest to that on unseen data of the same kind",
}
GRID = "trying every α of a fixed grid"
BRACKETS = {
    "retain-floor": "a search that doubles α while the floor holds, then halves the interval",
    "match-reference": "a search that doubles α until it is clearly worse, then narrows the interval",
    "match-holdout": "a search that doubles α until it is clearly worse, then narrows the interval",
}


def warnings(results: Json) -> list[Json]:
    """Return the warnings, those of one name together, each with its explanation."""
    grouped: dict[str, Json] = {}
    for one in results.get("warnings") or []:
        name = str(one.get("name") or "warning")
        advice = ADVICE.get(name, Advice("", ()))
        entry = grouped.setdefault(
            name, {"name": name, "meaning": advice.meaning, "remedies": advice.remedies, "cases": []}
        )
        about = one.get("method")
        shown = label(results, about) if about in results["methods"] else about
        entry["cases"].append({"about": shown, "text": one.get("text") or ""})
    return list(grouped.values())


def asked(results: Json) -> list[tuple[str, str]]:
    """Return (term, text) pairs: what to forget, what to keep, which model, how."""
    task, rows = results["task"], results["task"].get("rows") or {}
    aim = (
        "It should no longer be recognised at all, as far as the rest allows."
        if erases(results)
        else f"The model should treat these {nouns(results)} like any it has never seen."
    )
    pairs = [
        ("Forget", f"{_rows(results, rows.get('forget'))}{_which(results)}. {aim}"),
        ("Keep", f"{_rows(results, rows.get('retain'))}: the rest of {task.get('source') or 'the training data'}."),
    ]
    checks = [
        f"{_rows(results, rows[key])} {text}"
        for key, text in (
            ("validation", "for choosing settings"),
            ("validation_forget", "of what is to be forgotten, for choosing settings"),
            ("test", "never used before the final measurement"),
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
    if pool.get("members"):
        pairs.append(
            (
                "Pool",
                f"{len(pool['members'])} copies of the model, each fine-tuned on the forget set with other settings.",
            )
        )
    names = [label(results, name) for name, row in results["methods"].items() if not is_retrain(name, row)]
    if names:
        pairs.append(("Compared", f"{numbers.listed(names)}."))
    return pairs


def measured(results: Json) -> list[str]:
    """Return, one sentence or two each, how the numbers came about."""
    chosen, task = results.get("selection") or {}, results["task"]
    said = []
    if chosen.get("objective"):
        aim = OBJECTIVES.get(chosen["objective"], f"the objective {chosen['objective']}")
        how = {"bracket": BRACKETS.get(chosen["objective"], ""), "grid": GRID}.get(chosen.get("search") or "", "")
        said.append(
            f"α was chosen, not guessed: {aim.format(floor=numbers.share(chosen.get('floor')))}"
            + (f", found by {how}." if how else ".")
            + " Of equal values the smallest α is taken."
        )
    forget_is = str(chosen.get("forget_is") or "")
    if forget_is or chosen.get("retain_rows"):
        said.append(
            f"The choice saw {_count(chosen.get('forget_rows'), forget_is or 'forget rows')} and "
            f"{numbers.listed(seen_by_selection(results))}. The table above uses {_evaluated(task)}, so it may differ "
            "from the curves by a little."
        )
    for name, row in results["methods"].items():
        if row.get("oracle"):
            said.append(f"{label(results, name)}: {oracle_text(row)}")
    if "themselves" in forget_is:
        said.append(
            f"The choice was guided by the very {nouns(results)} that were to be forgotten: no others of the "
            "same kind exist. Their accuracy is therefore a training number, not an estimate for unseen "
            "data."
        )
    said.append(
        f"The test {nouns(results)} were used once, after every choice was made."
        + (
            f" “Test” counts the {nouns(results)} of what stays; “forget (unseen)” those of what was to go."
            if (task.get("rows") or {}).get("test_forget")
            else ""
        )
    )
    rows = [results["base"], *results["methods"].values()]
    if any(row.get("membership") is not None for row in rows):
        said.append(
            "The membership attack is a classifier that looks at the model's confidence in the right "
            f"answer. It learns from {nouns(results)} that were in training and others that were not; the number is "
            "the share of the forget set that it then calls “not in training”. What to aim for is the "
            "value of a retrained model, not 100."
        )
    if results.get("reference"):
        said.append(
            "The average gap is the mean distance to the model retrained without the forget set, over "
            f"{numbers.listed([score.title for score in scores_of(results) if score.in_gap])}. Smaller is better, 0 is "
            "indistinguishable by these."
        )
    if any((row.get("seconds_parts") or {}).get("pool") for row in rows):
        said.append("Times include training the pool, which is shared by the methods that need it.")
    many = seeds(results)
    said.append(
        f"Everything was repeated with {len(many)} seeds ({', '.join(f'{seed:g}' for seed in many)}); "
        "numbers are means ± standard deviation. Curves, layers and the pool are those of the first seed "
        "where there is no mean."
        if many
        else "There is one seed, so no spread is known."
    )
    return said


def seen_by_selection(results: Json) -> list[str]:
    """Return what the choice of α and settings saw besides the rows to forget."""
    chosen, rows = results.get("selection") or {}, results["task"].get("rows") or {}
    validation = f"{numbers.count(rows.get('validation'))} validation rows"
    sample = numbers.count(chosen.get("retain_rows"))
    on_validation = chosen.get("floor_on") == "validation"
    seen = [f"a fixed sample of {sample} {'validation' if on_validation else 'retain'} rows"]
    if chosen.get("objective") == "match-reference":
        seen += [validation, "the retrained model"]
    elif chosen.get("objective") == "match-holdout":
        seen.append(f"how the original treats {validation}")
    return seen


def _evaluated(task: Json) -> str:
    rows, used = task.get("rows") or {}, task.get("evaluated") or {}
    if used.get("retain", rows.get("retain")) == rows.get("retain"):
        return "all retain rows"
    return f"a fixed sample of {numbers.count(used['retain'])} retain and {numbers.count(used['forget'])} forget rows"


def _which(results: Json) -> str:
    task = results["task"]
    if task.get("forget_classes"):
        return f": {subject(results)}"
    return {"random": ", drawn at random", "rows": ", listed one by one", "source": " of another source"}.get(
        task.get("kind") or "", ""
    )


def _rows(results: Json, n: float | None) -> str:
    if n is None:
        return nouns(results)
    return f"{numbers.count(n)} {noun(results) if n == 1 else nouns(results)}"


def _count(n: float | None, what: str) -> str:
    return what if n is None else f"{what} ({numbers.count(n)})"
