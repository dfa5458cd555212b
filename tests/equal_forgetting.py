"""What vectors cost other rows, read where they have forgotten as much as each other."""

from negmerge.selection.negated_model import NegatedModel


def retain_loss(task, parts, base, vector, known, step=0.05, most=120):
    """Return the mean loss on retain rows at the first α where at most a share `known` of the request is recognised,
    and the base's."""
    rows = {name: parts[name] for name in ("forget", "retain")}
    columns = {part: ["correct", "loss"] for part in rows}
    negated = NegatedModel(task.open(base), vector, base)
    start = float(task.observe(negated.model, rows, columns)["retain"]["loss"].mean())
    for k in range(1, most):
        seen = task.observe(negated.set_alpha(step * k), rows, columns)
        if seen["forget"]["correct"].double().mean() <= known:
            return float(seen["retain"]["loss"].mean()), start
    raise AssertionError("it does not forget")
