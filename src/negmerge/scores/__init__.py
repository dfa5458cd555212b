"""Numbers from logits and labels; pure functions."""

from negmerge.scores.accuracy import accuracy, per_class_accuracy
from negmerge.scores.gap import Gap, average_gap
from negmerge.scores.holdout import holdout_distance, kolmogorov_smirnov
from negmerge.scores.membership import membership_svc_confidence

__all__ = [
    "Gap",
    "accuracy",
    "average_gap",
    "holdout_distance",
    "kolmogorov_smirnov",
    "membership_svc_confidence",
    "per_class_accuracy",
]
