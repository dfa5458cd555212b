"""Membership by the loss: how well a threshold on it tells forget rows from unseen ones."""

from negmerge.scores.auc import auc_score, loss_auc

__all__ = ["SCORE", "SUMMARY", "loss_auc"]

SUMMARY = "membership by the loss, over all thresholds: 50 % tells nothing, 100 % that every forget row was seen"
SCORE = auc_score("loss", "membership_loss_auc", "loss AUC", "Loss tells them from unseen", "loss-auc")
