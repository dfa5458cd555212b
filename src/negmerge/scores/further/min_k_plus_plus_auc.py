"""Membership of texts: by their lowest 40 % log-probabilities, each against the vocabulary's."""

from negmerge.scores.auc import auc_score

SUMMARY = "membership of texts by their lowest 40 % log-probabilities, each against the vocabulary's"
SCORE = auc_score(
    "min_k_plus_plus",
    "membership_min_k_plus_plus_auc",
    "min-k++ AUC",
    "Unlikeliest words, normalised, tell them from unseen",
    "min-k-plus-plus-auc",
)
