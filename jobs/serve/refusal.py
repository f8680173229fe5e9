"""What the door refuses, in the format of OpenAI's API."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["invalid_request_error", "rate_limit_error", "server_error"]
KINDS: Mapping[int, Kind] = {429: "rate_limit_error", 500: "server_error", 503: "server_error"}


@dataclass(kw_only=True, eq=False)  # what is raised is written on
class Refusal(Exception):
    """Ends a request with `status` and one sentence; `param` is the field that is wrong, `code` is for programs."""

    status: int
    message: str
    code: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> dict[str, dict[str, str | None]]:
        """The body of the answer."""
        kind = KINDS.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def invalid(message: str, *, param: str | None = None, code: str = "invalid_value") -> Refusal:
    """What is asked for cannot be done, however often it is asked."""
    return Refusal(status=400, message=message, param=param, code=code)


def not_found(message: str, *, code: str = "video_not_found") -> Refusal:
    return Refusal(status=404, message=message, code=code)


def unavailable(message: str) -> Refusal:
    """It may work in a moment."""
    return Refusal(status=503, message=message, code="unavailable", headers={"Retry-After": "5"})
