"""The declarative base of all rows: naming of constraints, JSON and time columns."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, MetaData, TypeDecorator
from sqlalchemy.orm import DeclarativeBase

Config = dict[str, str]
Devices = dict[str, dict[str, str]]


class UtcTime(TypeDecorator[datetime]):
    """An aware time, kept as UTC; SQLite hands back naive values, which are made aware again."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        try:
            return value.astimezone(UTC).replace(tzinfo=None)
        except OverflowError:  # the first or last day there is, in a zone of its own
            return value.replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """Root of the row classes."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {
        Config: JSON,
        Devices: JSON,
        list[str]: JSON,
        dict[str, Any]: JSON,
        list[dict[str, Any]]: JSON,
        datetime: UtcTime,
    }


def now() -> datetime:
    """Return the present time, aware, in UTC."""
    return datetime.now(UTC)
