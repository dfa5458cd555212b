"""Numbers against hand computation, scikit-learn, and the published table."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score
from sklearn.svm import SVC

from negmerge import scores
from negmerge.errors import DivergedError, InputError, NegmergeError
from negmerge.scores import average_gap, kolmogorov_smirnov
from negmerge.scores.further.loss_auc import loss_auc
from negmerge.scores.further.loss_tpr import loss_tpr
from negmerge.scores.svc import fit_svc
from negmerge.tasks.columns import COLUMNS, columns_of


def logits(count, classes=5, seed=0, strength=0.0):
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=g)
    values = torch.randn(count, classes, generator=g)
    values[torch.arange(count), labels] += strength
    return values, labels


def accuracy(values, labels):
    return scores.accuracy(columns_of(values, labels, ["correct"])["correct"])


def per_class_accuracy(values, labels, classes):
    return scores.percent_by_group(*columns_of(values, labels, ["correct", "group"]).values(), classes)


def confidence(values, labels):
    return columns_of(values, labels, ["confidence"])["confidence"]


def membership_svc_confidence(*pairs, **more):
    sure = [confidence(*pairs[i : i + 2]) for i in (0, 2, 4)]
    return scores.membership_svc(*sure, **more)


def holdout_distance(*pairs):
    return scores.holdout_distance(columns_of(*pairs[:2], COLUMNS), columns_of(*pairs[2:], COLUMNS))


def test_accuracy_is_scikit_learns():
    values, labels = logits(999, strength=1.0)
    assert accuracy(values, labels) == pytest.approx(100 * accuracy_score(labels, values.argmax(1)))
    with pytest.raises(InputError, match="accuracy of no rows"):
        accuracy(values[:0], labels[:0])


def test_per_class_accuracy_averages_to_accuracy():
    values, labels = logits(1000, strength=1.0)
    shares = per_class_accuracy(values, labels, 6)
    assert shares[5] is None
    counts = labels.bincount(minlength=5).tolist()
    assert sum(s * c for s, c in zip(shares, counts, strict=False)) / 1000 == pytest.approx(accuracy(values, labels))


def test_confidence_by_hand():
    found = confidence(torch.tensor([[0.0, np.log(3.0)]]), torch.tensor([1]))
    assert found.item() == pytest.approx(0.75)


def test_membership_is_a_direct_scikit_learn_computation():
    retain, test = logits(300, seed=1, strength=3.0), logits(300, seed=2, strength=1.0)
    forget = logits(80, seed=3, strength=2.0)
    found = membership_svc_confidence(*retain, *test, *forget)

    def feature(pair):
        values = pair[0].double().numpy()
        soft = np.exp(values) / np.exp(values).sum(1, keepdims=True)
        return soft[np.arange(len(values)), pair[1].numpy()][:, None]

    attack = SVC(C=3, gamma="auto", kernel="rbf").fit(
        np.concatenate([feature(retain), feature(test)]), np.repeat([1, 0], 300)
    )
    assert found == pytest.approx(100 * (attack.predict(feature(forget)) == 0).mean(), abs=1.3)  # order of rows differs


def test_membership_extremes_and_balance():
    seen, unseen = logits(400, seed=1, strength=12.0), logits(50, seed=2)
    assert membership_svc_confidence(*seen, *unseen, *logits(60, seed=3, strength=12.0)) < 10
    assert membership_svc_confidence(*seen, *unseen, *logits(60, seed=4, strength=-3.0)) > 90
    one, two = (membership_svc_confidence(*seen, *unseen, *logits(60, seed=5), seed=s) for s in (0, 0))
    assert one == two
    with pytest.raises(InputError, match="needs retain, test and forget rows"):
        membership_svc_confidence(*seen, *unseen, *logits(0))


# RA, FA, TA, MIA and gap, mean of three trials, as published by SalUn (arXiv 2310.12508).
PUBLISHED = {
    "fine-tune": (99.88, 99.37, 94.06, 2.70, 3.78),
    "l1-sparse": (97.74, 95.81, 91.59, 9.84, 2.26),
    "influence": (99.20, 98.93, 93.20, 2.67, 4.06),
    "random labels": (99.67, 92.39, 92.83, 37.36, 7.15),
    "SalUn": (99.62, 97.15, 93.93, 14.39, 1.15),
    "gradient ascent": (99.50, 99.31, 94.01, 1.70, 4.12),
    "boundary shrink": (98.29, 98.22, 92.69, 8.96, 2.67),
    "boundary expanding": (99.42, 99.41, 93.85, 7.47, 2.76),
    "random labels, forget only": (99.99, 99.98, 95.04, 2.15, 4.19),
    "SalUn, forget only": (99.88, 99.89, 94.42, 9.51, 2.20),
}
RETRAIN = {"retain": 100.0, "forget": 94.76, "test": 94.26, "membership": 12.88}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_gap_of_every_published_row_comes_from_its_parts(name):
    *parts, gap = PUBLISHED[name]
    found = average_gap(dict(zip(RETRAIN, parts, strict=True)), RETRAIN)
    assert found.total == pytest.approx(gap, abs=0.011)
    assert found.total == pytest.approx(sum(found.parts.values()) / 4)


def test_the_gap_names_what_is_missing():
    with pytest.raises(InputError, match=r"needs retain, forget, test, membership; the reference lacks membership"):
        average_gap(RETRAIN, {k: v for k, v in RETRAIN.items() if k != "membership"})
    assert average_gap(RETRAIN, RETRAIN).total == 0
    assert average_gap({**RETRAIN, "forget": 90.76}, RETRAIN).parts["forget"] == pytest.approx(4.0)  # either direction


def certain(probabilities):
    """Logits of two classes that give class 0 these probabilities."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    return torch.stack([p.log(), (1 - p).log()], dim=1), torch.zeros(len(p), dtype=torch.int64)


