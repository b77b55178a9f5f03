"""Friendly names for labelers who come without one."""

import random

ADJECTIVES = (
    "amber bold brave bright calm clever cosy curious eager fair fond gentle glad golden honest jolly "
    "keen kind lively lucky mellow merry mild nimble patient plucky proud quick quiet rapid shy "
    "silver sleepy steady sunny swift tidy vivid warm wise "
)
ANIMALS = (
    "badger bear beaver bee bison crane crow deer dolphin dove eagle falcon ferret finch fox gecko "
    "goose hare hedgehog heron ibex koala lark lynx marten mole moose newt otter owl panda puffin "
    "quail raven robin seal sparrow stork turtle wren "
)


def friendly_name(tried: int = 0) -> str:
    """Draw a name of two words; after a few names that were taken, with a number behind."""
    number = f" {random.randint(2, 9999)}" if tried > 3 else ""
    return f"{random.choice(ADJECTIVES.split())} {random.choice(ANIMALS.split())}{number}"
