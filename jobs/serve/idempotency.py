"""Requests that name themselves, so that one which is made again finds what came of it the first time."""

import json
from dataclasses import dataclass
from hashlib import sha256

from jobs.models.family import Json
from jobs.serve.refusal import Refusal, invalid

HEADER = "Idempotency-Key"
MOST_LETTERS = 255
DIGITS = 32


@dataclass(frozen=True, slots=True)
class Mark:
    """A request by its name and by its body; neither stands in the ledger as it was given."""

    name: str
    body: str

    @property
    def key(self) -> str:
        """As the ledger has it."""
        return f"{self.name}.{self.body}"

    @classmethod
    def of_ledger(cls, key: str) -> "Mark":
        """The inverse of `key`."""
        name, _, body = key.partition(".")
        return cls(name, body)

    def check(self, before: "Mark") -> None:
        """Raises Refusal if the request of the same name had another body."""
        if before.body != self.body:
            message = f"this {HEADER} was given with another request; name each request anew"
            raise Refusal(status=422, message=message, code="idempotency_key_reused")


def mark_of(name: str | None, fields: Json) -> Mark | None:
    """None for a request that does not name itself. Raises Refusal for a name that is none."""
    if name is None:
        return None
    if not (0 < len(name) <= MOST_LETTERS):
        raise invalid(f"the header {HEADER} must have 1 to {MOST_LETTERS} letters", param=HEADER)
    return Mark(_digest(name), _digest(json.dumps(fields, sort_keys=True)))


def _digest(text: str) -> str:
    return sha256(text.encode(errors="surrogatepass")).hexdigest()[:DIGITS]
