"""The verdict in plain words, built from the numbers: what was forgotten, what it cost, who did better."""

import math
from dataclasses import dataclass, field
from typing import Literal

from negmerge.report.comparison import (
    GAP_STEP,
    compare,
    erases,
    gap_to,
    holds_floor,
    is_retrain,
    label,
    main_method,
    seeds,
    subject,
)
from negmerge.report.inputs import Json
from negmerge.report.numbers import count, first_upper, listed, percent, percent_sign
from negmerge.report.scores import PASSAGE, known_rows, may_know, measure, noun, nouns, share, tested

Tone = Literal["good", "mixed", "bad"]
POINT = 1.0  # percentage points of a mean probability that are told apart
LEVEL = 0.05  # of the test whether more is known than chance explains
TONES: dict[str, Tone] = {"forgotten": "good", "suppressed": "bad", "not": "bad"}  # of the evidence; else mixed
FALLS: tuple[tuple[float, str, Tone], ...] = (  # up to which share of what was known is left
    (0.1, "knows hardly anything any more of", "good"),
    (0.5, "forgot most of", "mixed"),
    (0.9, "forgot only part of", "bad"),
)
NAMED = 3  # methods of a group that are named with their numbers; of more the table has them


@dataclass
class Verdict:
    """A headline, how the other methods compare, and the sentences with the numbers."""

    tone: Tone
    headline: str
    comparison: str = ""
    because: str = ""
    sentences: list[str] = field(default_factory=list)


def judge(results: Json) -> Verdict:
    """Return the verdict on the main method."""
    name = main_method(results)
    if name is None:
        return Verdict("bad", "No method was run, so nothing was forgotten.")
    row, base = results["methods"][name], results["base"]
    if row.get("forget") is None or row.get("retain") is None:
        return Verdict("bad", f"{label(results, name)} has no result to judge.")
    verdict = _erased(results, row, base) if erases(results) else _matched(results, row, base)
    if results.get("verdict") and (results.get("evidence") or {}).get("method") == name:
        _follow_evidence(results, row, base, verdict)
    elif verdict.tone == "good":
        verdict.tone = "mixed"  # nobody has tried to bring it back
    _compare(results, name, verdict)
    if not seeds(results):
        n = (results["task"].get("rows") or {}).get("forget")
        rows = f" ({count(n)} {nouns(results)}: one of them is {percent(100 / n)} points)" if n else ""
        verdict.sentences.append(f"This is one run with one seed{rows}; small differences may be chance.")
    return verdict


def _follow_evidence(results: Json, row: Json, base: Json, verdict: Verdict) -> None:
    """Put the verdict of the evidence in the place of what accuracies alone say, and what it rests on below."""
    found = results["verdict"]
    cost, hurt = _cost(results, row, base)
    verdict.tone = _worse(TONES.get(found["word"], "mixed"), hurt)
    verdict.headline = f"{found['text']} It {cost}."
    because = listed(found.get("because") or [])
    words = {"can't tell": "Because", "not refuted": "Because", "forgotten": "No trace was found by"}
    verdict.because = f"{words.get(found['word'], 'This shows in')} {because}."


def _erased(results: Json, row: Json, base: Json) -> Verdict:
    what, before, after = subject(results), base.get("forget"), row["forget"]
    left = after / before if before else 1.0
    tone: Tone = "good"
    if before is not None and before < 1.0:
        done, tone = f"hardly knew {what} to begin with", "mixed"
    elif left <= 0.1 and not _above_chance(results, row):
        done = f"no longer recognises {what}"
    elif left <= 0.5:
        done, tone = f"forgot most of {what}", "mixed"
    elif left <= 0.9:
        done, tone = f"forgot only part of {what}", "bad"
    else:
        done, tone = f"did not forget {what}", "bad"
    cost, hurt = _cost(results, row, base)
    turn = ", but " if hurt == (tone != "bad") or (not hurt and tone == "mixed") else " and "
    verdict = Verdict(_worse(tone, hurt), f"The model {done}{turn}{cost}.")
    verdict.sentences.append(
        share(results, f"the {nouns(results)} it was asked to forget", percent_sign(after), "now ")
        + f", before {percent_sign(before)}."
        + _unseen(results, row, base)
    )
    verdict.sentences.append(_others(results, row, base))
    return verdict


