"""How many files may be open: a pool holds every shard of every member open while it is merged."""

try:
    import resource
except ImportError:  # pragma: no cover  (Windows has no such limit)
    resource = None  # type: ignore[assignment]


def allow_open_files() -> None:
    """Raise this process's soft limit on open files to the hard one, as far as the system lets it.

    The usual soft limit, 1,024 (256 on macOS), is less than a pool of many shards; the hard one is what the
    administrator allows.
    """
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # macOS takes no unlimited soft limit
            return
