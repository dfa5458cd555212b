"""Membership inference: does the model still give away that it has seen a row?"""

import torch
from torch import Tensor

from negmerge.errors import DivergedError, InputError


def membership_svc_confidence(
    retain_logits: Tensor,
    retain_labels: Tensor,
    test_logits: Tensor,
    test_labels: Tensor,
    forget_logits: Tensor,
    forget_labels: Tensor,
    *,
    seed: int = 0,
    most: int = 10_000,
) -> float:
    """Return the share of the forget rows that an attack calls non-members, in percent.

    The attack is a support-vector classifier (RBF kernel, C = 3, gamma "auto") on one feature, the softmax probability
    of the true label. It is fitted on retain rows as members and test rows as non-members, equally many of both:
    min(`most`, what there is), a seeded choice. The target is Retrain's value, neither 50 nor 100; near 100 where
    Retrain's is lower means over-forgetting.

    Logits [n, classes], labels int64 [n]. Raises InputError where a part has no rows, and DivergedError for logits
    with NaN or Inf.

    >>> sure, unsure = torch.tensor([[9.0, 0.0]] * 20), torch.tensor([[0.0, 0.0]] * 20)
    >>> label = torch.zeros(20, dtype=torch.int64)
    >>> membership_svc_confidence(sure, label, unsure, label, unsure, label)
    100.0

    Source: the SVC-confidence column of SalUn (arXiv 2310.12508), reused by arXiv 2410.05583.
    """
    from sklearn.svm import SVC

    members = confidence(retain_logits, retain_labels)
    others = confidence(test_logits, test_labels)
    target = confidence(forget_logits, forget_labels)
    if not (len(members) and len(others) and len(target)):
        raise InputError("the membership attack needs retain, test and forget rows; one of them is empty")
    for name, part in (("retain", members), ("test", others), ("forget", target)):
        if not part.isfinite().all():
            raise DivergedError(f"the logits of the {name} rows hold NaN or Inf: the model has diverged")
    size = min(most, len(members), len(others))
    generator = torch.Generator().manual_seed(seed)
    members, others = (part[torch.randperm(len(part), generator=generator)[:size]] for part in (members, others))
    features = torch.cat([members, others])[:, None].numpy()
    is_member = torch.cat([torch.ones(size), torch.zeros(size)]).numpy()
    attack = SVC(C=3, gamma="auto", kernel="rbf").fit(features, is_member)
    called_member = attack.predict(target[:, None].numpy())
    return 100.0 * float((called_member == 0).mean())


def confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the softmax probability of the true label of each row, float64 [n], from 0 to 1.

    >>> confidence(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
    tensor([0.5000], dtype=torch.float64)
    """
    return logits.double().softmax(1).gather(1, labels[:, None])[:, 0]
