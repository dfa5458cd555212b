"""What results say of their scores and rows: titles, which are in the gap, and what a row is called."""

from dataclasses import dataclass, fields

from negmerge.report.inputs import Json
from negmerge.report.numbers import first_upper


@dataclass(frozen=True)
class ScoreInfo:
    """One score as the results describe it; `shown` says whether it has a column in the tables."""

    name: str
    title: str
    about: str
    in_gap: bool = False
    shown: bool = True


PASSAGE = "passage"  # a row without a prompt
CALLED = "called non-member"  # the share of forget rows that the attack takes for unseen ones
OLD_TITLES = {"membership": CALLED}  # of results that said only what attacked

# Of results that were written before they listed their scores.
IMAGE_SCORES = (
    ScoreInfo("forget", "forget", "Forget images right", in_gap=True),
    ScoreInfo("test_forget", "forget (unseen)", "Unseen forget images right"),
    ScoreInfo("retain", "retain", "Other images right", in_gap=True),
    ScoreInfo("test", "test", "Unseen images right", in_gap=True),
    ScoreInfo("membership", CALLED, "Attack says “not in training”", in_gap=True),
)


def scores_of(results: Json) -> list[ScoreInfo]:
    """Return the scores of a run, in the order of its tables."""
    keys = [field.name for field in fields(ScoreInfo)]
    listed = [{key: one[key] for key in keys if key in one} for one in results.get("scores") or []]
    named = [{**one, "title": OLD_TITLES.get(str(one.get("title")), one.get("title"))} for one in listed]
    return [ScoreInfo(**one) for one in named] or list(IMAGE_SCORES)


def gap_names(results: Json) -> list[str]:
    """Return the names of the scores that make the average gap."""
    return [score.name for score in scores_of(results) if score.in_gap]


def noun(results: Json) -> str:
    """Return what a row is called."""
    return str(results["task"].get("noun") or "image")


def measure(results: Json) -> str:
    """Return what is measured of rows: accuracy, unless the task says otherwise."""
    return str(results["task"].get("measure") or "accuracy")


def share(results: Json, which: str, value: str, now: str = "") -> str:
    """Return the beginning of a sentence: how much a model knows of some rows, in the words of what is measured.

    >>> share({"task": {}}, "the rows", "5 %", "now "), share({"task": {"measure": "probability"}}, "the rows", "5 %")
    ('Of the rows it now gets 5 % right', 'The right answers to the rows have a mean probability of 5 %')
    """
    if measure(results) == "accuracy":
        return f"Of {which} it {now}gets {value} right"
    return f"{first_upper(known_rows(results, which))} {now}have a mean {measure(results)} of {value}"


def known_rows(results: Json, which: str) -> str:
    """Return what a probability is of: the right answers to some rows, or passages, which answer nothing, themselves.

    >>> known_rows({"task": {}}, "the rows"), known_rows({"task": {"noun": "passage"}}, "the passages")
    ('the right answers to the rows', 'the passages')
    """
    return which if noun(results) == PASSAGE else f"the right answers to {which}"


def known_of(results: Json, which: str) -> str:
    """Return what an axis says of how well some rows are known.

    >>> known_of({"task": {}}, "of what stays"), known_of({"task": {"measure": "probability"}}, "of what stays")
    ('of what stays right', 'probability of what stays')
    """
    if measure(results) == "accuracy":
        return f"{which} right"
    return f"{measure(results)} {which if which.startswith('of ') else f'of {which}'}"


@dataclass(frozen=True)
class Groups:
    """What results tell group by group: the word for a group and for several, of what the numbers are, and in words."""

    one: str
    many: str
    of: str
    told: str


def groups(results: Json) -> Groups:
    """Return what results tell group by group: accuracy of classes on test rows, unless they say which rows it is of.

    >>> groups({"task": {"noun": "text"}}).of
    'accuracy on test texts'
    >>> groups({"task": {"noun": "text", "measure": "probability", "by_group": ["retain"]}}).of
    'probability of its texts’ right answers'
    """
    what = nouns(results)
    if results["task"].get("by_group"):
        mean = f"the mean {measure(results)} of {known_rows(results, f'its {what}')}"
        of = "" if noun(results) == PASSAGE else "’ right answers"
        return Groups("group", "groups", f"{measure(results)} of its {what}{of}", mean)
    return Groups("class", "classes", f"accuracy on test {what}", f"how many of its unseen test {what} are right")


def nouns(results: Json) -> str:
    """Return what several rows are called."""
    one = noun(results)
    return f"{one[:-1]}ies" if one.endswith("y") and one[-2:-1] not in "aeiou" else f"{one}s"


def may_know(results: Json) -> bool:
    """Return whether the test rows were held out of rows that the original may know: they are not unseen."""
    return bool(results["task"].get("test_is") == "held out")


def tested(results: Json, which: str = "") -> str:
    """Return what the test rows are called; `which` stands behind their name.

    >>> tested({"task": {}}), tested({"task": {"test_is": "held out"}}, " of what stays")
    ('unseen images', 'held-out images of what stays that the model may know')
    """
    if may_know(results):
        return f"held-out {nouns(results)}{which} that the model may know"
    return f"unseen {nouns(results)}{which}"
