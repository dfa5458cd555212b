"""Merge methods on cases computed by hand, and against peft's functions where it has them."""

import math

import pytest
import torch

from negmerge.errors import InputError
from negmerge.merging.merger import Merger
from negmerge.merging.method import Place

INF = float("inf")


def merged(method, rows, seed=0, tensor="w", **settings):
    return (
        Merger(method, settings, seed).merge(torch.tensor(rows, dtype=torch.float64), place=Place(tensor))[0].tolist()
    )


CASES = [
    # two of four are kept; column 0: +3 and +2; column 1: −4 outweighs +3.5; column 2 trimmed by both
    ("ties", {"density": 0.5}, [[3.0, 3.5, 0.1, 0.2], [2.0, -4.0, 0.1, 0.3]], [2.5, -4.0, 0.0, 0.0]),
    # by count instead of mass: one vote against one is a tie, which elects nobody
    ("ties", {"density": 0.5, "elect_by": "count"}, [[3.0, 3.5, 0.1, 0.2], [2.0, -4.0, 0.1, 0.3]],
     [2.5, 0.0, 0.0, 0.0]),
    # ties at the k-th value are kept: all three 2s stay, though k = 2
    ("ties", {"density": 0.5}, [[2.0, -2.0, 2.0, 1.0]], [2.0, -2.0, 2.0, 0.0]),
    # masses that cancel elect nobody
    ("ties", {"density": 1.0}, [[1.0, 2.0], [-1.0, 2.0]], [0.0, 2.0]),
    # k is at least one
    ("ties", {"density": 0.01}, [[1.0, 5.0, 2.0]], [0.0, 5.0, 0.0]),
    # a cutoff of zero keeps all, zeros vote for nobody
    ("ties", {"density": 0.9}, [[0.0, 0.0, 3.0], [0.0, 4.0, 1.0]], [0.0, 4.0, 2.0]),
    ("majority-sign", {}, [[3.0, -1.0, 1.0], [-1.0, -3.0, -1.0], [-1.0, 5.0, 0.0]], [3.0, 5.0, 0.0]),
    ("majority-sign", {"elect_by": "count"}, [[3.0, -1.0, 1.0], [-1.0, -3.0, -1.0], [-1.0, 5.0, 0.0]],
     [-1.0, -2.0, 0.0]),
    ("magmax", {}, [[1.0, -2.0, 3.0, 0.0], [-4.0, 1.0, -3.0, 0.0]], [-4.0, -2.0, 3.0, 0.0]),
    # five elements, one outlier (γ = 0.2), two kept: 4 and 3
    ("breadcrumbs", {"density": 0.4, "gamma": 0.2}, [[9.0, -4.0, 3.0, 2.0, 1.0]], [0.0, -4.0, 3.0, 0.0, 0.0]),
    # ties at both ends are kept: 4, 4 at the upper, 2, 2 at the lower
    ("breadcrumbs", {"density": 0.4, "gamma": 0.2}, [[4.0, -4.0, 2.0, 2.0, 1.0]], [4.0, -4.0, 2.0, 2.0, 0.0]),
    # mean over both members, each with its own crumbs
    ("breadcrumbs", {"density": 0.5, "gamma": 0.0}, [[4.0, 1.0], [1.0, -6.0]], [2.0, -3.0]),
    # trimmed elements agree with nobody
    ("magnitude-consensus", {"density": 0.5}, [[3.0, 1.0, 4.0, -2.0], [1.0, 2.0, 3.0, 1.5]], [0.0, 0.0, 3.5, 0.0]),
    # … or do not vote: column 0 has one vote of two, enough
    ("magnitude-consensus", {"density": 0.5, "zeros": "abstain"}, [[3.0, 1.0, 4.0, -2.0], [1.0, 2.0, 3.0, 1.5]],
     [1.5, 1.0, 3.5, 0.0]),
    # m = 2, s² = 2, factor 1 − 2/(2·4) = 3/4; equal members keep their mean; s² = 8, m = 1, factor below 0; m = 0
    ("soft-consensus", {}, [[1.0, 2.0, 3.0, 1.0], [3.0, 2.0, -1.0, -1.0]], [1.5, 2.0, 0.0, 0.0]),
    # m = −2, s² = (1 + 0 + 1)/2 = 1, factor 1 − 1/(3·4) = 11/12; m = 1, s² = 3, factor 1 − 3/3 = 0; one member's zero
    ("soft-consensus", {}, [[-1.0, 3.0, 0.0], [-2.0, 0.0, 3.0], [-3.0, 0.0, 3.0]], [-11 / 6, 0.0, 1.5]),
    # one member is its own mean
    ("soft-consensus", {}, [[1.5, -2.0, 0.0]], [1.5, -2.0, 0.0]),
    # s²/(N·m²) has no unit: squares of such weights would underflow
    ("soft-consensus", {}, [[1e-200, 3e-200], [1e-200, 1e-200]], [1e-200, 1.5e-200]),
    # the middle of three, the mean of the two middle ones of four, whatever the ends; zeros and ties are values
    ("median", {}, [[1.0, -9.0, 0.0], [2.0, 5.0, 0.0], [100.0, 1.0, -3.0]], [2.0, 1.0, 0.0]),
    ("median", {}, [[1.0, 0.0], [3.0, 4.0], [-50.0, 4.0], [2.0, 7.0]], [1.5, 4.0]),
    # k = ⌊0.2 · 5⌋ = 1 at either end; ⌊0.2 · 4⌋ = 0 is the mean; ⌊0.4 · 5⌋ = 2 the median
    ("trimmed-mean", {}, [[1.0], [2.0], [6.0], [-90.0], [90.0]], [3.0]),
    ("trimmed-mean", {}, [[1.0], [2.0], [6.0], [-5.0]], [1.0]),
    ("trimmed-mean", {"trim": 0.4}, [[1.0], [2.0], [6.0], [-90.0], [90.0]], [2.0]),
    ("trimmed-mean", {"trim": 0.3}, [[float(i)] for i in (0, 1, 2, 3, 4, 5, 6, 7, 8, 99)], [4.5]),
    ("task-arithmetic", {"weights": [0.5, -1.0]}, [[2.0, 4.0], [1.0, 0.0]], [0.0, 2.0]),
]  # fmt: skip