def test_membership_by_hand():
    members, others = certain([0.99] * 30), certain([0.5] * 30)
    assert membership_svc_confidence(*members, *others, *certain([0.5, 0.55, 0.6, 0.95])) == 75.0
    assert membership_svc_confidence(*members, *others, *certain([0.98, 0.99])) == 0.0


def test_membership_trains_on_equally_many_and_at_most_so_many(monkeypatch):
    seen = []

    def spy(members, others, **settings):
        seen.append((members.shape, others.shape, members.dtype, settings))
        return fit_svc(members, others, **settings)

    monkeypatch.setattr("negmerge.scores.membership.fit_svc", spy)
    sets = *logits(90, seed=1, strength=4.0), *logits(60, seed=2), *logits(5, seed=3)
    membership_svc_confidence(*sets)
    membership_svc_confidence(*sets, most=20)
    settings = {"penalty": 3.0, "gamma": 1.0}
    assert seen == [((n,), (n,), np.float64, settings) for n in (60, 20)]


def test_membership_draws_by_its_seed():
    sets = *logits(900, seed=1, strength=3.0), *logits(900, seed=2, strength=1.5), *logits(400, seed=3, strength=2.0)
    scores = [membership_svc_confidence(*sets, most=30, seed=seed) for seed in (0, 0, 1, 2)]
    assert scores[0] == scores[1] and len(set(scores)) > 1
    state = torch.random.get_rng_state()
    membership_svc_confidence(*sets, most=30)
    assert torch.equal(state, torch.random.get_rng_state())


def test_what_answers_with_nan_is_wrong():
    values = torch.tensor([[float("nan"), 1.0], [2.0, 1.0], [float("nan"), float("nan")], [float("inf"), 0.0]])
    labels = torch.zeros(4, dtype=torch.int64)
    assert accuracy(values, labels) == 50.0 and per_class_accuracy(values, labels, 2) == [50.0, None]


def test_membership_of_a_diverged_model():
    values, labels = logits(20)
    with pytest.raises(NegmergeError, match="the forget rows holds NaN or Inf: the model has diverged"):
        membership_svc_confidence(values, labels, values, labels, values * float("nan"), labels)


def test_kolmogorov_smirnov_is_scipys():
    from scipy.stats import ks_2samp

    g = torch.Generator().manual_seed(0)
    for n, m, shift in ((50, 80, 0.0), (200, 30, 1.0), (7, 7, 9.0)):
        a, b = torch.randn(n, generator=g), torch.randn(m, generator=g) + shift
        rounded = a.round(), b.round()  # with many equal values too
        for pair in ((a, b), rounded):
            expected = ks_2samp(*(part.numpy() for part in pair)).statistic
            assert kolmogorov_smirnov(*pair) == pytest.approx(expected)
    with pytest.raises(InputError, match="at least one value of each"):
        kolmogorov_smirnov(torch.ones(0), torch.ones(2))


def test_the_holdout_distance_of_probabilities_goes_by_their_means():
    losses = {"loss": torch.arange(4.0)}
    first, second = ({**losses, "confidence": torch.full((4,), p, dtype=torch.float64)} for p in (0.9, 0.3))
    assert scores.holdout_distance(first, second, "confidence") == pytest.approx(60 / 2)
    assert scores.holdout_score("confidence").needs != scores.HOLDOUT.needs


def test_the_holdout_distance_by_hand():
    sure, unsure = certain([0.9, 0.9, 0.9, 0.4]), certain([0.6, 0.6, 0.4, 0.4])
    # accuracies 75 and 50; three of four losses are below every loss of the others
    assert holdout_distance(*sure, *unsure) == pytest.approx((25 + 75) / 2)
    assert holdout_distance(*unsure, *sure) == pytest.approx(50)
    assert holdout_distance(*sure, *sure) == 0.0
    with pytest.raises(NegmergeError, match="losses of the unseen rows hold NaN or Inf"):
        holdout_distance(*sure, unsure[0] * float("nan"), unsure[1])


def test_losses_as_membership_attacks_against_counting():
    """Every pair, and every threshold, counted one by one."""
    generator = torch.Generator().manual_seed(0)
    forget = (torch.rand(37, generator=generator) * 8).round().double()  # many ties
    unseen = (torch.rand(53, generator=generator) * 10).round().double()
    pairs = [(1.0 if f < u else 0.5 if f == u else 0.0) for f in forget.tolist() for u in unseen.tolist()]
    assert loss_auc(forget, unseen) == pytest.approx(100 * sum(pairs) / len(pairs), abs=1e-12)
    assert loss_auc(unseen, unseen) == 50.0
    for rate in (0.01, 0.02, 0.1, 0.5):
        allowed = [t for t in {*unseen.tolist(), *forget.tolist()} if (unseen < t).sum() <= rate * len(unseen) + 1e-9]
        best = max(float((forget < t).double().mean()) for t in allowed if t <= unseen.max())
        assert loss_tpr(forget, unseen, rate) == pytest.approx(100 * best)


@pytest.mark.parametrize("attack", [loss_auc, loss_tpr])
def test_losses_that_cannot_be_compared(attack):
    some, none = torch.tensor([0.5], dtype=torch.float64), torch.empty(0, dtype=torch.float64)
    with pytest.raises(InputError, match="needs forget rows and unseen rows"):
        attack(none, some)
    with pytest.raises(DivergedError, match="hold NaN"):
        attack(torch.tensor([float("nan")]), some)
