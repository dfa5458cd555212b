"""The retain projection: a merged vector stripped, layer by layer, of what acts on retain inputs."""

from negmerge.projection.moments import MomentRows, Moments, is_current, write_moments
from negmerge.projection.projecting import Projection, ProjectionReport, project_vector
from negmerge.projection.solving import project

__all__ = [
    "MomentRows",
    "Moments",
    "Projection",
    "ProjectionReport",
    "is_current",
    "project",
    "project_vector",
    "write_moments",
]
