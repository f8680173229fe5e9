"""Schemas as a README has them in a table, and as types have them."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

FIELD = re.compile(r"`(\w+)`(\??) (string|integer|number|boolean|object|array)")
Fields = dict[str, tuple[str, bool]]  # each with its JSON type, and whether it is always there


def written(path: Path) -> dict[str, Fields]:
    """By kind of line, what the rows of the table say whose first column are kinds and whose second are fields."""
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (`\w+`\??.*?) \|", path.read_text(), re.M)
    found: dict[str, Fields] = {}
    for kinds, fields in rows:
        listed = {name: (kind, not may_lack) for name, may_lack, kind in FIELD.findall(fields)}
        if listed:
            found |= dict.fromkeys(re.findall(r"`(\w+)`", kinds), listed)
    return found


def typed(kinds: Iterable[type]) -> dict[str, Fields]:
    """The same by types of lines, without what all lines have."""
    found: dict[str, Fields] = {}
    for kind in kinds:
        schema = TypeAdapter(kind).json_schema()
        properties = schema["properties"]
        required = set(schema["required"])
        fields = {name: (_type(each), name in required) for name, each in properties.items() if name not in ("e", "t")}
        assert {"e", "t"} <= required
        found |= dict.fromkeys(_values(properties["e"]), fields)
    return found


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return "/".join(_type(each) for each in schema["anyOf"])
    return "object" if "$ref" in schema else schema["type"]


def _values(schema: dict[str, Any]) -> list[str]:
    return schema.get("enum") or [schema["const"]]
