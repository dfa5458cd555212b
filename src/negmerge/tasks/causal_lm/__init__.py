"""Causal language models: questions with answers, or texts, that a model is to forget or to keep."""
