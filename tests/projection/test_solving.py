"""The projection of one matrix, by hand."""

import pytest
import torch

from negmerge.errors import NegmergeError
from negmerge.projection.solving import action, project, project_tied, project_tokens


def moments(inputs: torch.Tensor) -> torch.Tensor:
    wide = inputs.double()
    return wide.T @ wide / len(wide)


@pytest.fixture
def linear() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A change [4, 6], 40 forget inputs, and 3 retain inputs: fewer than dimensions."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(*size, generator=generator) for size in ((4, 6), (40, 6), (3, 6)))  # type: ignore[return-value]


def test_what_it_does_to_retain_inputs_falls_towards_rounding_as_the_strength_grows(linear):
    delta, forget, retain = linear
    left = [
        action(project(delta, moments(forget), moments(retain), strength).delta, moments(retain))
        for strength in (0.0, 1.0, 10.0, 1e3, 1e6, 1e9)
    ]
    assert left == sorted(left, reverse=True)
    assert left[0] == pytest.approx(action(delta, moments(retain)), rel=1e-3)
    assert left[-1] < 1e-8 * left[0]


def test_what_it_does_to_a_forget_input_outside_of_their_span_stays(linear):
    delta, _, retain = linear
    outside = torch.linalg.qr(retain.T, mode="complete").Q[:, 3]  # orthogonal to all retain inputs
    # Forget inputs lie in the span or orthogonal to it, so that nothing has to be given up.
    forget = torch.cat([retain, outside.repeat(20, 1)])
    found = project(delta, moments(forget), moments(retain), 1e6).delta
    torch.testing.assert_close(found @ outside.double(), (delta @ outside).double(), rtol=1e-4, atol=1e-5)
    assert (found @ retain.double().T).abs().max() < 1e-4


def test_without_strength_it_is_the_identity_up_to_epsilon(linear):
    delta, forget, retain = linear
    found = project(delta, moments(forget), moments(retain), 0.0).delta
    torch.testing.assert_close(found, delta.double(), rtol=1e-3, atol=1e-4)
    closer = project(delta, moments(forget), moments(retain), 0.0, epsilon=1e-12).delta
    torch.testing.assert_close(closer, delta.double(), rtol=1e-9, atol=1e-9)


def test_it_is_the_minimiser(linear):
    delta, forget, retain = (part.double() for part in linear)
    strength, epsilon = 3.0, 1e-5
    found = project(delta, moments(forget), moments(retain), strength).delta.requires_grad_()
    scale = moments(forget).diagonal().mean()
    loss = (
        ((found - delta) @ forget.T).square().sum() / len(forget)
        + strength * (found @ retain.T).square().sum() / len(retain)
        + epsilon * scale * found.square().sum()
    )
    loss.backward()
    assert found.grad is not None
    assert found.grad.abs().max() < 1e-10


def test_forget_inputs_of_zeros_leave_nothing_and_rounding_raises_epsilon():
    zeros = torch.zeros(2, 2)
    assert project(torch.ones(1, 2), zeros, torch.eye(2), 1.0).delta.tolist() == [[0.0, 0.0]]
    indefinite = torch.tensor([[1.0, 0.0], [0.0, -1e-4]])
    assert project(torch.ones(1, 2), torch.eye(2), indefinite, 10000.5).epsilon > 1e-5
    with pytest.raises(NegmergeError, match="far from positive definite"):
        project(torch.ones(1, 2), torch.eye(2), -torch.eye(2), 1e6)
    with pytest.raises(NegmergeError, match="NaN or Inf"):
        project(torch.ones(1, 2), torch.eye(2), torch.eye(2) * torch.nan, 1.0)


def test_tokens_are_a_diagonal_case_of_the_matrix():
    generator = torch.Generator().manual_seed(1)
    delta, forget, retain = (torch.rand(*size, generator=generator) for size in ((5, 3), (5,), (5,)))
    found = project_tokens(delta, forget, retain, 7.0)
    whole = project(delta.T, torch.diag(forget), torch.diag(retain), 7.0).delta.T
    torch.testing.assert_close(found, whole)


def test_a_tied_matrix_minimises_both_uses():
    generator = torch.Generator().manual_seed(2)
    delta = torch.randn(7, 3, generator=generator).double()
    forget, retain = (torch.randn(20, 3, generator=generator).double() for _ in range(2))
    tokens = [torch.rand(7, generator=generator).double() for _ in range(2)]
    own = [moments(forget), moments(retain)]
    found = project_tied(delta, *own, *tokens, 2.0).requires_grad_()
    loss = action_squared(found - delta, own[0], tokens[0]) + 2.0 * action_squared(found, own[1], tokens[1])
    (loss + 1e-5 * own[0].diagonal().mean() * found.square().sum()).backward()
    assert found.grad is not None
    assert found.grad.abs().max() < 1e-10


def action_squared(delta, moments, tokens):
    return ((delta @ moments) * delta).sum() + (tokens[:, None] * delta.square()).sum()
