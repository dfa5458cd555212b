"""Membership of texts: by the mean of their lowest 40 % log-probabilities."""

from negmerge.scores.auc import auc_score

SUMMARY = "membership of texts by the mean of their lowest 40 % log-probabilities"
SCORE = auc_score(
    "min_k", "membership_min_k_auc", "min-k AUC", "Their unlikeliest words tell them from unseen", "min-k-auc"
)
