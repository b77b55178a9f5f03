"""What the columns of `models.py` hold that SQLAlchemy has no type for."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect, String, TypeDecorator

from shared.states import AttemptState, ExperimentState, RoundState


class UTCDateTime(TypeDecorator[datetime]):
    """A moment in UTC; SQLite, which keeps no time zone, stores it without one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give back an aware datetime."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class State(TypeDecorator[Any]):
    """A member of one of the enumerations in `states.py`, stored as its word."""

    impl = String(20)
    cache_ok = True

    def __init__(self, members: type[RoundState] | type[AttemptState] | type[ExperimentState]) -> None:
        super().__init__()
        self.members = members

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Store the word."""
        return None if value is None else str(self.members(value))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Give back the member."""
        return None if value is None else self.members(value)
