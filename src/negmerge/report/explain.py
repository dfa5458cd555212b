"""What the page explains in words: the named warnings, and how it was measured."""

from negmerge.report import numbers
from negmerge.report.comparison import label, seeds
from negmerge.report.inputs import Json
from negmerge.report.scores import may_know, measure, nouns, scores_of
from negmerge.report.tables import oracle_text

MEANING = {
    "data": "How the rows were read and found: what was passed over, or was so few that it may not be what was meant.",
    "diverged-member": "The training of a member ran off to numbers that are none. It has no part in any merge.",
    "retain-damage": "What should be kept falls together with what should be forgotten: the merged direction is not "
    "specific to the forget set.",
    "weak-forgetting": "The model could have gone further without hurting the rest, or nothing that was tried lowered "
    "how well the forget set is known.",
    "unstable-signs": "The members do not agree on where the forget set lies in the weights.",
    "moved-statistics": "The running statistics of batch normalisation moved while the members were trained on the "
    "forget set, and their weights fit the moved ones; the merged vector is applied beside those of the original.",
    "nothing-to-match": "The objective aims at how the original treats rows that it never saw; here it treats the rows "
    "to be forgotten like that already, so the choice of α hangs on chance.",
}

WORSE = " (of the request's own rows and of held-out ones, the worse)"
OBJECTIVES = {
    "retain-floor": "the lowest forget {measure}"
    + WORSE
    + " that keeps at least {floor} of the original's retain {measure}",
    "lasting": "the α at which least comes back when it is relearnt or an output is turned up, beside a retrained "
    "model, among those that forget as much as any, keep at least {floor} of the original's retain {measure} and bound "
    "the retain loss",
    "match-reference": "the smallest average gap to the retrained model",
    "match-holdout": "the behaviour on the forget set closest to that on unseen data of the same kind",
}
GRID = "trying every α of a fixed grid"
BRACKETS = {
    "retain-floor": "a search that doubles α while the floor holds, then halves the interval",
    "lasting": "a search that doubles α while the floor holds, then tests some of what lies between",
    "match-reference": "a search that doubles α until it is clearly worse, then narrows the interval",
    "match-holdout": "a search that doubles α until it is clearly worse, then narrows the interval",
}


def warnings(results: Json) -> list[Json]:
    """Return the warnings, those of one name together, each with what the name means; a case has one advice."""
    grouped: dict[str, Json] = {}
    for one in results.get("warnings") or []:
        name = str(one.get("name") or "warning")
        entry = grouped.setdefault(name, {"name": name, "meaning": MEANING.get(name, ""), "cases": []})
        about = one.get("method")
        shown = label(results, about) if about in results["methods"] else about
        entry["cases"].append({"about": shown, "text": one.get("text") or "", "advice": one.get("advice") or ""})
    return list(grouped.values())


