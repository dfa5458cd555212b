"""A base and its members: opened, held against each other, and fitted before a number is computed."""

from negmerge.merging.pool.fitted import Pool
from negmerge.merging.pool.fitting import fit_pool
from negmerge.merging.pool.opening import open_pool

__all__ = ["Pool", "fit_pool", "open_pool"]
