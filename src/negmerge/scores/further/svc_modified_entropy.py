"""Membership by the entropy that knows the label (Song and Mittal, 2021): the published attack on one number."""

from negmerge.scores.membership import svc_score

SUMMARY = "share called non-member by the support-vector attack on the entropy that knows the label"
SCORE = svc_score("modified_entropy", "modified-entropy")
