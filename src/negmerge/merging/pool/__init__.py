"""A base and its members: opened, held against each other, and fitted before a number is computed."""

from negmerge.merging.pool.fitted import Pool
from negmerge.merging.pool.fitting import fit_pool
from negmerge.merging.pool.opening import OpenTerms, TermFiles, open_pool, open_terms

__all__ = ["OpenTerms", "Pool", "TermFiles", "fit_pool", "open_pool", "open_terms"]
