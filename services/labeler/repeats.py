"""Repeats in the labeling API: handed out among the others, their answers taken apart from labels.

Where an experiment asks for none (`labels.repeats` is 0), and for teachers, nothing here asks the database.
"""

from collections.abc import Callable
from datetime import datetime

from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session

from services.labeler import handles
from services.labeler.context import Context
from services.labeler.schemas import Claims, ComparisonView, Counted, OwnAnswer, PreferenceBody, Renewed
from shared import asides
from shared.asides import Terms
from shared.labels import Claimed
from shared.models import Labeler

# Comparisons that a labeler holds when a repeat comes among them: the answer to one may be on its way, one
# may be on show, and the repeat comes before the third.
IN_HAND = 3
View = Callable[[Context, Session, Claimed], ComparisonView]  # how a comparison is shown, but for its handle


async def mix_in(
    service: Context, name: str, labeler: Labeler, count: int, claims: Claims, view: View
) -> Claims:
    """Put the repeat that is due, if one is, among the comparisons that a labeler was handed."""
    if labeler.kind != "person" or not claims.comparisons:
        return claims
    terms = service.terms.get(name)
    if terms is None:
        terms = await run_in_threadpool(_look_up, service, name)
    if not terms.repeats:
        return claims
    views = [sealed(one, labeler) for one in claims.comparisons]
    found = await run_in_threadpool(_due, service, terms, claims.comparisons, labeler, view)
    if found is not None:
        again, is_held = found
        # Before the last: as long as that one waits, the batch does not end with the repeat on show.
        views = [again, *views] if is_held else [*views[:-1], again, *views[-1:]]
    return claims.model_copy(update={"comparisons": views[:count]})


def draw(service: Context, comparison_id: int, labeler: Labeler) -> None:
    """Decide whether an answer that was just taken is to be asked for once more."""
    with service.database.write() as session:
        terms = asides.terms(session, comparison_id=comparison_id)
        if terms is not None and labeler.kind == "person":
            asides.draw_repeat(session, terms, comparison_id, labeler)


def answer(service: Context, answer_id: str, body: PreferenceBody, labeler: Labeler) -> Counted:
    """Take the answer to a repeat. The round stands where it stood."""
    with service.database.write() as session:
        round_id = asides.answer_repeat(
            session, answer_id, body.comparison, labeler, body.ranks, body.seconds
        )
        given, wanted = service.tally.of(session, round_id)
        return Counted(given=given, wanted=wanted)


def renew(service: Context, comparison_id: int, labeler: Labeler) -> Renewed:
    """Keep a repeat."""
    with service.database.write() as session:
        return Renewed(expires_at=asides.renew_repeat(session, comparison_id, labeler))


def skip(service: Context, comparison_id: int, labeler: Labeler) -> None:
    """Leave a repeat out."""
    with service.database.write() as session:
        asides.skip_repeat(session, comparison_id, labeler)


def undo(service: Context, answer_id: str, labeler: Labeler, view: View) -> ComparisonView:
    """Withdraw the answer to a repeat; LabelError if there is none of this id either."""
    with service.database.write() as session:
        claimed = asides.undo_repeat(session, answer_id, labeler)
        return sealed(view(service, session, claimed), labeler, again=True)


def last_answers(
    session: Session,
    labeler: Labeler,
    first: list[tuple[datetime, OwnAnswer]],
    most: int,
    view: Callable[[Claimed], ComparisonView],
) -> list[OwnAnswer]:
    """Put a labeler's answers to repeats of a round among those in `first`, the newest first."""
    if not first or not _asks(session, first[0][1].comparison.id, labeler):
        return [own for _, own in first]
    found = [
        (at, own.model_copy(update={"comparison": sealed(own.comparison, labeler)})) for at, own in first
    ]
    for at, one, claimed in asides.last_repeats(session, first[0][1].comparison.id, labeler, most):
        ranks = None if one.ranks is None else [one.ranks[index] for index in one.shown]
        again = sealed(view(claimed), labeler, again=True)
        found.append((at, OwnAnswer(id=str(one.answer_id), ranks=ranks, comparison=again)))
    return [own for _, own in sorted(found, key=lambda one: one[0], reverse=True)][:most]


def seal(session: Session, labeler: Labeler, view: ComparisonView) -> ComparisonView:
    """Return a comparison under its handle, if the labeler knows it by one."""
    return sealed(view, labeler) if _asks(session, view.id, labeler) else view


def sealed(view: ComparisonView, labeler: Labeler, again: bool = False) -> ComparisonView:
    """Return a comparison under its handle."""
    return view.model_copy(update={"id": handles.seal(labeler.id, view.id, again)})


def _asks(session: Session, comparison_id: int, labeler: Labeler) -> bool:
    """Return whether a labeler is asked for repeats where this comparison is."""
    if labeler.kind != "person":
        return False
    terms = asides.terms(session, comparison_id=comparison_id)
    return terms is not None and terms.repeats > 0


def _due(
    service: Context, terms: Terms, held: list[ComparisonView], labeler: Labeler, view: View
) -> tuple[ComparisonView, bool] | None:
    """Return the repeat to hand out now, if there is one, and whether the labeler has it in hand already."""
    with service.database.read() as session:
        found = asides.due_repeat(session, terms, held[0].id, labeler)
        if found is None or not (found[1] or len(held) >= IN_HAND):
            return None
        claimed, is_held = found
        again = sealed(view(service, session, claimed), labeler, again=True)
    if not is_held:
        with service.database.write() as session:
            asides.hand_out_repeat(session, claimed.comparison_id, labeler)
    return again, is_held


def _look_up(service: Context, name: str) -> Terms:
    with service.database.read() as session:
        found = asides.terms(session, experiment=name)
    assert found is not None, "its comparisons were just handed out"
    return service.terms.put(name, found)
