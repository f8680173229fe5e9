"""The token that every request must bring: where it is read from, and that nothing but its digest goes further."""

import hmac
import os
import re
from hashlib import sha256
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from jobs.errors import BadInput
from jobs.serve.refusal import Refusal

VARIABLE = "RESCA_TOKEN"
TOKEN = re.compile(r"[!-~]{16,512}")  # what a header can hold, and nobody guesses
HINT = "(umask 077; openssl rand -hex 32 > token) makes one for --token-file"
OPEN = ("/healthz", "/readyz")


def token_digest(file: Path | None) -> str:
    """The sha256 of the token in the file, or else in the environment. Raises BadInput; no message quotes it.

    Whoever may look into Ray can read what a deployment is started with, so that gets no more than this.
    """
    where, token = (str(file), _read(file)) if file else (VARIABLE, os.environ.get(VARIABLE, ""))
    token = token.strip()
    if not token:
        raise BadInput(f"{where} holds no token, without which nobody may ask for videos: {HINT}, or set {VARIABLE}")
    if not TOKEN.fullmatch(token):
        raise BadInput(f"the token in {where} must be 16 to 512 letters, digits and signs without spaces: {HINT}")
    return digest(token.encode())


def digest(token: bytes) -> str:
    return sha256(token).hexdigest()


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise BadInput(f"cannot read the token in {file}: {error.strerror}") from error


class TokenRequired:
    """An application that answers 401 to whoever does not bring the token; health alone is open."""

    def __init__(self, app: ASGIApp, *, token_digest: str) -> None:
        self._app, self._digest = app, token_digest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN or self._is_known(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        headers = {"WWW-Authenticate": "Bearer"}
        message = "give the token of this service, as the header Authorization: Bearer TOKEN"
        refusal = Refusal(status=401, message=message, code="invalid_api_key", headers=headers)
        await JSONResponse(refusal.content, refusal.status, refusal.headers)(scope, receive, send)

    def _is_known(self, headers: Headers) -> bool:
        """Digests are compared, and in constant time: how long it takes tells nothing of the token."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        return hmac.compare_digest(digest(given.strip().encode("latin-1")), self._digest) and scheme.lower() == "bearer"
