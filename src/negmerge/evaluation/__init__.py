"""Inference over splits, then metrics."""

from negmerge.evaluation.buffers import has_statistics, recalibrate
from negmerge.evaluation.inference import predict, predict_parts
from negmerge.evaluation.negation import NegatedModel, apply_vector

__all__ = ["NegatedModel", "apply_vector", "has_statistics", "predict", "predict_parts", "recalibrate"]
