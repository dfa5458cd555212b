"""What the tests compute, by hand."""

import math

import pytest
import torch
from torch import nn

from negmerge.evidence.tests.depth import erased
from negmerge.evidence.tests.offset import Lifts, above, largest_offset, lifts_of
from negmerge.evidence.tests.quantisation import round_weights, rounded
from negmerge.evidence.tests.three_sample import features, kernel_differences, p_values


def test_what_decides_a_row_as_the_forgotten_logits_are_raised():
    logits = torch.tensor([[1.0, 3.0, 0.0], [4.0, 1.0, 2.0], [0.0, 1.0, 1.0]])
    found = lifts_of(logits, torch.tensor([1, 0, 2]), forgotten=torch.tensor([0]))
    assert found.margin.tolist() == [-2.0, 2.0, -1.0]
    assert found.inner.tolist() == [True, True, False]  # of equal logits the first counts


def test_the_largest_offset_spares_all_but_so_many_rows():
    margins = torch.tensor([-5.0, -4.0, -3.0, -2.0, -1.0, 1.0], dtype=torch.float64)
    others = Lifts(torch.tensor([True, True, True, True, True, True]), margins)
    assert largest_offset(others, 1.0) == 1.0  # none may fall: the nearest falls just above 1
    assert largest_offset(others, 20.0) == 2.0  # one of six
    assert largest_offset(others, 99.0) == math.inf
    c = largest_offset(others, 20.0)
    assert int((margins[:5] + c > 0).sum()) == 1


def test_the_share_of_other_rows_below_is_an_auc():
    rows = Lifts(torch.ones(2, dtype=torch.bool), torch.tensor([1.0, 3.0]))
    others = Lifts(torch.ones(4, dtype=torch.bool), torch.tensor([0.0, 1.0, 2.0, 3.0]))
    assert above(rows, others).tolist() == [37.5, 87.5]


def test_rounding_per_channel():
    weight = torch.tensor([[0.7, -0.34, 0.04], [70.0, 0.0, 30.0]])
    assert torch.allclose(rounded(weight, 4), torch.tensor([[0.7, -0.3, 0.0], [70.0, 0.0, 30.0]]))
    assert rounded(weight.bfloat16(), 8).dtype == torch.bfloat16
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    after = round_weights(net, "int4").state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["0.weight"]


def test_how_deep_it_is_erased():
    reference = torch.tensor([[0.0, 2.0, 2.0], [0.01, 0.02, 0.0], [1.0, 1.0, 2.0]])
    model = torch.tensor([[5.0, 1.0, 4.0], [1.0, 1.0, 1.0], [-1.0, 0.5, 0.0]])
    found = erased(reference, model)
    assert found[0] == pytest.approx((1 + 2) / 4) and found[1].isnan() and found[2] == pytest.approx(0.5 / 4)
    assert torch.equal(erased(reference, torch.zeros(3, 3))[[0, 2]], torch.zeros(2, dtype=torch.float64))
    assert torch.equal(erased(reference, reference)[[0, 2]], torch.ones(2, dtype=torch.float64))


def test_confidence_and_margin():
    found = features(torch.tensor([math.log(4.0), 0.0], dtype=torch.float64))
    assert found[0].tolist() == pytest.approx([0.25, math.log(1 / 3)]) and found[1].tolist() == [1.0, 50.0]


def test_mmd_is_the_mean_of_its_terms():
    x, y = torch.tensor([[0.0], [1.0]], dtype=torch.float64), torch.tensor([[2.0], [2.0]], dtype=torch.float64)
    terms = kernel_differences(x, y, [1.0])[0]
    k = [math.exp(-d * d / 2) for d in (0.0, 1.0, 2.0)]
    assert float(terms.mean()) == pytest.approx((k[0] + k[1]) / 2 + k[0] - 2 * (k[2] + k[1]) / 2)


def test_p_values_by_hand():
    resampled = torch.tensor([[-1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]])  # mean 3
    sure, unsure = (p_values(torch.cat([torch.tensor([[d]]), resampled], 1)) for d in (9.0, 0.0))
    assert sure == (0.1, 1.0)
    assert unsure == (0.6, 0.6)  # five of nine centred values reach 0 on either side
    assert p_values(torch.zeros(2, 10)) == (1.0, 1.0)
