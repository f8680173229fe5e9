"""What is read back from files: whatever has become of them, there is a value, or one phrase on what is wrong."""

from functools import cache
from typing import TypeVar

from pydantic import JsonValue, TypeAdapter, ValidationError
from pydantic_core import from_json

Kind = TypeVar("Kind")


def read_object(text: str | bytes) -> dict[str, JsonValue]:
    """The JSON object that a text is. Raises ValueError, such as `is not valid JSON: ...`, whatever else it is."""
    try:
        value = from_json(text)
    except ValueError as error:
        raise ValueError(f"is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError("must hold a JSON object")
    return value


def read_as(kind: type[Kind], text: str | bytes) -> Kind:
    """A dataclass or model from its JSON. Raises ValueError with the first of what is wrong."""
    try:
        return _adapter(kind).validate_json(text)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from error


def first_problem(error: ValidationError) -> str:
    """`name: Field required`, out of a report of many lines."""
    detail = error.errors(include_url=False)[0]
    place = ".".join(map(str, detail["loc"]))
    return f"{place}: {detail['msg']}" if place else detail["msg"]


@cache
def _adapter(kind: type[Kind]) -> TypeAdapter[Kind]:
    return TypeAdapter(kind)
