"""Membership inference: does the model still give away that it has seen a row?"""

from dataclasses import replace

import torch
from torch import Tensor

from negmerge.errors import DivergedError, InputError
from negmerge.scores.score import Need, Score
from negmerge.scores.svc import Svc, fit_svc


def fit_attack(members: Tensor, others: Tensor, *, seed: int = 0, most: int = 10_000) -> Svc:
    """Return a support-vector classifier that tells members from others by one feature, float64 [n] and [m].

    RBF kernel with gamma = 1 (scikit-learn's "auto" for one feature) and C = 3, fitted on equally many of both:
    min(`most`, n, m), a seeded choice.
    """
    size = min(most, len(members), len(others))
    generator = torch.Generator().manual_seed(seed)
    drawn = [part[torch.randperm(len(part), generator=generator)[:size]].double().numpy() for part in (members, others)]
    return fit_svc(*drawn, penalty=3.0, gamma=1.0)


def membership_svc(members: Tensor, others: Tensor, target: Tensor, *, seed: int = 0, most: int = 10_000) -> float:
    """Return the share of the forget rows that an attack calls non-members, in percent.

    The attack is `fit_attack` on one number that the model's answer to a row gives, with retain rows as `members` and
    test rows as `others`; `target` are the forget rows. What to aim for is Retrain's value, neither 50 nor 100; near
    100 where Retrain's is lower means over-forgetting. A row at which the attack cannot decide counts as a member.

    float64 or bool [n]. Raises InputError where a part has no rows, and DivergedError for NaN or Inf.

    >>> sure, unsure = torch.full((20,), 0.99), torch.full((20,), 0.5)
    >>> membership_svc(sure, unsure, unsure)
    100.0

    Source: the five SVC attacks of SalUn (arXiv 2310.12508), of which arXiv 2410.05583 reports the confidence.
    """
    if not (len(members) and len(others) and len(target)):
        raise InputError("the membership attack needs retain, test and forget rows; one of them is empty")
    for name, part in (("retain", members), ("test", others), ("forget", target)):
        if not part.double().isfinite().all():
            raise DivergedError(f"what the attack reads of the {name} rows holds NaN or Inf: the model has diverged")
    attack = fit_attack(members, others, seed=seed, most=most)
    return 100.0 * float((~attack.is_member(target.double().numpy())).mean())


def svc_score(column: str, word: str, others: str = "test") -> Score:
    """Return the score that is the attack's on a column of retain, unseen (a part, `others`) and forget rows."""
    parts = ("retain", others, "forget")
    return Score(
        name=f"membership_{word.replace('-', '_')}",
        title=f"membership by {word.replace('-', ' ')}",
        about=f"Attack on {word.replace('-', ' ')} says “not in training”",
        needs=frozenset(Need("model", part, column) for part in parts),
        compute=lambda observed, draw: membership_svc(
            *(observed["model"][part][column] for part in parts), seed=draw.seed, most=draw.most
        ),
        aim="reference",
        attack=f"svc-{word}",
    )


def svc_confidence(others: str = "test") -> Score:
    """Return the score of the attack on the probability of the right answer, which is a part of the gap."""
    score = svc_score("confidence", "confidence", others)
    return replace(
        score, name="membership", title="called non-member", about="Attack says “not in training”", in_gap=True
    )
