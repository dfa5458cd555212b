"""Numbers from columns, one value for each row; pure functions, and the descriptors of what is reported."""

from negmerge.scores.accuracy import accuracy, accuracy_of, percent_by_group
from negmerge.scores.gap import Gap, average_gap
from negmerge.scores.holdout import HOLDOUT, holdout_distance, holdout_score, kolmogorov_smirnov
from negmerge.scores.loss import mean_loss, mean_loss_of
from negmerge.scores.membership import membership_svc, svc_confidence, svc_score
from negmerge.scores.score import Aim, Columns, Draw, Need, Observed, Role, Score, columns_needed

__all__ = [
    "HOLDOUT",
    "Aim",
    "Columns",
    "Draw",
    "Gap",
    "Need",
    "Observed",
    "Role",
    "Score",
    "accuracy",
    "accuracy_of",
    "average_gap",
    "columns_needed",
    "holdout_distance",
    "holdout_score",
    "kolmogorov_smirnov",
    "mean_loss",
    "mean_loss_of",
    "membership_svc",
    "percent_by_group",
    "svc_confidence",
    "svc_score",
]
