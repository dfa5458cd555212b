"""Experiments: a checked config, the stages in their order, and the record of a run."""
