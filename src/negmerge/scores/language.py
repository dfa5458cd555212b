"""What is measured of a language model: numbers of one answer from its tokens, and scores from columns of these."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from negmerge.errors import DivergedError, InputError

LOWEST = 0.4  # share of an answer's tokens that min-k looks at


def exact_memorisation(matches: Tensor) -> float:
    """Return the share of an answer's tokens that the model would have said itself: mean(matches), from 0 to 1.

    matches: bool [T], whether the likeliest token, the true ones before it given, is the true one; T ≥ 1.

    >>> exact_memorisation(torch.tensor([True, True, False, True]))
    0.75

    Source: Tirumala et al., Memorization Without Overfitting, NeurIPS 2022 (arXiv 2205.10770).
    """
    return int(matches.sum()) / len(matches)


def extraction_strength(matches: Tensor) -> float:
    """Return 1 − k/T: the share of an answer that the model completes word for word, given all before it.

    k is the smallest start from which all T tokens match; where the last one does not, k = T, and the strength is 0.

    >>> extraction_strength(torch.tensor([True, False, True, True])), extraction_strength(torch.tensor([False]))
    (0.5, 0.0)

    Source: Carlini et al., Extracting Training Data, 2021 (arXiv 2012.07805); as a score: arXiv 2406.01983.
    """
    wrong = (~matches).nonzero()
    start = int(wrong.max()) + 1 if len(wrong) else 0
    return 1.0 - start / len(matches)


def min_k(logs: Tensor, share: float = LOWEST) -> float:
    """Return −mean of the lowest max(1, ⌊share · T⌋) of an answer's log-probabilities, float64 [T].

    With (log p − μ)/σ in the place of log p it is min-k++.

    >>> min_k(torch.tensor([-1.0, -4.0, -2.0, -3.0], dtype=torch.float64), 0.5)
    3.5

    Source: Shi et al., Detecting Pretraining Data, ICLR 2024 (arXiv 2310.16789); min-k++: arXiv 2404.02936.
    """
    count = max(1, int(share * len(logs)))
    return -float(logs.sort().values[:count].mean())


def truth_ratio(paraphrased: float, perturbed: Sequence[float]) -> float:
    """Return R = exp(−mean of the wrong answers' losses) / exp(−loss of the right one in other words).

    The losses are in nats per token. Below 1 the right answer is the likelier one; 0/0 does not occur: R is computed
    from the difference of the losses.

    >>> round(truth_ratio(1.0, [2.0, 4.0]), 4)
    0.1353

    Source: TOFU, Maini et al., COLM 2024 (arXiv 2401.06121), with the geometric mean, as its code has it.
    """
    mean = sum(perturbed) / len(perturbed)
    return float(torch.tensor(paraphrased - mean, dtype=torch.float64).exp())


def rouge_l_recall(said: str, right: str) -> float:
    """Return ROUGE-L recall: the longest common subsequence of words / the words of the right answer, from 0 to 1.

    Words are lower-cased runs of letters and digits, stemmed as TOFU does; an answer without words gives 0. Needs the
    package rouge-score.

    Source: Lin, ROUGE, 2004.
    """
    return float(_rouge_l(said, right, stem=True).recall)


def rouge_l_f1(said: str, right: str) -> float:
    """Return ROUGE-L F1, 2PR / (P + R): R as `rouge_l_recall`, P the same share of the words said; 0 without any.

    Words are not stemmed, as MUSE has it. Needs the package rouge-score.

    Source: Lin, ROUGE, 2004; MUSE (arXiv 2407.06460).
    """
    return float(_rouge_l(said, right, stem=False).fmeasure)


def _rouge_l(said: str, right: str, stem: bool) -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise InputError("ROUGE needs the package rouge-score; pip install 'negmerge[rouge]'") from None
    return RougeScorer(["rougeL"], use_stemmer=stem).score(right, said)["rougeL"]


def mean_percent(column: Tensor, what: str) -> float:
    """Return 100 · mean of a column of shares, float64 [n]. Raises InputError for no rows, DivergedError for NaN."""
    if not len(column):
        raise InputError(f"{what} of no rows is not defined; give at least one")
    if not column.isfinite().all():
        raise DivergedError(f"{what} holds NaN or Inf: the model has diverged")
    return 100.0 * float(column.double().mean())


def share_chosen(chosen: Tensor) -> float | None:
    """Return the share of rows whose right answer was chosen, in percent; None where no row has wrong answers.

    chosen: float64 [n], 1 where the right answer is the likeliest; rows without wrong ones, NaN, are left out.

    >>> share_chosen(torch.tensor([1.0, 0.0, float("nan")], dtype=torch.float64))
    50.0
    """
    known = chosen[~chosen.isnan()]
    return 100.0 * float(known.mean()) if len(known) else None


def closeness_of_truth_ratios(ratios: Tensor) -> float:
    """Return mean of min(R, 1/R), in percent, float64 [n]: 100 where right and wrong answers are as likely.

    The truth ratio of rows that are to be forgotten. Rows without other answers, NaN, are left out; there must be one.

    >>> closeness_of_truth_ratios(torch.tensor([0.5, 2.0, float("nan")], dtype=torch.float64))
    50.0
    """
    known = known_ratios(ratios)
    return 100.0 * float(torch.minimum(known, 1.0 / known).mean())


def truth_of_ratios(ratios: Tensor) -> float:
    """Return mean of max(0, 1 − R), in percent: 100 where the right answer is far likelier. Of rows that are kept.

    >>> truth_of_ratios(torch.tensor([0.5, 2.0], dtype=torch.float64))
    25.0
    """
    return 100.0 * float((1.0 - known_ratios(ratios)).clamp(min=0.0).mean())


def known_ratios(ratios: Tensor) -> Tensor:
    """Return the ratios that are known, those that are not NaN. Raises InputError where there are none."""
    known = ratios[~ratios.isnan()]
    if not len(known):
        raise InputError("the truth ratio needs rows with a paraphrased and a perturbed answer; there are none")
    return known


def has_ratios(*columns: Tensor) -> bool:
    """Return whether every column of truth ratios has one that is known."""
    return all(bool((~ratios.isnan()).any()) for ratios in columns)


def forget_quality(ratios: Tensor, reference: Tensor) -> float:
    """Return the p-value of the two-sample Kolmogorov-Smirnov test between truth ratios, float64 [n] and [m].

    Of the unlearned and of the Retrain model on the forget rows: near 1 the two can't be told apart. Exact for small
    samples; the smallest that n and m rows can give is 2 / C(n + m, n). Rows without other answers are left out.

    >>> forget_quality(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.1, 0.2, 0.3]))
    1.0
    >>> round(forget_quality(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([1.1, 1.2, 1.3])), 3)
    0.1

    Source: TOFU (arXiv 2401.06121), section 3.
    """
    from scipy.stats import ks_2samp

    first, second = known_ratios(ratios), known_ratios(reference)
    return float(ks_2samp(first.numpy(), second.numpy()).pvalue)


def harmonic_mean(shares: Sequence[float]) -> float:
    """Return n / Σ 1/x of numbers from 0 on; 0 where one of them is 0. The model utility of TOFU is one of nine.

    >>> harmonic_mean([1.0, 0.5]), harmonic_mean([1.0, 0.0])
    (0.6666666666666666, 0.0)
    """
    return 0.0 if min(shares) <= 0.0 else len(shares) / sum(1.0 / share for share in shares)


def privleak(auc: float, retrain: float) -> float:
    """Return 100 · ((1 − AUC) − (1 − AUC of Retrain)) / (1 − AUC of Retrain), AUCs in percent.

    An AUC is the chance that an unseen row scores above a forget row. 0 is right, −100 not forgotten at all, above 0
    over-forgotten. Raises InputError where Retrain's AUC is 100: nothing can then be compared.

    >>> privleak(100.0, 50.0), privleak(50.0, 50.0)
    (-100.0, 0.0)

    Source: MUSE, Shi et al., 2024 (arXiv 2407.06460), with the AUC of min-40 %.
    """
    if retrain >= 100.0:
        raise InputError("privleak: Retrain tells all forget rows from unseen ones; give unseen rows of their kind")
    return 100.0 * ((100.0 - auc) - (100.0 - retrain)) / (100.0 - retrain)
