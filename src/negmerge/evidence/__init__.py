"""Tests of the claim that a model forgot: each reads on one scale, from Retrain (0) to the base (1)."""
