"""The retain projection on matrices: a change of weights stripped of what acts on retain inputs, in closed form."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from negmerge.errors import NegmergeError

EPSILON = 1e-5  # of the mean diagonal of C_f
PIECE = 2**24  # elements of a change in float64 at a time: the embedding of a language model has 2^28
ATTEMPTS = 6  # ε is raised tenfold where rounding has left the matrix indefinite


@dataclass(frozen=True)
class Projected:
    """τ′, float64, and the ε that it was solved with, as a share of the mean diagonal of C_f."""

    delta: Tensor
    epsilon: float


def project(delta: Tensor, forget: Tensor, retain: Tensor, strength: float, epsilon: float = EPSILON) -> Projected:
    """Return the change τ′ that acts on forget inputs as τ does, and as little as possible on retain inputs.

        τ′ = argmin ‖(τ′ − τ)X_f‖² + λ‖τ′X_r‖² + ε‖τ′‖²  =  τ C_f (C_f + λ C_r + εI)⁻¹

    `delta` is […, out, in]; `forget` and `retain`, [in, in], are the second moments C = E[x xᵀ] of the inputs; λ is
    `strength`, ε is `epsilon` times the mean diagonal of C_f. Solved in float64 by Cholesky; where rounding in the
    moments has left no positive definite matrix, ε is raised tenfold, up to five times. λ = 0 gives τ itself on the
    span of the forget inputs, up to ε; what lies outside of it acts on no forget input and is dropped. Where no forget
    input is but zero, τ′ is 0.

    Raises NegmergeError for moments that are not finite, or far from positive definite.

    >>> one = torch.eye(2); project(torch.tensor([[2.0, 4.0]]), one, torch.diag(torch.tensor([1.0, 0.0])), 3.0).delta
    tensor([[0.5000, 4.0000]], dtype=torch.float64)

    Source: in the spirit of SAGE (arXiv 2606.18309), as a ridge regression; Hoerl, Kennard 1970.
    """
    own, other = forget.double(), retain.double()
    scale = float(own.diagonal().mean()) if own.numel() else 0.0
    if scale == 0.0:
        return Projected(torch.zeros_like(delta, dtype=torch.float64), epsilon)
    if not math.isfinite(scale) or not torch.isfinite(other).all():
        raise NegmergeError("the moments hold NaN or Inf: the model diverges on the rows they were taken from")
    system = torch.add(own, other, alpha=strength)
    factor, used = _factored(system, scale, epsilon)
    rows = delta.reshape(-1, own.shape[0])
    solved = rows.new_empty(rows.shape, dtype=torch.float64)
    for piece in _pieces(rows):
        solved[piece] = torch.cholesky_solve((rows[piece].double() @ own).T, factor).T
    return Projected(solved.reshape(delta.shape), used)


def _factored(system: Tensor, scale: float, epsilon: float) -> tuple[Tensor, float]:
    """Return the Cholesky factor of `system` + εI, and ε as a share of `scale`."""
    for attempt in range(ATTEMPTS):
        used = epsilon * 10.0**attempt
        shifted = system.clone()
        shifted.diagonal().add_(used * scale)
        factor, info = torch.linalg.cholesky_ex(shifted)
        if not int(info):
            return factor, used
    raise NegmergeError("the moments are far from positive definite; make them again with `negmerge moments`")


def project_tokens(delta: Tensor, forget: Tensor, retain: Tensor, strength: float) -> Tensor:
    """Return the projected change of an embedding, float64: its inputs are one-hot, so the moments are diagonal.

        τ′_v = τ_v · f_v / (f_v + λ r_v + ε)

    `delta` is [tokens, width], `forget` and `retain`, [tokens], are the shares f and r of each token among the inputs;
    ε is 1e-5 of their mean in f. A token that no forget row has gets 0, one that only forget rows have stays.

    >>> project_tokens(torch.ones(3, 1), torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.5, 0.0, 0.5]), 1.0).T
    tensor([[0.5000, 1.0000, 0.0000]], dtype=torch.float64)
    """
    own = forget.double()
    least = EPSILON * float(own.mean()) if own.numel() else 0.0
    below = own + strength * retain.double() + least
    return delta.double() * torch.where(below > 0, own / below.clamp(min=1e-300), 0.0)[:, None]


def project_tied(
    delta: Tensor, forget: Tensor, retain: Tensor, tokens_f: Tensor, tokens_r: Tensor, strength: float
) -> Tensor:
    """Return the projected change of a matrix [tokens, width] that embeds tokens and also tells them apart, float64.

    Both uses count, each with its own inputs (`forget`, `retain` [width, width] of the output layer, `tokens_…` the
    shares of tokens), ‖(τ′ − τ)X_f‖² + ‖(τ′ − τ)ᵀT_f‖² + λ(‖τ′X_r‖² + ‖τ′ᵀT_r‖²), so that

        (F + λR) τ′ + τ′ (C_f + λC_r + εI) = F τ + τ C_f,  F and R diagonal,

    which the eigenvectors of the second matrix solve row by row. ε as in `project`.
    """
    own, first = forget.double(), tokens_f.double()
    system = own + strength * retain.double()
    system.diagonal().add_(EPSILON * float(own.diagonal().mean()))
    values, vectors = torch.linalg.eigh(system)
    both = first + strength * tokens_r.double()
    solved = delta.new_empty(delta.shape, dtype=torch.float64)
    for piece in _pieces(delta):
        wide = delta[piece].double()
        right = (first[piece, None] * wide + wide @ own) @ vectors
        below = both[piece, None] + values.clamp(min=0.0)[None, :]
        solved[piece] = torch.where(below > 0, right / below.clamp(min=1e-300), 0.0) @ vectors.T
    return solved


def action(delta: Tensor, moments: Tensor) -> float:
    """Return √E‖τx‖², what a change [out, in] does to inputs with these moments: [in, in], or [in] where diagonal."""
    own, total = moments.double(), 0.0
    for piece in _pieces(delta):
        wide = delta[piece].double()
        total += float((wide * (wide @ own if own.dim() == 2 else wide * own)).sum())
    return math.sqrt(max(0.0, total))


def _pieces(delta: Tensor) -> Iterator[slice]:
    """Yield the rows of a matrix [out, in] in groups that are solved at a time: so many that memory is bounded."""
    step = max(1, PIECE // max(1, delta.shape[-1]))
    return (slice(start, start + step) for start in range(0, len(delta), step))
