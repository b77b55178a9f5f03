"""A sign of life for health checks: a file whose age says when its program last went round."""

from pathlib import Path

ALIVE_S = 5.0  # between two touches of a worker; health checks allow several times as much


def touch(path: Path | None) -> None:
    """Make `path` young; nothing if none is named. A full disk is no reason to stop working."""
    if path is not None:
        try:
            path.touch()
        except OSError:
            return
