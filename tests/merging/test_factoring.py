"""Factoring a matrix: the error that theory gives, exact and randomised."""

import pytest
import torch

from negmerge.merging import factoring
from negmerge.merging.factoring import factor


def matrix(rows, columns, seed=0):
    """A matrix with singular values 1, 1/2, 1/3, …"""
    g = torch.Generator().manual_seed(seed)
    u = torch.linalg.qr(torch.randn(rows, rows, generator=g)).Q
    v = torch.linalg.qr(torch.randn(columns, columns, generator=g)).Q
    sizes = 1 / torch.arange(1, min(rows, columns) + 1)
    return u[:, : len(sizes)] * sizes @ v[:, : len(sizes)].T, sizes


@pytest.mark.parametrize(("rows", "columns"), [(40, 30), (30, 40), (1, 9), (9, 1)])
@pytest.mark.parametrize("rank", [1, 4, 64])
def test_the_error_is_the_tail_of_the_spectrum(rows, columns, rank):
    given, sizes = matrix(rows, columns)
    found = factor(given, rank)
    assert found.left.shape == (rows, rank) and found.right.shape == (rank, columns)
    assert found.squared_error == pytest.approx(float(sizes[rank:].double().square().sum()), rel=1e-4, abs=1e-10)
    measured = float((given - found.left @ found.right).double().square().sum())
    assert found.squared_error == pytest.approx(measured, rel=1e-6, abs=1e-12)


def test_randomised_is_nearly_the_best(monkeypatch):
    given, sizes = matrix(150, 120)
    monkeypatch.setattr(factoring, "EXACT", 20)
    first, again = factor(given, 8), factor(given, 8)
    best = float(sizes[8:].double().square().sum())
    assert best * (1 - 1e-4) <= first.squared_error < 1.001 * best
    assert torch.equal(first.left, again.left) and torch.equal(first.right, again.right)


def test_a_matrix_of_low_rank_is_exact():
    given = torch.outer(torch.arange(5.0), torch.arange(7.0))
    assert factor(given, 2).squared_error < 1e-8
    assert factor(torch.zeros(4, 3), 2).squared_error == 0.0
