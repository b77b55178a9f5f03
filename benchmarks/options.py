"""What the command lines of the benchmarks have in common."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager


def positive(text: str) -> int:
    """Read a count: a whole number from 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return number


def seeds_of(text: str) -> list[int]:
    """Read "1-30" or "4,7,9"."""
    first, dash, last = text.partition("-")
    try:
        seeds = list(range(int(first), int(last) + 1)) if dash else [int(part) for part in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds:
        raise argparse.ArgumentTypeError(f"{text!r} names no seeds: write 1-30 or 4,7,9")
    return seeds


@contextmanager
def refusing(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Say what is wrong with what the command line names, and how to use it, instead of how it was found."""
    try:
        yield
    except OSError as error:
        parser.error(f"{error.filename}: {error.strerror}")
    except ValueError as error:
        parser.error(str(error))
