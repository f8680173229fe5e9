"""What the settings of a recipe share: which options of the command line they have, and that files may set them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self

OptionValue = int | float | str


class Settings:
    """A frozen dataclass of settings on one axis of a recipe."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}  # a setting that does not exist is an error

    @property
    def options(self) -> Mapping[str, str]:
        """The options of the command line that change a setting, and the name of that setting."""
        return {}

    def with_option(self, option: str, value: OptionValue) -> Self:
        """The same with one option changed. ValueError for a value that the setting cannot have."""
        changed: Any = self  # pyright takes `replace` for dataclasses only, and all settings are some
        return replace(changed, **{self.options[option]: value})


def one_of(what: str, value: str, known: tuple[str, ...]) -> str:
    """The value, if it is a known one. Raises ValueError that names those that are."""
    if value not in known:
        raise ValueError(f"unknown {what} {value!r}; known: {', '.join(known)}")
    return value
