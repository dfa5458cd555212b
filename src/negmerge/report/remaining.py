"""What was lost, group by group, and what remains: limits, risks, files that hold the data, the model to sign for."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negmerge.report import numbers
from negmerge.report.comparison import is_trained_anew, main_method, seeds
from negmerge.report.evidence import lines_of, made_and_not
from negmerge.report.figures import classes
from negmerge.report.inputs import Json
from negmerge.report.scores import groups, known_rows, measure, nouns, tested

SURE = 0.05  # points: what a group must lose to have lost anything
NAMED = 3  # groups that are named in words
CHUNK = 1 << 20


@dataclass(frozen=True)
class ModelFile:
    """A file to sign for: its path below the run's directory, its bytes, and its hash in hexadecimal."""

    path: str
    bytes: int
    sha256: str


def changes_of(results: Json, row: Json) -> list[classes.ClassChange]:
    """Return what became of every class: those to keep first, of these the one that lost most; then the forgotten."""
    names = results["task"].get("classes") or []
    forgotten = {*(results["task"].get("forget_classes") or []), *(results["task"].get("groups_without_retain") or [])}
    before, after = _per_class(results["base"]), _per_class(row)
    target = _per_class(results.get("reference") or {}) or [None] * len(names)
    if not names or (len(names) == 1 and results["task"].get("by_group")):
        return []  # no groups, or one of all rows
    if not len(before) == len(after) == len(target) == len(names):
        return []
    found = [
        classes.ClassChange(str(name), b, a, t, name in forgotten)
        for name, b, a, t in zip(names, before, after, target, strict=True)
        if a is not None and b is not None
    ]
    return sorted(found, key=lambda one: (one.forgotten, one.after - one.before))


def lost(results: Json, row: Json) -> list[str]:
    """Return sentences on what it cost: of the rows to keep, of unseen ones, and of the groups that lost most."""
    what, base, reference = nouns(results), results["base"], results.get("reference") or {}
    said = []
    for key, which in (("retain", f"the {what} to keep"), ("test", tested(results, " of what stays"))):
        if base.get(key) is None or row.get(key) is None:
            continue
        before, now, expected = (numbers.percent_sign(one.get(key)) for one in (base, row, reference))
        target = "" if reference.get(key) is None else f"; a model retrained without the request gets {expected}"
        if measure(results) == "accuracy":
            said.append(f"Of {which} {before} were right before and {now} are right now{target}.")
        else:
            known = numbers.first_upper(known_rows(results, which))
            mean = f"{known} had a mean {measure(results)} of {before} before"
            said.append(f"{mean} and have one of {now} now{target}.")
    told = groups(results)
    kept = [one for one in changes_of(results, row) if not one.forgotten]
    worse = [one for one in kept if one.after < one.before - SURE]
    if worse:
        most = [
            f"“{one.name}” (from {numbers.percent_sign(one.before)} to {numbers.percent_sign(one.after)})"
            for one in worse[:NAMED]
        ]
        more = f" Of {len(kept)} {told.many} to keep {len(worse)} lost something." if len(worse) > 1 else ""
        said.append(f"Most was lost by {numbers.listed(most)}.{more}")
    elif kept:
        said.append(f"None of the {told.many} to keep lost {measure(results)}.")
    return said


def limits(results: Json) -> list[str]:
    """Return what the claim does not cover, a sentence or two each."""
    what = nouns(results)
    main = main_method(results)
    anew = main is not None and is_trained_anew(main, results["methods"][main])
    how = "was changed, not trained anew: this is approximate unlearning"
    rests = f"The verdict rests on the tests above and on the {what} they looked at. " if results.get("verdict") else ""
    said = [
        f"The model {f'was trained anew without these {what}' if anew else how}. {rests}"
        "It is no proof of deletion and no guarantee against tests that were not made."
    ]
    lines, _ = made_and_not(lines_of(results))
    silent = [line.title for line in lines if line.state == "silent"]
    if not results.get("verdict"):
        why = ": lowering a single output of the model is enough for that" if measure(results) == "accuracy" else ""
        said.append(
            f"No test tried to bring the forgotten rows back. Low {measure(results)} alone does not show that "
            f"something is gone{why}."
        )
    elif silent:
        said.append(
            f"Of {len(lines)} tests {len(silent)} could not tell here ({numbers.listed(silent)}). What cannot tell "
            "neither supports the claim nor refutes it."
        )
    if not results.get("reference"):
        said.append(
            "No model was retrained without the request, so there is no measure of how such a model would behave; "
            + (
                f"unseen {what} of the same kind stood in its place, and most tests can't do without it."
                if (results.get("verdict") or {}).get("word") == "forgotten"
                else "the claim can at best not be refuted."
            )
        )
    elif results.get("verdict"):
        many = round((results.get("evidence") or {}).get("controls") or 0) + 1
        retrains = "one retrained model" if many == 1 else f"{many} retrained models"
        said.append(f"The yardstick is {retrains}. Other trainings would give slightly other ones.")
    found = seeds(results)
    if not found:
        n = (results["task"].get("rows") or {}).get("forget")
        rows = f" Of the {numbers.count(n)} forgotten {what} one is {numbers.percent(100 / n)} points." if n else ""
        said.append(f"Everything was done once, with one seed; small differences may be chance.{rows}")
    return said


def risks(results: Json, record: Json) -> list[str]:
    """Return what can still give the forgotten rows away, and what would remove them."""
    found = [str(one["what"]) for one in record.get("on_disk") or []]
    word = (results.get("verdict") or {}).get("word")
    said = []
    if any("model before unlearning" in one or "model that was given" in one for one in found):
        said.append(
            "The model from before still exists. Whoever has it has everything that was forgotten; every copy that was "
            "handed out must be withdrawn."
        )
    if any("members of the pool" in one for one in found):
        said.append(
            "The working files of this run know what was forgotten, and adding back what was subtracted restores it. "
            "“negmerge run … --purge” removes them."
        )
    if word in ("suppressed", "partly", "not"):
        said.append(
            "To remove rather than hide: train the model anew without these rows, or in parts of which only those that "
            "saw them are trained anew (the method “sisa”)."
        )
    if word == "too far":
        said.append(
            "The model now does worse on these rows than one that never saw them. Whoever compares can tell from that "
            "which rows were removed; a smaller α would do less."
        )
    if results.get("reference") and word != "forgotten":
        said.append("A model that was trained without these rows stands beside this one: it can be used in its place.")
    return said


def model_file(run_dir: Path, results: Json, main: str | None) -> ModelFile | None:
    """Return the file of the main method's model, that of the first seed of several; None where it is gone.

    Its hash is that of the file as it is now, so `sha256sum` finds the same.
    """
    if main is None:
        return None
    many = results.get("seeds") or []
    shown = f"methods/{main}/model.safetensors"
    shown = f"seed-{many[0]:g}/{shown}" if len(many) > 1 else shown
    file = run_dir / shown
    return hashed(shown, file) if file.is_file() else None


def hashed(name: str, file: Path) -> ModelFile:
    """Return a file under a name, with the hash of its content."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return ModelFile(name, file.stat().st_size, digest.hexdigest())


def lost_section(results: Json, row: Json) -> dict[str, Any]:
    """Return what the page shows of the damage: sentences, and the classes that lost most."""
    changes = changes_of(results, row)
    return {"sentences": lost(results, row), "changes": classes.pick(changes), "all": len(changes)}


def _per_class(row: Json) -> list[float | None]:
    if row.get("per_class") is None and row.get("seeds"):
        row = row["seeds"][0]
    return row.get("per_class") or []
