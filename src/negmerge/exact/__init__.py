"""Exact unlearning by merging: groups of rows as clients, whose contributions to a sum can be taken out again."""

from negmerge.exact.config import ExactConfig, load_exact
from negmerge.exact.service import Service

__all__ = ["ExactConfig", "Service", "load_exact"]
