"""The first question: what the model does on the very rows of the request, as accuracy tells."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from negmerge.evidence.protocol import Found
from negmerge.evidence.scale import Reading, Role, read_scale
from negmerge.evidence.subject import ROLES, Subject
from negmerge.evidence.verdict import Own
from negmerge.intervals import wilson
from negmerge.tasks.task import PASSAGE

NOT_MOVED = 0.9  # of the way from Retrain to the base: where the model still is as good as there
ERASED = 0.1  # share of the base's accuracy that may be left of a class that is to be gone


def read_own_rows(subject: Subject, controls: Sequence[Subject] = ()) -> tuple[Found, Own]:
    """Return the position on the request's own rows, all of them, and what the verdict starts from.

    Held: the share that is right does not lie above Wilson's 95 % interval of Retrain's. Too low: the upper end of its
    own such interval lies below the lower end of Retrain's. Nothing to forget: the base does not lie above Retrain's
    interval either. `controls` judge further Retrains: their intervals widen that of Retrain. Of a language model the
    mean probability of the answers stands in the place of the share that is right; its spread over rows is smaller than
    that of right and wrong ones, but one Retrain differs from the next by more than rows tell.
    """
    rows = subject.parts["forget"]
    known = {role: subject.known(subject.kept(role), rows) for role in ROLES}
    reading = read_scale("own rows", known, span=100.0)
    model, reference, base = (f"{float(known[role].mean()):.1f} %" for role in ("model", "reference", "base"))
    text = f"Of the request's own rows {model} are right (Retrain {reference}, the base {base})."
    if not subject.counts:
        measure = subject.task.MEASURE
        whose = "The request's own rows" if subject.task.NOUN == PASSAGE else "The answers to the request's own rows"
        text = f"{whose} have a mean {measure} of {model} (Retrain {reference}, the base "
        text += f"{base})."
    further = [one.known(one.kept("model"), rows) for one in controls]
    return Found((reading,), text), _own(reading, known, further)


def _own(reading: Reading, known: Mapping[Role, Tensor], further: Sequence[Tensor]) -> Own:
    ends = [_interval(values) for values in (known["reference"], *further)]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    if float(known["base"].mean()) / 100.0 <= high:
        return "nothing"
    if float(known["model"].mean()) / 100.0 > high:
        return "not" if reading.high is None or reading.high >= NOT_MOVED else "partly"
    return "too far" if _interval(known["model"])[1] < low else "held"


def _interval(percent: Tensor) -> tuple[float, float]:
    """Return Wilson's interval of the mean, as a share: of probabilities it is too wide rather than too narrow."""
    return wilson(float(percent.mean()) / 100.0, len(percent))


def own_without_reference(base: float, model: float, unseen: float | None, rows: tuple[int, int], erased: bool) -> Own:
    """Return the answer where there is no Retrain: from accuracies in percent, and how many rows of either kind.

    `unseen` is the judged model's accuracy on unseen rows of the same kind. `erased`: these rows' groups are to be
    gone, so at most a tenth of the accuracy of the base may be left as well. Intervals are as in `read_own_rows`.
    """
    if erased and not base:
        return "nothing"
    left = model / base if base else 1.0
    if erased and left > ERASED:
        return "not" if left >= NOT_MOVED else "partly"
    if unseen is None:
        return "held" if erased else "nothing"
    low, high = wilson(unseen / 100.0, rows[1])
    if not erased and base / 100.0 <= high:
        return "nothing"
    if model / 100.0 > high:
        return "not" if not erased and model - unseen >= NOT_MOVED * (base - unseen) else "partly"
    return "too far" if not erased and wilson(model / 100.0, rows[0])[1] < low else "held"