def measured(results: Json) -> list[str]:
    """Return, one sentence or two each, how the numbers came about."""
    chosen, task = results.get("selection") or {}, results["task"]
    said = []
    if chosen.get("objective"):
        aim = OBJECTIVES.get(chosen["objective"], f"the objective {chosen['objective']}")
        if chosen.get("match"):
            compared = [score.title for score in scores_of(results) if score.name in chosen["match"]]
            aim = f"the smallest distance to the retrained model in {numbers.listed(compared)} alone"
        if not sees_own_rows(results):
            aim = aim.replace(WORSE, "")
        how = {"bracket": BRACKETS.get(chosen["objective"], ""), "grid": GRID, "paper": GRID}.get(
            chosen.get("search") or "", ""
        )
        aim = aim.format(floor=numbers.share(chosen.get("floor")), measure=measure(results))
        said.append(
            f"α was chosen, not guessed: {aim}"
            + (f", found by {how}." if how else ".")
            + (f" Up to {chosen['gone']:g} % counts as none." if chosen.get("gone") else "")
            + " Of equal values the smallest α is taken"
            + (
                f", and then up to {numbers.alpha(chosen['margin'])} times as much (rounded up to the next α that is "
                "tried), as far as that costs nothing."
                if _has_margin(chosen)
                else "."
            )
        )
    if chosen.get("forget_rows") or chosen.get("retain_rows"):
        said.append(
            f"The choice saw {numbers.listed([*forget_seen(results), *seen_by_selection(results)])}. The table above "
            f"uses {_evaluated(task)}, so it may differ from the curves by a little."
        )
    for name, row in results["methods"].items():
        if row.get("oracle"):
            said.append(f"{label(results, name)}: {oracle_text(row)}")
    if sees_only_own_rows(results):
        said.append(
            f"The choice was guided by the very {nouns(results)} that were to be forgotten, and by no others of "
            f"their kind. Their {measure(results)} is therefore a training number, not an estimate for unseen data."
        )
    sizes = task.get("rows") or {}
    if sizes.get("test") or "test" not in sizes:
        unseen = "held out" if may_know(results) else "unseen"
        said.append(
            f"The test {nouns(results)} were used once, after every choice was made."
            + (f" They were held out of the {nouns(results)} to keep, so the model may know them." * may_know(results))
            + (
                f" “Test” counts the {nouns(results)} of what stays; “forget ({unseen})” those of what was to go."
                if sizes.get("test_forget")
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


def _has_margin(chosen: Json) -> bool:
    """Whether α may lie beyond the smallest best one."""
    plain = chosen.get("search") == "paper" or chosen["objective"] != "retain-floor"
    return not plain and (chosen.get("margin") or 1.0) > 1.0


def sees_only_own_rows(results: Json) -> bool:
    """Whether the choice saw no other rows of the kind to be forgotten than those of the request."""
    chosen = results.get("selection") or {}
    return "themselves" in str(chosen.get("forget_is")) or chosen.get("held_out_rows") == 0


def sees_own_rows(results: Json) -> bool:
    """Whether the forget line of a curve is that of the request's own rows; before 0.2 held-out rows came first."""
    return "held-out" not in str((results.get("selection") or {}).get("forget_is"))


def forget_seen(results: Json) -> list[str]:
    """Return which rows of the kind to be forgotten the choice saw."""
    chosen = results.get("selection") or {}
    count = numbers.count(chosen.get("forget_rows"))
    if chosen.get("forget_is"):
        return [f"{chosen['forget_is']} ({count})"]
    held_out = chosen.get("held_out_rows")
    own = f"{count} of the rows to forget"
    return [own, f"{numbers.count(held_out)} held-out rows of their kind"] if held_out else [own]


def seen_by_selection(results: Json) -> list[str]:
    """Return what the choice of α and settings saw besides the rows to forget."""
    chosen, rows = results.get("selection") or {}, results["task"].get("rows") or {}
    held_out = rows.get("validation")
    validation = f"{numbers.count(held_out)} validation rows"
    sample, on_validation = chosen.get("retain_rows"), chosen.get("floor_on") == "validation"
    seen = [f"a fixed sample of {numbers.count(sample)} {'validation' if on_validation else 'retain'} rows"]
    seen = seen if sample or sample is None else []
    if held_out and (chosen.get("floor_on") == "both" or chosen.get("objective") == "match-reference"):
        seen.append(validation)
    if chosen.get("objective") in ("match-reference", "lasting"):
        seen.append("the retrained model")
    elif chosen.get("objective") == "match-holdout" and held_out != 0:
        seen.append(f"how the original treats {validation}")
    return seen


def _evaluated(task: Json) -> str:
    rows, used = task.get("rows") or {}, task.get("evaluated") or {}
    if used.get("retain", rows.get("retain")) == rows.get("retain"):
        return "all retain rows"
    return f"a fixed sample of {numbers.count(used['retain'])} retain and {numbers.count(used['forget'])} forget rows"
