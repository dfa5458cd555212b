"""The functions of the tests that change, read or compare models, by hand and beside other libraries."""

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from negmerge.errors import InputError
from negmerge.evidence.brief_training import Way
from negmerge.evidence.features import fit_linear, held_out_right, linear_cka, pooled
from negmerge.evidence.margins import margins_of
from negmerge.evidence.tests.disagreement import divergence
from negmerge.evidence.tests.klom import klom
from negmerge.evidence.tests.pruning import pruned
from negmerge.evidence.tests.quantisation import NF4, normal_floats
from negmerge.training.adapters import AdapterSettings


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_normal_floats_by_hand():
    weight = draws(5, 31).float()  # 155 elements: two blocks of 64, one of 27
    found = normal_floats(weight).flatten()
    for i, value in enumerate(weight.flatten().tolist()):
        block = weight.flatten()[i // 64 * 64 : i // 64 * 64 + 64]
        scale = float(block.abs().max())
        nearest = min(NF4, key=lambda code: abs(code - value / scale))
        assert float(found[i]) == pytest.approx(nearest * scale, rel=1e-6)
    assert len(NF4) == 16 and sorted(NF4) == list(NF4)
    assert normal_floats(weight.bfloat16()).dtype == torch.bfloat16
    assert torch.equal(normal_floats(torch.zeros(3, 70)), torch.zeros(3, 70))
    assert torch.equal(normal_floats(normal_floats(weight)), normal_floats(weight))


def test_pruning_keeps_ties_and_never_all_goes():
    weight = torch.tensor([[1.0, -1.0, 2.0, 0.5, -3.0, 0.1]])
    assert pruned(weight, 50).tolist() == [[1.0, -1.0, 2.0, 0.0, -3.0, 0.0]]  # the third smallest equals the fourth
    assert pruned(weight, 34).tolist() == [[1.0, -1.0, 2.0, 0.0, -3.0, 0.0]]
    assert pruned(weight, 99.9).tolist() == [[0.0, 0.0, 0.0, 0.0, -3.0, 0.0]]
    assert torch.equal(pruned(torch.ones(4, 4), 50), torch.ones(4, 4))


@pytest.mark.parametrize(("n", "d"), [(60, 5), (30, 80)])
def test_a_line_is_scikit_learns(n, d):
    x, y = draws(n, d), draws(n, seed=1) > 0.2
    found = fit_linear(x, y)
    theirs = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(x.numpy(), y.numpy())
    assert found[:-1].numpy() == pytest.approx(theirs.coef_[0], abs=2e-4)
    assert float(found[-1]) == pytest.approx(theirs.intercept_[0], abs=2e-4)


def test_a_line_of_separable_rows_stays_finite():
    x = torch.cat([torch.full((20, 1), 5.0), torch.full((20, 1), -5.0)])
    y = torch.arange(40) < 20
    assert bool(fit_linear(100 * x, y).isfinite().all())
    fold = torch.arange(40) % 5
    assert bool(held_out_right(x, y, fold).all())
    random = held_out_right(draws(400, 3), draws(400, seed=2) > 0, torch.arange(400) % 5)
    assert 0.4 < float(random.double().mean()) < 0.6


def test_features_are_means_over_places_and_real_tokens():
    states = torch.arange(12.0).view(1, 3, 4)
    assert pooled(states).tolist() == [[4.0, 5.0, 6.0, 7.0]]
    assert pooled(states, torch.tensor([[True, True, False]])).tolist() == [[2.0, 3.0, 4.0, 5.0]]
    assert pooled(states.view(1, 3, 2, 2)).tolist() == [[1.5, 5.5, 9.5]]
    assert pooled(torch.ones(2, 3)).tolist() == [[1.0] * 3] * 2


def test_cka_knows_no_rotation_and_no_scale():
    x, y = draws(50, 4), draws(50, 6, seed=1)
    turned = torch.linalg.qr(draws(4, 4, seed=2)).Q
    assert linear_cka(x, 3 * x @ turned + 1) == pytest.approx(1.0)
    assert 0 < linear_cka(x, y) < 0.3
    centred = [z - z.mean(0) for z in (x, y)]
    by_columns = (centred[1].T @ centred[0]).norm() ** 2
    by_columns /= (centred[0].T @ centred[0]).norm() * (centred[1].T @ centred[1]).norm()
    assert linear_cka(x, y) == pytest.approx(float(by_columns))
    assert linear_cka(torch.ones(5, 2), torch.zeros(5, 3)) == 1.0 and linear_cka(torch.ones(50, 2), y) == 0.0


def test_divergence_by_hand():
    p, q = (torch.tensor([row]).log() for row in ([0.5, 0.25, 0.25], [0.25, 0.25, 0.5]))
    assert float(divergence(p, q)) == pytest.approx(0.5 * math.log(2) - 0.25 * math.log(2))
    assert float(divergence(p, p)) == 0.0


def test_margins_do_not_saturate():
    logits = torch.tensor([[60.0, 0.0, 0.0], [0.0, 60.0, 0.0]], dtype=torch.float64)
    assert margins_of(logits, torch.tensor([0, 0])).tolist() == pytest.approx([60 - math.log(2), -60.0])


def test_klom_by_hand():
    unlearned = torch.tensor([[0.0, 5.0], [0.0, 5.0]])
    retrained = torch.tensor([[1.0, 5.0], [0.0, 5.0]])
    small, half = 1e-5 / (1 + 19e-5), 0.5 / (1 + 18e-5)
    whole = 1 / (1 + 19e-5)
    expected = whole * math.log(whole / half) + small * math.log(small / half)
    expected += 18 * small * math.log(small / (1e-5 / (1 + 18e-5)))
    found = klom(unlearned, retrained)
    assert found[0] == pytest.approx(expected) and found[1] == 0.0
    same = draws(100, 7)
    assert klom(same, same).tolist() == [0.0] * 7
    far = klom(same + 1000, same)  # clipped at 100, so all in the last bin
    assert bool((far > 10).all()) and bool((far < math.log(1e5)).all())


@pytest.mark.heavy(10)  # importing peft takes most of it
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_only_an_adapter_is_trained(optimizer):
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimiser = Way(optimizer, AdapterSettings(r=2)).prepare(net, 0.1, 0, "relearning")
    net(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    after = net.state_dict()
    assert torch.equal(after["0.base_layer.weight"], before["0.weight"])
    assert any(bool((after[name] != 0).any()) for name in after if "lora_B" in name)
    with pytest.raises(InputError, match=r"evidence: relearning: adapter\.targets: the model has no module 'q'"):
        Way("sgd", AdapterSettings(targets=["q"])).prepare(torch.nn.Linear(2, 2), 0.1, 0, "relearning")
