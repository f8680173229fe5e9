"""What makes a settings dataclass safe to read from a file."""

from typing import Any, ClassVar


class Strict:
    """For pydantic, which reads recipe files: a setting that does not exist is an error, not noise."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
