"""Run independent jobs: here, in processes of their own."""

from negmerge.execution.local import run_jobs, torch_threads

__all__ = ["run_jobs", "torch_threads"]
