"""Data sources by name. A new one is a file in this package.

A source's module has `SUMMARY` (one line), `Settings` (pydantic, unknown keys are errors) and
`load(settings) -> Source`.
"""
