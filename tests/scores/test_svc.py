"""The support-vector machine on one feature against scikit-learn's, and the attacks that use it."""

import numpy as np
import pytest
import torch
from sklearn.svm import SVC

from negmerge import registry
from negmerge.scores import Draw, membership_svc
from negmerge.scores.plugged import ScoreFile
from negmerge.scores.svc import fit_svc
from negmerge.tasks.columns import columns_of

C = 3.0


def draws(name, n):
    """Features of n members and n others."""
    random = np.random.default_rng(n)
    return {
        "apart": lambda: (random.beta(8, 1, n), random.beta(4, 1.5, n)),
        "saturated": lambda: (1 - random.random(n) ** 8 / 2, 1 - random.random(n) ** 4),
        "alike": lambda: (random.beta(2, 2, n), random.beta(2, 2, n)),
        "separable": lambda: (np.full(n, 0.99), np.full(n, 0.3)),
        "right or wrong": lambda: ((random.random(n) < 0.99).astype(float), (random.random(n) < 0.8).astype(float)),
        "memorised": lambda: (1.0 - 1e-6 * random.random(n), random.beta(3, 0.5, n)),
        "entropies": lambda: (random.gamma(1, 0.1, n), random.gamma(1, 0.3, n)),
        "wide": lambda: (random.gamma(1, 3, n), random.gamma(2, 3, n)),
    }[name]()


def primal(machine, feature, sign):
    """The objective of a fitted scikit-learn machine, from its own kernel expansion."""
    support, dual = feature[machine.support_], machine.dual_coef_[0]
    norm = dual @ np.exp(-((support[:, None] - support[None, :]) ** 2)) @ dual
    loss = np.maximum(0.0, 1.0 - sign * machine.decision_function(feature[:, None])).sum()
    return 0.5 * norm + C * loss


@pytest.mark.parametrize("n", [1, 2, 10, 200, 1000])
@pytest.mark.parametrize(
    "name", ["apart", "saturated", "alike", "separable", "right or wrong", "memorised", "entropies", "wide"]
)
def test_it_decides_as_scikit_learns_and_its_objective_is_no_worse(name, n):
    n = min(n, 100) if name == "wide" else n  # scikit-learn needs ten seconds for a thousand
    members, others = draws(name, n)
    feature, sign = np.concatenate([members, others]), np.repeat([1.0, -1.0], n)
    machine = fit_svc(members, others, penalty=C)
    peer = SVC(C=C, gamma="auto").fit(feature[:, None], sign)
    assert machine.objective <= primal(peer, feature, sign) * (1 + 1e-9)
    # Where both sides look alike f is nearly flat, and the default tolerance of 1e-3 moves scikit-learn's boundary.
    peer = SVC(C=C, gamma="auto", tol=1e-5).fit(feature[:, None], sign)
    assert (machine.is_member(feature) == (peer.predict(feature[:, None]) > 0)).mean() >= 0.999
    norm = machine.weights @ machine.weights
    loss = np.maximum(0.0, 1.0 - sign * machine.decision(feature)).sum()
    assert machine.objective == pytest.approx(0.5 * norm + C * loss, rel=1e-9)


def test_the_rank_is_about_ten_whatever_the_rows():
    assert len(fit_svc(*draws("alike", 5000)).pivots) <= 12


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_rows_that_it_cannot_tell_apart_are_members(value):
    alike = np.full(30, value)
    machine = fit_svc(alike, alike)
    assert machine.objective == pytest.approx(2 * 30 * C) and machine.is_member(alike).all()


def test_entropies_by_hand():
    p = torch.tensor([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0]], dtype=torch.float64)
    found = columns_of(p.log(), torch.tensor([1, 0]), ["entropy", "modified_entropy"])
    entropy = -(0.7 * np.log(0.7) + 0.2 * np.log(0.2) + 0.1 * np.log(0.1))
    modified = -(0.8 * np.log(0.2) + 0.7 * np.log(0.3) + 0.1 * np.log(0.9))
    assert found["entropy"].tolist() == pytest.approx([entropy, 0.0])
    assert found["modified_entropy"].tolist() == pytest.approx([modified, 0.0])
    wrong = columns_of(p[1:].log(), torch.tensor([2]), ["modified_entropy"])["modified_entropy"]
    assert wrong.item() == pytest.approx(2 * 30 * np.log(10))  # surely another class: no logarithm below 1e-30's


@pytest.mark.parametrize("name", ["svc-correctness", "svc-entropy", "svc-modified-entropy"])
def test_each_attack_is_a_score_by_name(name):
    score = registry.read("scores", name, ScoreFile).SCORE
    assert score.attack == name and not score.in_gap
    (column,) = {need.column for need in score.needs}
    generator = torch.Generator().manual_seed(1)
    parts = {part: torch.rand(50, generator=generator).double() for part in ("retain", "test", "forget")}
    observed = {"model": {part: {column: values} for part, values in parts.items()}}
    expected = membership_svc(parts["retain"], parts["test"], parts["forget"], seed=3)
    assert score.of(observed, Draw(seed=3)) == expected