@pytest.mark.parametrize(("method", "settings", "rows", "expected"), CASES)
def test_by_hand(method, settings, rows, expected):
    assert merged(method, rows, **settings) == expected


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("ties", {"density": 0.0}, "density must be a number above 0 and at most 1, got 0.0"),
        ("ties", {"density": 1.5}, "density must be a number above 0"),
        ("ties", {"density": True}, "density must be a number above 0"),
        ("ties", {"scope": "layer"}, "scope must be tensor or model, got 'layer'"),
        ("ties", {"elect_by": "vote"}, "elect_by must be mass or count, got 'vote'"),
        ("majority-sign", {"elect_by": 1}, "elect_by must be mass or count"),
        ("breadcrumbs", {"gamma": 1.0}, "gamma must be a number from 0 to below 1, got 1.0"),
        ("breadcrumbs", {"density": "x"}, "density must be a number above 0"),
        ("dare", {"density": INF}, "density must be a number above 0"),
        ("trimmed-mean", {"trim": 0.5}, "trim must be a number from 0 to below 0.5, got 0.5"),
        ("median", {"trim": 0.1}, "does not take 'trim'"),
        ("dare", {"mean": "some"}, "mean must be all or elected"),
        ("dare", {"rescale": "yes"}, "rescale must be true or false"),
        ("magnitude-consensus", {"threshold": 0.4}, "threshold must be a number from 0.5 to 1"),
        ("random-mask", {"scope": 3}, "scope must be tensor or model"),
        ("random-mask", {"zeros": "keep"}, "zeros must be veto or abstain"),
        ("chance-intersection", {"threshold": 2}, "threshold must be a number from 0.5 to 1"),
        ("shuffled-signs", {"mean": "some"}, "mean must be all or agreeing"),
        ("task-arithmetic", {"weights": [1.0, INF]}, "weights must be a list of finite numbers, got inf in place 2"),
        ("task-arithmetic", {"weights": 3}, "weights must be a list"),
        ("task-arithmetic", {"weights": [1.0, "a"]}, "weights must be a list of finite numbers, got 'a' in place 2"),
        ("ties", {"densty": 0.2}, "does not take 'densty'.*density"),
        ("uniform", {"density": 0.2}, "does not take 'density'"),
        ("ties", {"statistic": 3}, "does not take 'statistic'"),
        ("dare", {"place": 3}, "does not take 'place'"),
        ("ties", {"density[(]": 0.2}, "is not a regular expression"),
        ("ties", {"scope[w]": "model"}, "scope holds for all tensors"),
        ("ties", {"scope": "model", "density[w]": 0.1}, "with scope=model the settings hold for all tensors"),
        ("ties", {"density[w]": 0.0}, r"density\[w\] must be a number above 0"),
    ],
)
def test_what_a_method_refuses(method, settings, message):
    with pytest.raises(InputError, match=message):
        Merger(method, settings)


