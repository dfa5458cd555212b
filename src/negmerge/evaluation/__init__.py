"""Inference over splits, then metrics."""

from negmerge.evaluation.inference import predict
from negmerge.evaluation.negation import NegatedModel, apply_vector

__all__ = ["NegatedModel", "apply_vector", "predict"]
