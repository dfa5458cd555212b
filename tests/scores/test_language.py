"""Scores of language models, each against numbers worked out by hand."""

import math

import pytest
import torch

from negmerge.errors import DivergedError, InputError
from negmerge.scores import language


def bools(text):
    return torch.tensor([letter == "1" for letter in text])


@pytest.mark.parametrize(
    ("matches", "memorised", "extraction"),
    [("1111", 1.0, 1.0), ("0111", 0.75, 0.75), ("1101", 0.75, 0.25), ("1110", 0.75, 0.0), ("0000", 0.0, 0.0)],
)
def test_memorisation_and_extraction(matches, memorised, extraction):
    assert language.exact_memorisation(bools(matches)) == memorised
    assert language.extraction_strength(bools(matches)) == extraction


def test_min_k_takes_the_lowest_share_and_one_token_at_least():
    logs = -torch.arange(1.0, 11.0, dtype=torch.float64)
    assert language.min_k(logs) == (10 + 9 + 8 + 7) / 4
    assert language.min_k(logs[:2]) == 2.0 and language.min_k(logs[:1]) == 1.0


def test_truth_ratio_and_its_two_means():
    assert language.truth_ratio(2.0, [1.0, 3.0]) == 1.0
    assert math.isclose(language.truth_ratio(math.log(4), [0.0, 0.0]), 4.0)  # e^0 / e^-log 4
    ratios = torch.tensor([0.25, 4.0, 1.0, math.nan], dtype=torch.float64)
    assert language.closeness_of_truth_ratios(ratios) == 100 * (0.25 + 0.25 + 1.0) / 3
    assert language.truth_of_ratios(ratios) == 100 * 0.75 / 3
    with pytest.raises(InputError, match="needs rows with a paraphrased and a perturbed answer"):
        language.truth_of_ratios(ratios[3:])


def test_forget_quality_is_the_exact_test():
    low, high = torch.arange(4.0), torch.arange(4.0) + 10
    assert math.isclose(language.forget_quality(low, high), 2 / math.comb(8, 4))
    assert language.forget_quality(low, low) == 1.0


def test_utility_and_privleak():
    assert language.harmonic_mean([0.5, 1.0, 1.0]) == 0.75
    assert language.harmonic_mean([0.5, 0.0]) == 0.0
    assert language.privleak(100.0, 50.0) == -100.0 and language.privleak(25.0, 50.0) == 50.0
    with pytest.raises(InputError, match="Retrain tells all forget rows from unseen ones"):
        language.privleak(50.0, 100.0)


def test_a_mean_of_nothing_or_of_nan_is_refused():
    assert language.mean_percent(torch.tensor([0.25, 0.75]), "it") == 50.0
    with pytest.raises(InputError, match="it of no rows"):
        language.mean_percent(torch.empty(0), "it")
    with pytest.raises(DivergedError, match="it holds NaN"):
        language.mean_percent(torch.tensor([math.nan]), "it")
