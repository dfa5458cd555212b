"""The search for a method's settings: each candidate is trained and judged by what selects everything else."""

import itertools
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from negmerge.checkpoints import write_bytes_atomic
from negmerge.errors import NegmergeError
from negmerge.unlearning.context import SHARED, Context, Outcome
from negmerge.unlearning.method import Method


def search_ranges(method: Method, given: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the settings to search and their values, in the order in which the method declares them.

    A setting given as a list is searched over that list; one that is not given, over the method's own range
    (`SEARCH`), if it has one. Methods of other kinds than train have no search.
    """
    if method.KIND != "train":
        return {}
    ranges = {}
    for key in method.Settings.model_fields:
        if isinstance(given.get(key), list):
            ranges[key] = list(given[key])
        elif key not in given and key in method.SEARCH:
            ranges[key] = list(method.SEARCH[key])
    return ranges


def candidates(method: Method, given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the settings of every candidate: each combination of the ranges; the last setting varies fastest."""
    ranges = search_ranges(method, given)
    for values in itertools.product(*ranges.values()):
        yield {**given, **dict(zip(ranges, values, strict=True))}


def unlearn_searched(
    method: Method, given: Mapping[str, Any], context: Context, earlier: Mapping[str, Any] | None = None
) -> Outcome:
    """Run a method with the best settings of its ranges, and return its outcome with the record of the search.

    Every candidate is trained with the same seed and judged by the run's objective on the run's selection data; the
    smallest rank wins, the first among equals. One whose training diverges is out. With `earlier`, the record of the
    search of the run's first seed, its winner is trained and nothing is searched.

    The record has `ranges`, `candidates` (settings, scores, seconds, or what went wrong), `winner` and `seconds`: all
    the time beyond the winner's own training. These count in the outcome's seconds as part `search`, for every
    seed alike: without them there would be no settings to train with.

    Raises NegmergeError where every candidate diverges.
    """
    ranges = search_ranges(method, given)
    if not ranges:
        outcome: Outcome = method.unlearn(context, method.Settings(**given))
        return outcome
    if earlier is None:
        trials = [_try(method, ranges, settings, context, i) for i, settings in enumerate(candidates(method, given))]
        record = _record(ranges, trials, context)
    else:
        record = dict(earlier)
    settings = method.Settings(**given | record["winner"])
    best: Outcome = method.unlearn(replace(context, directory=_folder(context, record["index"])), settings)
    return replace(best, search=record, seconds={**best.seconds, "search": record["seconds"]})


def _folder(context: Context, index: int) -> Path:
    return context.directory / f"candidate-{index:03d}"


def _try(
    method: Method, ranges: Mapping[str, Any], settings: dict[str, Any], context: Context, index: int
) -> dict[str, Any]:
    """Train and judge one candidate, unless that was done before an interruption."""
    folder = _folder(context, index)
    file = folder / "candidate.json"
    if not file.exists():
        chosen = {key: settings[key] for key in ranges}
        folder.mkdir(parents=True, exist_ok=True)
        facts: dict[str, Any] = {"settings": chosen, "scores": None, "failed": None, "seconds": {}}
        started = time.perf_counter()
        try:
            outcome: Outcome = method.unlearn(replace(context, directory=folder), method.Settings(**settings))
            assert outcome.checkpoint is not None
            judging = time.perf_counter()
            facts["scores"] = context.judge(outcome.checkpoint)
            facts["seconds"] = {**outcome.seconds, "judging": time.perf_counter() - judging}
        except NegmergeError as error:  # diverged in training, or so far gone that it answers with NaN
            if error.exit_code != NegmergeError.exit_code:
                raise
            facts |= {"failed": str(error), "seconds": {"training": time.perf_counter() - started}}
        write_bytes_atomic(file, json.dumps(facts).encode())
        context.tell("candidate", settings=chosen, scores=facts["scores"], failed=facts["failed"])
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def _record(ranges: Mapping[str, Any], trials: list[dict[str, Any]], context: Context) -> dict[str, Any]:
    standing = [i for i, trial in enumerate(trials) if trial["scores"] is not None]
    if not standing:
        raise NegmergeError(f"every candidate failed; the first: {trials[0]['failed']}")
    index = min(standing, key=lambda i: context.rank(trials[i]["scores"]))
    spent = [sum(seconds for part, seconds in trial["seconds"].items() if part != SHARED) for trial in trials]
    own = spent[index] - trials[index]["seconds"]["judging"]
    return {
        "ranges": dict(ranges),
        "candidates": [{**trial, "seconds": seconds} for trial, seconds in zip(trials, spent, strict=True)],
        "winner": trials[index]["settings"],
        "index": index,
        "seconds": sum(spent) - own,
    }
