"""A matrix as the product of two thin ones: the best of a rank, or nearly the best where the matrix is large."""

from dataclasses import dataclass

import torch
from torch import Tensor

EXACT = 1024  # up to this smaller side the whole decomposition is computed
OVERSAMPLED = 16  # directions beyond the rank, and
POWERS = 4  # rounds that turn the sampled directions towards the largest singular values


@dataclass(frozen=True)
class Factors:
    """left [rows, rank] · right [rank, columns], and how far the product is from the matrix, squared."""

    left: Tensor
    right: Tensor
    squared_error: float


def factor(matrix: Tensor, rank: int) -> Factors:
    """Factor a float32 matrix [rows, columns] by truncated singular value decomposition.

        A ≈ L·R,  L = U_r·√Σ_r,  R = √Σ_r·V_rᵀ,  error ‖A − L·R‖²_F, measured

    Of a matrix whose smaller side exceeds 1,024 the r largest are found by randomised subspace iteration (4 rounds, 16
    directions more than the rank, a fixed seed). A rank beyond the smaller side is filled up with zeros.

    >>> found = factor(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), 1)
    >>> round(found.squared_error, 6)
    1.0

    Source: Eckart, Young 1936; Halko, Martinsson, Tropp, SIAM Review 2011 (arXiv 0909.4061), algorithm 4.4.
    """
    rows, columns = matrix.shape
    smaller = min(rows, columns)
    if smaller <= max(EXACT, rank + OVERSAMPLED):
        u, sizes, v = torch.linalg.svd(matrix, full_matrices=False)
    else:
        u, sizes, v = _leading(matrix, rank + OVERSAMPLED)
    used = min(rank, smaller)
    roots = sizes[:used].sqrt()
    left, right = matrix.new_zeros(rows, rank), matrix.new_zeros(rank, columns)
    left[:, :used] = u[:, :used] * roots
    right[:used] = roots[:, None] * v[:used]
    rest = matrix - left @ right
    return Factors(left, right, float(rest.double().square().sum()))


def _leading(matrix: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    start = torch.randn(matrix.shape[1], count, generator=torch.Generator().manual_seed(0))
    basis = torch.linalg.qr(matrix @ start).Q
    for _ in range(POWERS):
        basis = torch.linalg.qr(matrix.T @ basis).Q
        basis = torch.linalg.qr(matrix @ basis).Q
    u, sizes, v = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    return basis @ u, sizes, v
