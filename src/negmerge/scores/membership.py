"""Membership inference: does the model still give away that it has seen a row?"""

import torch
from torch import Tensor

from negmerge.errors import DivergedError, InputError
from negmerge.scores.score import Need, Score


def membership_svc_confidence(
    members: Tensor, others: Tensor, target: Tensor, *, seed: int = 0, most: int = 10_000
) -> float:
    """Return the share of the forget rows that an attack calls non-members, in percent.

    The attack is a support-vector classifier (RBF kernel, C = 3, gamma "auto") on one feature, the probability that the
    model gives to the right answer. It is fitted on retain rows as `members` and on test rows as `others`, equally many
    of both: min(`most`, what there is), a seeded choice; `target` are the forget rows. What to aim for is Retrain's
    value, neither 50 nor 100; near 100 where Retrain's is lower means over-forgetting.

    Confidences from 0 to 1, float64 [n]. Raises InputError where a part has no rows, and DivergedError for NaN.

    >>> sure, unsure = torch.full((20,), 0.99), torch.full((20,), 0.5)
    >>> membership_svc_confidence(sure, unsure, unsure)
    100.0

    Source: the SVC-confidence column of SalUn (arXiv 2310.12508), reused by arXiv 2410.05583.
    """
    from sklearn.svm import SVC

    if not (len(members) and len(others) and len(target)):
        raise InputError("the membership attack needs retain, test and forget rows; one of them is empty")
    for name, part in (("retain", members), ("test", others), ("forget", target)):
        if not part.isfinite().all():
            raise DivergedError(f"the confidences of the {name} rows hold NaN or Inf: the model has diverged")
    size = min(most, len(members), len(others))
    generator = torch.Generator().manual_seed(seed)
    members, others = (part[torch.randperm(len(part), generator=generator)[:size]] for part in (members, others))
    features = torch.cat([members, others])[:, None].numpy()
    is_member = torch.cat([torch.ones(size), torch.zeros(size)]).numpy()
    attack = SVC(C=3, gamma="auto", kernel="rbf").fit(features, is_member)
    called_member = attack.predict(target[:, None].numpy())
    return 100.0 * float((called_member == 0).mean())


def svc_confidence(others: str = "test") -> Score:
    """Return the score that is the attack's, with the rows of a part, test unless given, as non-members."""
    parts = ("retain", others, "forget")
    return Score(
        name="membership",
        title="membership",
        about="Attack says “not in training”",
        needs=frozenset(Need("model", part, "confidence") for part in parts),
        compute=lambda observed, draw: membership_svc_confidence(
            *(observed["model"][part]["confidence"] for part in parts), seed=draw.seed, most=draw.most
        ),
        aim="reference",
        in_gap=True,
        attack="svc-confidence",
    )
