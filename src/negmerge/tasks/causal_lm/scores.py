"""What is reported of a causal language model."""

from collections.abc import Callable, Collection

from torch import Tensor

from negmerge.scores import Aim, Need, Score, mean_loss_of
from negmerge.scores.language import closeness_of_truth_ratios, has_ratios, mean_percent, truth_of_ratios

PROBABILITY = "confidence"  # the column: exp(−ℓ)


def mean_of(
    name: str,
    part: str,
    column: str,
    title: str,
    about: str,
    aim: Aim,
    compute: Callable[[Tensor], float | None] | None = None,
    *,
    in_gap: bool = False,
    in_curve: bool = False,
    shown: bool = True,
) -> Score:
    """Return the score that is the mean of a column of shares on a part, in percent, or what `compute` makes of it."""
    make = compute or (lambda values: mean_percent(values, about))
    return Score(
        name=name,
        title=title,
        about=about,
        needs=frozenset({Need("model", part, column)}),
        compute=lambda observed, draw: make(observed["model"][part][column]),
        aim=aim,
        in_gap=in_gap,
        in_curve=in_curve,
        shown=shown,
    )


def language_scores(noun: str, others: Collection[str], further: Collection[str]) -> tuple[Score, ...]:
    """Return probability and extraction strength on forget and retain rows, and the probability of the other parts.

    The gap is one of probabilities alone, so what α is chosen by is not what extraction strength then tells.
    `others` are the kinds of other answers that rows have: with both of them truth ratios are reported; `further` are
    parts that are neither train nor test.

    >>> [score.name for score in language_scores("question", (), ()) if score.in_gap]
    ['forget', 'retain', 'test']
    """
    rows = "answers" if noun == "question" else f"{noun}s"
    found = [
        _probability("forget", "forget", f"Forget {rows}’ probability", "lower", in_gap=True, in_curve=True),
        _probability("test_forget", "forget (unseen)", f"Unseen forget {rows}’ probability", "lower", in_curve=True),
        _probability("retain", "retain", f"Other {rows}’ probability", "higher", in_gap=True, in_curve=True),
        _probability("test", "test", f"Unseen {rows}’ probability", "reference", in_gap=True),
    ]
    of_both: tuple[tuple[str, str, Aim], ...] = (("forget", "Forget", "lower"), ("retain", "Other", "higher"))
    for part, whose, aim in of_both:
        found += [
            mean_of(f"{part}_extraction", part, "extraction", f"{part} ES", f"{whose} {rows} completed word for word",
                    aim, in_curve=True),
            mean_of(f"{part}_memorised", part, "memorised", f"{part} EM", f"{whose} {rows}’ words predicted", aim,
                    shown=False),
        ]  # fmt: skip
    found += [
        mean_loss_of("retain", "retain loss", f"Loss on other {noun}s", in_curve=True),
        _probability("validation", "validation", f"Validation {rows}’ probability", "reference", shown=False),
        _probability(
            "validation_forget", "validation, forget", f"Validation forget {rows}’ probability", "lower", shown=False
        ),
    ]
    if "perturbed" in others and "paraphrased" in others:
        found += [
            _truth(
                "forget_truth", "forget", "forget truth", "Forget answers: right as likely as wrong", forgotten=True
            ),
            _truth("retain_truth", "retain", "retain truth", "Other answers: right likelier than wrong"),
        ]
    for part in further:
        title = part.replace("_", " ")
        column = "options" if "perturbed" in others else PROBABILITY
        found.append(mean_of(part, part, column, title, f"Probability, {title}", "higher"))
        if "perturbed" in others:
            found.append(_truth(f"{part}_truth", part, f"{title} truth", f"Right likelier than wrong, {title}"))
    return tuple(found)


def _probability(
    part: str, title: str, about: str, aim: Aim, *, in_gap: bool = False, in_curve: bool = False, shown: bool = True
) -> Score:
    return mean_of(part, part, PROBABILITY, title, about, aim, in_gap=in_gap, in_curve=in_curve, shown=shown)


def _truth(name: str, part: str, title: str, about: str, forgotten: bool = False) -> Score:
    of = closeness_of_truth_ratios if forgotten else truth_of_ratios
    return mean_of(
        name, part, "truth_ratio", title, about, "reference" if forgotten else "higher",
        lambda values: of(values) if has_ratios(values) else None, shown=False,
    )  # fmt: skip
