"""What is reported of a classifier, whatever it classifies."""

from negmerge.scores import Score, accuracy_of, mean_loss_of, svc_confidence


def classification_scores(noun: str, classes: int) -> tuple[Score, ...]:
    """Return the accuracy on every part, and the membership attack; `noun` is what a row is called.

    >>> [score.name for score in classification_scores("text", 2) if score.in_gap]
    ['forget', 'retain', 'test', 'membership']
    """
    rows = f"{noun}s right"

    def part(name: str, title: str, about: str, **flags: bool) -> Score:
        return accuracy_of(name, title, about, classes=classes, **flags)

    return (
        part("forget", "forget", f"Forget {rows}", forgotten=True, in_gap=True, in_curve=True),
        part("test_forget", "forget (unseen)", f"Unseen forget {rows}", forgotten=True, in_curve=True),
        part("retain", "retain", f"Other {rows}", in_gap=True, in_curve=True),
        part("test", "test", f"Unseen {rows}", in_gap=True),
        svc_confidence(),
        mean_loss_of("retain", "retain loss", f"Loss on other {noun}s", in_curve=True),
        part("validation", "validation", f"Validation {rows}", shown=False),
        part("validation_forget", "validation, forget", f"Validation forget {rows}", forgotten=True, shown=False),
    )
