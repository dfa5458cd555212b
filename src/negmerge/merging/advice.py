"""What a pool's agreement says of the merge to choose: one line, or nothing."""

from collections.abc import Sequence

from negmerge.merging.methods.consensus import votes_needed

# docs/choosing.md has the measurements behind each.
ALIKE = 0.65  # mean cosine of the members from which no filter was surely better than the mean
FEW = 0.02  # share of unanimous elements below which unanimity took away more than it filtered
MANY = 9  # members that are unlike each other, from which it did so as well, whatever the share
LOWER = 0.75  # the threshold that is advised then, where it lets a member disagree


def advise(cosine: Sequence[Sequence[float]], consensus: float, threshold: float = 1.0) -> str | None:
    """Return what to merge a pool by, of the cosines [N, N] of its task vectors and the share that consensus keeps.

    None where nothing measured speaks for one merge or another, and for fewer than two members. The advice against
    unanimity was measured on rows drawn at random; of a class it is the merge that loses least, and the line says so.

    >>> advise([[1.0, 0.9], [0.9, 1.0]], 0.7)
    'these members agree too well for a filter to matter (mean cosine 0.90): uniform is as good as consensus'
    """
    count = len(cosine)
    if count < 2:
        return None
    mean = sum(value for i, row in enumerate(cosine) for j, value in enumerate(row) if i != j) / (count * (count - 1))
    if mean >= ALIKE:
        return (
            f"these members agree too well for a filter to matter (mean cosine {mean:.2f}): uniform is as good as "
            "consensus"
        )
    if threshold == 1.0 and (consensus < FEW or count >= MANY):
        lower = f"a threshold of {LOWER:g}, or uniform," if votes_needed(LOWER, count) < count else "uniform"
        return (
            f"all {count} members agree on {100 * consensus:.1f} % of the elements only: for rows among others of "
            f"their kind {lower} was nearer to Retrain; for a whole class unanimity loses least"
        )
    return None
