"""Texts with one class each."""