def many(members=3, count=20_000, seed=5):
    return torch.randn(members, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_ties_equals_peft():
    functions = pytest.importorskip("peft.utils.merge_utils")
    deltas = many(5, 3001)
    for density in (0.1, 0.2, 0.5):
        for ours, theirs in (("mass", "total"), ("count", "frequency")):
            expected = functions.ties(list(deltas), torch.ones(5, dtype=torch.float64), density, theirs)
            found = Merger("ties", {"density": density, "elect_by": ours}).merge(deltas)[0]
            if ours == "count":  # a tie of votes elects plus there, nobody here
                kept = deltas.abs() >= deltas.abs().sort(1, descending=True).values[:, [int(density * 3001) - 1]]
                decided = torch.where(kept, deltas.sign(), 0.0).sum(0) != 0
                found, expected = found[decided], expected[decided]
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.filterwarnings("ignore:The density")
def test_majority_sign_equals_peft_without_trimming():
    functions = pytest.importorskip("peft.utils.merge_utils")
    deltas = many(4)
    expected = functions.ties(list(deltas), torch.ones(4, dtype=torch.float64), 1.0)
    torch.testing.assert_close(Merger("majority-sign", {}).merge(deltas)[0], expected, rtol=1e-12, atol=1e-14)


def test_weighted_sum_equals_peft():
    functions = pytest.importorskip("peft.utils.merge_utils")
    deltas, weights = many(3), [0.3, -1.2, 2.0]
    expected = functions.task_arithmetic(list(deltas), torch.tensor(weights, dtype=torch.float64))
    torch.testing.assert_close(Merger("task-arithmetic", {"weights": weights}).merge(deltas)[0], expected)


@pytest.mark.parametrize(("mean", "function"), [("all", "dare_linear"), ("elected", "dare_ties")])
def test_dare_has_the_distribution_of_peft(mean, function):
    functions = pytest.importorskip("peft.utils.merge_utils")
    row = torch.tensor([1.0, -0.5, 2.0])
    deltas = row[:, None].repeat(1, 40_000)
    torch.manual_seed(0)
    theirs = getattr(functions, function)(list(deltas), torch.ones(3), 0.4)
    if mean == "all":
        theirs = theirs / 3  # a sum there, a mean here
    ours = Merger("dare", {"density": 0.4, "mean": mean}).merge(deltas)[0]
    values = sorted({round(v, 4) for v in (*theirs.tolist(), *ours.tolist())})
    for value in values:  # the same values, as often: within four standard errors of a difference of two shares
        a, b = (float(((x - value).abs() < 1e-3).double().mean()) for x in (theirs, ours))
        assert abs(a - b) < 4 * math.sqrt(2 * max(a, b) / 40_000), value


def test_dare_keeps_the_mean_and_the_density():
    deltas = torch.full((1, 100_000), 3.0)
    found, kept = Merger("dare", {"density": 0.3}).merge(deltas)
    assert abs(kept / 100_000 - 0.3) < 0.006 and abs(float(found.mean()) - 3.0) < 0.06
    plain, _ = Merger("dare", {"density": 0.3, "rescale": False}).merge(deltas)
    assert plain.unique().tolist() == [0.0, 3.0]
    torch.testing.assert_close(found * 0.3, plain)


def test_members_are_dropped_independently():
    deltas = torch.eye(2).repeat_interleave(50_000, dim=1) * 0 + torch.tensor([[1.0], [10.0]])
    found = Merger("dare", {"density": 0.5, "rescale": False}).merge(deltas)[0]
    shares = [float((found == value).double().mean()) for value in (0.0, 0.5, 5.0, 5.5)]
    assert all(abs(share - 0.25) < 0.01 for share in shares)


def test_the_random_mask_has_the_density_of_the_consensus():
    deltas = many(3)
    _, wanted = Merger("consensus", {}).merge(deltas)
    found, kept = Merger("random-mask", {}, seed=1).merge(deltas, place=Place("w"))
    assert abs(kept - wanted) < 4 * math.sqrt(wanted)
    mean = deltas.mean(0)
    torch.testing.assert_close(found[found != 0], mean[found != 0])


def test_the_intersection_by_chance_keeps_what_coins_keep():
    for members in (2, 4, 6):
        _, kept = Merger("chance-intersection", {}).merge(torch.ones(members, 100_000))
        share = 2.0 ** (1 - members)
        assert abs(kept / 100_000 - share) < 4 * math.sqrt(share / 100_000)


def test_shuffled_signs_keep_elements_and_magnitudes():
    deltas = many(2)
    consensus, _ = Merger("consensus", {}).merge(deltas)
    found, _ = Merger("shuffled-signs", {}, seed=2).merge(deltas)
    assert torch.equal(found.abs(), consensus.abs())
    flipped = float((found[consensus != 0] != consensus[consensus != 0]).double().mean())
    assert abs(flipped - 0.5) < 0.03


def test_the_soft_consensus_of_two_keeps_what_the_consensus_keeps():
    deltas = many(2)  # 1 − s²/(2m²) = 1 − (a − b)²/(a + b)², above 0 where a·b is
    soft, strict = (Merger(name, {}).merge(deltas) for name in ("soft-consensus", "consensus"))
    assert soft[1] == strict[1] and torch.equal(soft[0] != 0, strict[0] != 0)


def test_the_soft_consensus_lies_between_nothing_and_the_mean():
    deltas = many(5)
    found, kept = Merger("soft-consensus", {}).merge(deltas)
    mean = deltas.mean(0)
    factor = (1 - deltas.var(0, correction=1) / (5 * mean.square())).clamp(min=0)
    torch.testing.assert_close(found, mean * factor)
    assert kept == int((found != 0).sum()) and 0.2 < kept / 20_000 < 0.6
