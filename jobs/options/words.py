"""Options as words of a command line, for a process that is to be told the same."""

from collections.abc import Collection, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any


def words_of(options: Any, *, without: Collection[str] = ()) -> list[str]:
    """What of a dataclass of options is not as it is by default, and not among the names in `without`."""
    return [word for field in fields(options) if field.name not in without for word in _words(options, field)]


def _words(options: Any, field: "Field[Any]") -> Iterator[str]:
    value = getattr(options, field.name)
    if is_dataclass(value):
        yield from words_of(value)
    elif value != _default(field):
        yield from _flag(field.name, value)


def _default(field: "Field[Any]") -> object:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _flag(name: str, value: object) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, tuple):
        return [word for each in value for word in (flag, str(each))]
    return [flag] if value is True else [flag, str(value)]
