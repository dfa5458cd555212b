"""The first question: what the model does on the very rows of the request, as accuracy tells."""

from collections.abc import Sequence

from negmerge.evidence.protocol import Found
from negmerge.evidence.scale import Reading, read_scale
from negmerge.evidence.subject import ROLES, Subject
from negmerge.evidence.verdict import Own
from negmerge.intervals import wilson

NOT_MOVED = 0.9  # of the way from Retrain to the base: where the model still is as good as there
ERASED = 0.1  # share of the base's accuracy that may be left of a class that is to be gone


def read_own_rows(subject: Subject, controls: Sequence[Subject] = ()) -> tuple[Found, Own]:
    """Return the position on the request's own rows, all of them, and what the verdict starts from.

    Held: the share that is right does not lie above Wilson's 95 % interval of Retrain's. Too low: the upper end of its
    own such interval lies below the lower end of Retrain's. Nothing to forget: the base does not lie above Retrain's
    interval either. `controls` judge further Retrains: their intervals widen that of Retrain.
    """
    rows = subject.parts["forget"]
    right = {role: subject.share_right(subject.kept(role), rows) for role in ROLES}
    reading = read_scale("own rows", right, span=100.0)
    assert reading.base is not None and reading.reference is not None and reading.model is not None
    text = (
        f"Of the request's own rows {reading.model:.1f} % are right (Retrain {reading.reference:.1f} %, the base "
        f"{reading.base:.1f} %)."
    )
    further = [float(subject.share_right(one.kept("model"), rows).mean()) for one in controls]
    return Found((reading,), text), _own(reading, further)


def _own(reading: Reading, further: Sequence[float]) -> Own:
    base, reference, model = (
        value / 100.0 for value in (reading.base or 0, reading.reference or 0, reading.model or 0)
    )
    ends = [wilson(share, reading.n) for share in (reference, *(other / 100.0 for other in further))]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    if base <= high:
        return "nothing"
    if model > high:
        return "not" if reading.high is None or reading.high >= NOT_MOVED else "partly"
    return "too far" if wilson(model, reading.n)[1] < low else "held"


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
