"""Numbers under which comparisons are handed out where some are asked twice: none of them tells which.

A comparison's own id would: asked again, it would come up again. So where an experiment asks for repeats,
people get handles instead, for first times and repeats alike: numbers from SEALED on, mixed for each labeler
in a way of their own. A handle is computed, not stored, so it holds over reloads and restarts. This hides
nothing from a program that remembers every clip it was shown; it keeps the page, and who reads along, from
noticing.
"""

import hashlib

SEALED = 1 << 30  # handles begin here; no system has as many comparisons
HALF = 15  # bits: a handle is two halves, each mixed with the other in turn
MASK = (1 << HALF) - 1
TURNS = 4


def seal(labeler_id: int, comparison_id: int, again: bool) -> int:
    """Return the handle of a comparison for a labeler, the first time or `again`."""
    left, right = divmod(2 * comparison_id + again, 1 << HALF)
    for turn in range(TURNS):
        left, right = right, left ^ _mix(labeler_id, turn, right)
    return SEALED | left << HALF | right


def opened(labeler_id: int, handle: int) -> tuple[int, bool]:
    """Return the comparison that a handle of a labeler stands for, and whether again; an id is its own."""
    if handle < SEALED:
        return handle, False
    left, right = divmod(handle - SEALED, 1 << HALF)
    for turn in reversed(range(TURNS)):
        left, right = right ^ _mix(labeler_id, turn, left), left
    comparison_id, again = divmod(left << HALF | right, 2)
    return comparison_id, bool(again)


def _mix(labeler_id: int, turn: int, half: int) -> int:
    digest = hashlib.sha256(f"{labeler_id} {turn} {half}".encode()).digest()
    return int.from_bytes(digest[:2], "big") & MASK
