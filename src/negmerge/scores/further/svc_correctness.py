"""Membership by whether the model is right: the published attack on one number."""

from negmerge.scores.membership import svc_score

SUMMARY = "share called non-member by the support-vector attack on whether the model is right"
SCORE = svc_score("correct", "correctness")
