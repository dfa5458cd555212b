"""Membership by the entropy of its probabilities: the published attack on one number."""

from negmerge.scores.membership import svc_score

SUMMARY = "share called non-member by the support-vector attack on the entropy of its probabilities"
SCORE = svc_score("entropy", "entropy")
