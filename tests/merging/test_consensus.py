"""The rules of the consensus, by hand."""

import pytest
import torch

from negmerge.errors import InputError
from negmerge.merging.inspecting import chance_level
from negmerge.merging.merger import Merger
from negmerge.merging.methods import consensus
from negmerge.merging.methods.consensus import Settings, votes_needed


def merge_with_mask(deltas, **settings):
    return consensus.merge(deltas, Settings(**settings))


def merge(deltas, **settings):
    return merge_with_mask(deltas, **settings).delta


def columns(*values):
    """Deltas [N, n] from one tuple of member values for each element."""
    return torch.tensor(values, dtype=torch.float32).T.contiguous()


def test_all_must_share_a_strict_sign():
    deltas = columns((1, 2, 3), (-1, -2, -6), (1, 2, -3), (1, 2, 0), (0, 0, 0))
    assert merge(deltas).tolist() == [2, -3, 0, 0, 0]


def test_one_member_is_its_own_task_vector():
    deltas = columns((1.5,), (-2.0,), (0.0,))
    assert merge(deltas).tolist() == [1.5, -2.0, 0.0]


@pytest.mark.parametrize(
    ("threshold", "mean", "expected"),
    [
        (0.6, "all", [0.4, -0.4, 0.0]),  # 3 of 5 agree; (1+2+3-2-2)/5
        (0.6, "agreeing", [2.0, -2.0, 0.0]),  # (1+2+3)/3
        (0.8, "all", [0.0, 0.0, 0.0]),
    ],
)
def test_partial_consensus_and_both_means(threshold, mean, expected):
    deltas = columns((1, 2, 3, -2, -2), (-1, -2, -3, 2, 2), (1, 2, 0, -2, -2))
    assert merge(deltas, threshold=threshold, mean=mean).tolist() == pytest.approx(expected)


def test_a_threshold_of_06_of_5_is_3():
    assert [votes_needed(t, 5) for t in (0.5, 0.6, 0.61, 0.8, 1.0)] == [3, 3, 4, 4, 5]
    assert votes_needed(0.7, 10) == 7


def test_a_tie_at_one_half_keeps_nothing():
    deltas = columns((5, 1, -1, -1), (5, 1, 1, -1), (1, 1, 0, 0))
    merged, kept = merge_with_mask(deltas, threshold=0.5)
    assert kept.tolist() == [False, True, True]
    assert merged.tolist() == [0, 1.5, 0.5]


def test_zero_vetoes_or_abstains():
    deltas = columns((1, 1, 1, 0), (1, 0, 0, 0), (1, 2, 0, 0), (1, -1, 0, 0), (0, 0, 0, 0))
    assert merge(deltas, zeros="veto").tolist() == [0] * 5
    # of the m non-zero members all must agree, and m must be at least half of the four
    assert merge(deltas, zeros="abstain").tolist() == [0.75, 0, 0.75, 0, 0]
    assert merge(deltas, zeros="abstain", mean="agreeing").tolist() == [1, 0, 1.5, 0, 0]


def test_abstaining_needs_half_of_the_members_rounded_up():
    deltas = columns((1, 1, 0, 0, 0), (1, 1, 1, 0, 0))
    assert merge(deltas, zeros="abstain", mean="agreeing").tolist() == [0, 1]


def test_abstaining_with_a_threshold():
    deltas = columns((1, 1, -1, 0, 0), (1, -1, -1, -1, 0))
    # m = 3 needs ⌈0.6·3⌉ = 2; m = 4 needs ⌈0.6·4⌉ = 3
    assert merge(deltas, threshold=0.6, zeros="abstain").tolist() == pytest.approx([0.2, -0.4])


def test_the_kept_count_is_of_decisions_not_of_non_zero_means():
    deltas = columns((1, 1, -2))
    merged, kept = merge_with_mask(deltas, threshold=0.6)
    assert merged.tolist() == [0.0] and kept.tolist() == [True]


def test_signs_are_counted_exactly_for_a_large_pool():
    deltas = torch.ones(301, 2)
    deltas[0, 1] = -1
    assert merge_with_mask(deltas)[1].tolist() == [True, False]
    assert merge_with_mask(deltas, threshold=300 / 301)[1].tolist() == [True, True]


def test_negative_zero_is_a_zero():
    assert merge(columns((-0.0, -1.0))).tolist() == [0]


@pytest.mark.parametrize("threshold", [0.49, 0.0, -1, 1.01, float("nan"), float("inf"), "most", "0.8", True, None])
def test_what_is_no_consensus_is_refused(threshold):
    with pytest.raises(InputError, match=r"threshold must be a number from 0\.5 to 1, got .*no consensus"):
        Merger("consensus", {"threshold": threshold})


def test_unknown_rules_are_refused():
    with pytest.raises(InputError, match="mean must be all or agreeing, got 'some'"):
        Merger("consensus", {"mean": "some"})
    with pytest.raises(InputError, match="zeros must be veto or abstain, got 'vote'"):
        Merger("consensus", {"zeros": "vote"})


@pytest.mark.parametrize(("members", "threshold"), [(1, 1.0), (3, 1.0), (9, 1.0), (5, 0.6), (4, 0.5), (5, 0.8)])
def test_chance_level_counts_all_patterns_of_signs(members, threshold):
    signs = torch.tensor([[1.0 if (p >> i) & 1 else -1.0 for i in range(members)] for p in range(2**members)]).T
    kept = merge_with_mask(signs, threshold=threshold)[1]
    assert chance_level(members, threshold) == kept.double().mean().item()
    if threshold == 1.0:
        assert chance_level(members) == 2.0 ** (1 - members)
