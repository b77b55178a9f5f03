"""Comparisons handed out: to one labeler, or at once to all who ask at the same time.

What somebody holds stays theirs until the lease ends, and is given to them first. The rest is given in the
order of its numbers, each to no more labelers than it wants labels. For many who ask together we look once,
and give each others of what was found; who then lacks something still is looked for alone. On Postgres a
comparison's row is locked before it is given away, and the round's is share-locked.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from shared import label_statements as sql
from shared.jobs import seed_for
from shared.label_statements import run, to_list, to_moment
from shared.labels import Claimed, LabelError, Terms, in_turns, terms_of
from shared.models import Labeler
from shared.states import ExperimentState, RoundState

LOOKS = 10  # for comparisons that nobody else takes at the same moment; then the labeler asks again
NOBODY = 0  # no labeler's id
FRESH = 2 / 3  # of a lease: with so much left it need not begin anew


@dataclass(frozen=True)
class Wish:
    """A labeler who would like to have so many comparisons in hand."""

    labeler: Labeler
    count: int


@dataclass
class Handed:
    """What a labeler holds now, and where the experiment stands."""

    comparisons: list[Claimed]
    experiment_state: ExperimentState
    round_id: int
    round_state: RoundState
    open_from: int = 0  # the first number that was found open
    looked_at_all: bool = False  # and not only from some number on


class _Found(NamedTuple):
    """A comparison that was found open and is locked."""

    id: int
    number: int
    clip_ids: list[int]  # its own order


@dataclass
class _Desk:
    """What is known while comparisons of one round are handed out."""

    session: Session
    round_id: int
    round_number: int
    terms: Terms
    clips: dict[int, list[int]] = field(default_factory=dict)  # by comparison, in the order of what was found
    got: dict[int, list[Claimed]] = field(default_factory=lambda: defaultdict(list))  # by labeler's id
    open_from: int = 0
    looked_at_all: bool = False

    def lacking(self, wish: Wish) -> int:
        """Return how many comparisons a labeler still wishes for."""
        return wish.count - len(self.got[wish.labeler.id])


def claim(session: Session, experiment: str, labeler: Labeler, count: int, start: int = 0) -> Handed:
    """Hand out up to `count` comparisons to one labeler, as `claim_all` does."""
    return claim_all(session, experiment, [Wish(labeler, count)], start)[0]


def claim_all(session: Session, experiment: str, wishes: Sequence[Wish], start: int = 0) -> list[Handed]:
    """Hand out to each what they wish for, what they hold already first; renews leases that are a third over.

    Nobody is given a comparison that as many others hold or have answered as it wants labels. Looks from
    number `start` on, and at all of them if there are not enough. LabelError if there is no experiment of
    that name.
    """
    newest = run(session, sql.NEWEST_ROUND, name=experiment)
    if not newest:
        raise LabelError("unknown", f"there is no experiment named {experiment[:80]}")
    state, config, round_id, number, round_state = newest[0]
    states = ExperimentState(state), RoundState(round_state)
    handed: dict[int, Handed] = {}
    for turn in in_turns([wish.labeler.id for wish in wishes]):
        desk, those = _Desk(session, round_id, number, terms_of(config)), [wishes[place] for place in turn]
        if states == (ExperimentState.RUNNING, RoundState.LABELING):
            _keep_held(desk, those)
            _spread(desk, those, start)
            for wish in those:
                _look_for(desk, wish, start)
        for place, wish in zip(turn, those, strict=True):
            got, known = desk.got[wish.labeler.id], (desk.open_from, desk.looked_at_all)
            handed[place] = Handed(got, states[0], round_id, states[1], *known)
    return [handed[place] for place in range(len(wishes))]


def _keep_held(desk: _Desk, wishes: list[Wish]) -> None:
    """Let labelers have what they hold already, as far as they wish for it; renew what is a third over.

    They ask after every answer. To renew each time what they hold would be most of what Postgres has to do.
    """
    asked = [{"labeler": wish.labeler.id} for wish in wishes]
    long_enough = FRESH * desk.terms.lease_s
    rows = run(desk.session, sql.HELD, lease_s=long_enough, these=asked, round=desk.round_id)
    wished = {wish.labeler.id: wish.count for wish in wishes}
    kept, old = [], []
    for labeler_id, lease_id, is_live, is_fresh, comparison_id, clip_ids, shown, expires_at in rows:
        if is_live and wished[labeler_id] > 0:
            wished[labeler_id] -= 1
            desk.clips[comparison_id] = to_list(clip_ids)
            if is_fresh:
                kept.append((comparison_id, labeler_id, shown, expires_at))
            else:
                old.append({"lease": lease_id})
    if old:  # what another window took since then stays with that window: no row comes back
        run(desk.session, sql.LOCK_HELD, these=old)
        kept += run(desk.session, sql.RENEW, lease_s=desk.terms.lease_s, these=old)
    _note(desk, kept)


def _spread(desk: _Desk, wishes: list[Wish], start: int) -> None:
    """Look once for all who lack something, and give each others of what was found."""
    short = [wish for wish in wishes if desk.lacking(wish) > 0]
    if len(short) < 2:
        return
    found = _look(desk, sql.OPEN, NOBODY, start, sum(map(desk.lacking, short)))
    these = [{"comparison": one.id} for one in found]
    barred = {tuple(row) for row in run(desk.session, sql.BARRED, these=these)} if these else set()
    gifts = []
    for wish in short:
        fits = [one for one in found if (wish.labeler.id, one.id) not in barred]
        for one in fits[: desk.lacking(wish)]:
            found.remove(one)
            gifts.append((wish.labeler, one))
    _grant(desk, gifts)


def _look_for(desk: _Desk, wish: Wish, start: int) -> None:
    """Look for what one labeler lacks: what they have not seen; and then what they gave back."""
    everywhere = [(sql.OPEN, 0), (sql.RETURNED, 0)]
    for statement, first in [(sql.OPEN, start), *everywhere] if start else everywhere:
        for _ in range(LOOKS):
            lacking = desk.lacking(wish)
            found = _look(desk, statement, wish.labeler.id, first, lacking) if lacking > 0 else []
            if not found:
                break
            _grant(desk, [(wish.labeler, one) for one in found])


def _look(desk: _Desk, statement: sql.Statement, labeler_id: int, start: int, count: int) -> list[_Found]:
    """Find and lock up to `count` comparisons that are open to a labeler, in the order of their numbers."""
    asked: dict[str, Any] = {"labeler": labeler_id, "round": desk.round_id, "start": start, "count": count}
    rows = run(desk.session, statement, **asked)
    found = [_Found(comparison_id, number, to_list(clip_ids)) for comparison_id, number, clip_ids in rows]
    if found and statement is sql.OPEN and (desk.open_from == 0 or (start == 0 and not desk.looked_at_all)):
        desk.open_from, desk.looked_at_all = found[0].number, start == 0
    return found


def _grant(desk: _Desk, gifts: list[tuple[Labeler, _Found]]) -> None:
    """Give labelers comparisons that are locked, none of them to two."""
    desk.clips |= {one.id: one.clip_ids for _, one in gifts}
    these = [
        {"comparison": one.id, "labeler": labeler.id, "shown": _drawn(desk, labeler, one)}
        for labeler, one in gifts
    ]
    if these:
        _note(desk, run(desk.session, sql.GRANT, lease_s=desk.terms.lease_s, these=these))


def _note(desk: _Desk, rows: list[Any]) -> None:
    """Note who got what, in the order in which it was found."""
    place = {comparison_id: place for place, comparison_id in enumerate(desk.clips)}
    for comparison_id, labeler_id, shown, expires_at in sorted(rows, key=lambda row: place[row[0]]):
        clip_ids = [desk.clips[comparison_id][index] for index in to_list(shown)]
        one = Claimed(comparison_id, desk.round_id, clip_ids, to_moment(expires_at))
        desk.got[labeler_id].append(one)


def _drawn(desk: _Desk, labeler: Labeler, one: _Found) -> list[int]:
    """Draw the sides from the seed, not from the clock: the same experiment shows the same ones."""
    shown = list(range(len(one.clip_ids)))
    seed = seed_for(desk.terms.seed, "shown", desk.round_number, one.number, labeler.name)
    random.Random(seed).shuffle(shown)
    return shown
