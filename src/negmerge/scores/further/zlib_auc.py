"""Membership of texts: by the loss, by the bytes of the compressed text."""

from negmerge.scores.auc import auc_score

SUMMARY = "membership of texts by the loss, by the bytes of the compressed text"
SCORE = auc_score(
    "zlib", "membership_zlib_auc", "zlib AUC", "Loss by compressed length tells them from unseen", "zlib-auc"
)