def _above_chance(results: Json, row: Json) -> bool:
    """Whether more of the request's rows are right than chance explains in a model that never saw them.

    That model is Retrain; where there is none, the bar is accuracy on unseen rows of the same kind. Of n and of m rows
    a and b are right: above chance where Fisher's exact test, P(X ≥ a) for a hypergeometric X of a + b right ones
    among n + m, is below 5 %. A mean of probabilities counts no rows: it is above chance by more than a point. False
    where there is neither, or the rows were not counted.
    """
    seen = results["task"].get("evaluated") or results["task"].get("rows") or {}
    reference = results.get("reference") or {}
    expected, n = reference.get("forget"), seen.get("forget")
    m = n  # rows that the expected share is of
    if expected is None:
        expected, m = row.get("test_forget"), seen.get("test_forget")
    if expected is None or not n or not m:
        return False
    if measure(results) != "accuracy":
        return bool(row["forget"] > expected + POINT)
    a, b = round(row["forget"] * n / 100), round(expected * m / 100)
    tail = sum(math.comb(n, k) * math.comb(m, a + b - k) for k in range(a, min(n, a + b) + 1))
    return tail < LEVEL * math.comb(n + m, a + b)


def _matched(results: Json, row: Json, base: Json) -> Verdict:
    cost, hurt = _cost(results, row, base)
    reference = results.get("reference")
    gap, before = gap_to(results, row), gap_to(results, base)
    tone: Tone
    if gap is not None and before is not None:
        if gap <= 0.5 * before:
            text, tone = f"now behaves much more like one that never saw the {nouns(results)}", "good"
        elif gap < before - GAP_STEP:
            text, tone = f"came only part of the way to one that never saw the {nouns(results)}", "mixed"
        elif gap <= before + GAP_STEP:
            text, tone = f"is no closer than before to one that never saw the {nouns(results)}", "bad"
        else:
            text, tone = f"is further than before from one that never saw the {nouns(results)}", "bad"
        said = (
            f"Its average gap to the retrained model is {percent(gap)} points; "
            f"the original model's is {percent(before)}."
        )
    else:
        text, tone, said = (_known_less if may_know(results) else _like_unseen)(results, row, base)
    verdict = Verdict(_worse(tone, hurt), f"The model {text}{', but ' if hurt else ' and '}{cost}.")
    aim = " As low as possible is not the aim: a model that never saw them would do about as well on them as on any "
    aim += f"unseen {nouns(results)}."
    target = f"; with the retrained model {percent_sign(reference['forget'])}" if reference else ""
    verdict.sentences += [
        said,
        share(results, f"the {nouns(results)} it was asked to forget", percent_sign(row["forget"]), "now ")
        + f", before {percent_sign(base.get('forget'))}{target}."
        + ("" if _knew_alike(results, base) else aim),
        _others(results, row, base),
    ]
    return verdict


def _like_unseen(results: Json, row: Json, base: Json) -> tuple[str, Tone, str]:
    """Without a retrained model: is forget accuracy now where accuracy on unseen rows is?"""
    unseen = "test" if row.get("test") is not None else "validation"
    if row.get(unseen) is None or base.get(unseen) is None or base.get("forget") is None:
        return "was changed; there is nothing to compare its forgetting with", "mixed", ""
    was, now = base["forget"] - base[unseen], row["forget"] - row[unseen]
    more, before = ("more" if one >= 0 else "less" for one in (now, was))
    said = f"It gets the chosen {nouns(results)} right {percent(abs(now))} points {more} often than unseen ones"
    if measure(results) != "accuracy":
        said = (
            f"{first_upper(known_rows(results, f'the chosen {nouns(results)}'))} have a {measure(results)} "
            f"{percent(abs(now))} points {'higher' if now >= 0 else 'lower'} than "
            f"{'unseen ones' if noun(results) == PASSAGE else 'those to unseen ones'}"
        )
        before = "higher" if was >= 0 else "lower"
    said += f"; before {percent(abs(was))} points {before}. There is no retrained model in this run to compare with."
    if results["task"].get("kind") == "rows":
        said += (
            f" So everything here supposes that the unseen {nouns(results)} are of the same kind as the chosen ones, "
            "which were not drawn at random: look whether they are."
        )
    chance = _chance(results)
    if abs(was) <= chance and abs(now) <= chance + 1e-9:
        text = (
            f"treated the chosen {nouns(results)} like unseen ones before already: {measure(results)} cannot tell "
            "what it forgot"
        )
        return text, "mixed", said
    if now < -chance and _knew_alike(results, base):
        said += f" How far forgetting should go, {nouns(results)} that the original knew as well cannot tell."
        text = f"now knows the chosen {nouns(results)} less well than held-out ones, which it knew as well before"
        return text, "mixed", said
    close = max(chance, 0.25 * abs(was))
    if abs(now) <= close:
        return f"now treats the chosen {nouns(results)} nearly like unseen ones", "good", said
    if now < 0:
        return f"forgot too much: it is worse on the chosen {nouns(results)} than on unseen ones", "mixed", said
    if now < 0.75 * was:
        return f"came only part of the way: it still knows the chosen {nouns(results)} better", "mixed", said
    return f"still knows the chosen {nouns(results)} better than unseen ones", "bad", said


