"""The WoodFisher inverse-Hessian–vector product, exact, in the memory of a few models."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

TOLERANCE = 1e-6
MOST_ITERATIONS = 100


@dataclass(frozen=True)
class Solved:
    """H⁻¹v for each parameter, the iterations it took, and the relative residual that was left."""

    vector: list[Tensor]
    iterations: int
    residual: float


def inverse_hessian_vector(
    losses: Callable[[], Iterable[Tensor]],
    parameters: Sequence[nn.Parameter],
    vector: Sequence[Tensor],
    rows: int,
    damping: float,
) -> Solved:
    """Return H⁻¹v for H = λI + GᵀG / m, the empirical Fisher matrix of m rows with damping λ.

    G is [m, n], the gradient of each row's loss. By Woodbury's identity, on which WoodFisher rests,

        H⁻¹v = (v − Gᵀz) / λ,  (mλI + GGᵀ) z = Gv

    and z [m] is found by conjugate gradients, each step of which is one product Gᵀz and one Gu over the rows: neither
    G nor the n × n matrix is ever formed. WoodFisher adds the rows one by one (rank-one updates) and arrives at the
    same vector, but has to keep m gradients.

    `losses()` yields the losses of the rows, [b] at a time, with a fresh graph to `parameters`, m = `rows` altogether;
    `vector` has a tensor for each parameter, and so has the result, in their dtypes. z is float64. It stops where the
    residual is 1e-6 of ‖Gv‖, or after min(m, 100) steps; the rest is returned. v = 0 gives 0.

    Source: Singh & Alistarh, WoodFisher, NeurIPS 2020 (arXiv 2004.14340), equations 8 to 10.
    """

    def project(direction: Sequence[Tensor]) -> Tensor:
        return torch.cat([_directional(part, parameters, direction) for part in losses()])

    def combine(weights: Tensor) -> list[Tensor]:
        total = [torch.zeros_like(parameter) for parameter in parameters]
        start = 0
        for part in losses():
            share = weights[start : start + len(part)].to(part)
            for sum_, gradient in zip(total, torch.autograd.grad((share * part).sum(), parameters), strict=True):
                sum_ += gradient
            start += len(part)
        return total

    def apply(z: Tensor) -> Tensor:
        return rows * damping * z + project(combine(z))

    z, iterations, residual = _conjugate_gradients(apply, project(vector), min(rows, MOST_ITERATIONS))
    solved = [(v - g) / damping for v, g in zip(vector, combine(z), strict=True)]
    return Solved(solved, iterations, residual)


def _directional(losses: Tensor, parameters: Sequence[nn.Parameter], direction: Sequence[Tensor]) -> Tensor:
    """Return the derivative of each loss along `direction`, float64 [b] on the CPU.

    The gradient of Σᵢ uᵢℓᵢ is linear in u: differentiating its product with the direction by u gives all gᵢ·v.
    """
    u = torch.ones_like(losses, requires_grad=True)
    gradients = torch.autograd.grad((u * losses).sum(), parameters, create_graph=True)
    product = torch.stack([(g * v).sum() for g, v in zip(gradients, direction, strict=True)]).sum()
    (along,) = torch.autograd.grad(product, u)
    return along.cpu().double()


def _conjugate_gradients(apply: Callable[[Tensor], Tensor], target: Tensor, most: int) -> tuple[Tensor, int, float]:
    """Return x with Ax = target for a symmetric positive definite A, the steps, and ‖target − Ax‖ / ‖target‖."""
    x = torch.zeros_like(target)
    rest = target.clone()
    direction = rest.clone()
    start = now = float(rest @ rest)
    steps = 0
    while now > TOLERANCE**2 * start and steps < most:
        image = apply(direction)
        length = now / float(direction @ image)
        x += length * direction
        rest -= length * image
        before, now = now, float(rest @ rest)
        direction = rest + (now / before) * direction
        steps += 1
    return x, steps, (now / start) ** 0.5 if start else 0.0