def _known_less(results: Json, row: Json, base: Json) -> tuple[str, Tone, str]:
    """Without a retrained model and without unseen rows: how much less are the chosen rows known than before?"""
    what, before, after = nouns(results), base.get("forget"), row["forget"]
    said = (
        f"There is no retrained model in this run to compare with, and no {what} that the original surely never saw: "
        "those held out are of the ones to keep, and the model may know them."
    )
    if before is None or before < 1.0:
        return f"hardly knew the chosen {what} to begin with", "mixed", said
    for left, text, tone in FALLS:
        if after <= left * before:
            return f"{text} the chosen {what}", tone, said
    return f"still knows the chosen {what} about as well as before", "bad", said


def _knew_alike(results: Json, base: Json) -> bool:
    """Whether, without a retrained model, the original knew the chosen rows no better than those held out."""
    unseen = base.get("test") if base.get("test") is not None else base.get("validation")
    if results.get("reference") or may_know(results) or unseen is None or base.get("forget") is None:
        return False
    return bool(base["forget"] - unseen <= _chance(results))


def _chance(results: Json) -> float:
    """Return the points that two rows make, 1 at least."""
    n = (results["task"].get("rows") or {}).get("forget")
    return max(1.0, 200.0 / n if n else 0.0)


def _cost(results: Json, row: Json, base: Json) -> tuple[str, bool]:
    """Return what forgetting cost on the rest, and whether that was more than the floor allows."""
    before, after = base.get("retain"), row["retain"]
    if before is None:
        return f"keeps a mean {measure(results)} of {percent_sign(after)} on the rest", False
    if not holds_floor(results, row):
        how = "right" if measure(results) == "accuracy" else f"mean {measure(results)}"
        return f"damaged the rest, from {percent_sign(before)} to {percent_sign(after)} {how}", True
    if before - after <= 1.0:
        return "kept the rest", False
    return f"kept {percent_sign(100 * after / before)} of its {measure(results)} on the rest", False


def _unseen(results: Json, row: Json, base: Json) -> str:
    if row.get("test_forget") is None:
        return ""
    known = share(results, tested(results, " of the same kind"), percent_sign(row["test_forget"]))
    return f" {known}, before {percent_sign(base.get('test_forget'))}."


def _others(results: Json, row: Json, base: Json) -> str:
    text = share(results, f"the {nouns(results)} it should keep", percent_sign(row["retain"]))
    text += f" (before {percent_sign(base.get('retain'))})"
    if row.get("test") is not None:
        text += f"; on {tested(results)} {percent_sign(row['test'])} (before {percent_sign(base.get('test'))})"
    return text + "."


def _worse(tone: Tone, hurt: bool) -> Tone:
    return "bad" if hurt and tone != "good" else "mixed" if hurt else tone


def _compare(results: Json, main: str, verdict: Verdict) -> None:
    """Say which other methods did better, worse, or about the same."""
    better: list[tuple[str, str]] = []
    equal: list[tuple[str, str]] = []
    worse: list[tuple[str, str]] = []
    mine = results["methods"][main]
    for name, row in results["methods"].items():
        if name == main or is_retrain(name, row) or row.get("forget") is None or row.get("retain") is None:
            continue
        order, why = compare(results, row, mine)
        {1: better, 0: equal, -1: worse}[order].append((label(results, name), why))
    called = label(results, main)
    parts = []
    if better:
        verdict.tone = "mixed" if verdict.tone == "good" else verdict.tone
        parts.append(f"Here {_named(better)} did better than {called}.")
    if equal:
        parts.append(f"There is no clear difference between {called} and {_named(equal)}.")
    if worse:
        many = f"the other {len(worse)} methods" if parts else f"all {len(worse)} other methods"
        others = _named(worse) if len(worse) <= NAMED else many
        parts.append(f"Against {others} {called} came out ahead." if parts else f"It did better than {others}.")
    verdict.comparison = " ".join(parts)


def _named(group: list[tuple[str, str]]) -> str:
    """List methods, each with its numbers where they are few."""
    return listed([f"{name} ({why})" if len(group) <= NAMED else name for name, why in group])
