"""Who is told that a batch has ended: a command that is run, or a URL that is posted to; nothing depends on either."""

import hashlib
import hmac
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from string import Template
from threading import Thread
from typing import Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from jobs.console import visible
from jobs.errors import BadInput

SECRET = "RESCA_ON_END_SECRET"  # the variable with the key that signs what is posted
TRIES, PAUSE_S, ANSWER_S = 3, 1.0, 5.0
LIMIT_S, HURRIED_S = 30.0, 2.0  # who stops a job may kill it soon after
URL = re.compile(r"https?://", re.IGNORECASE)
LONGEST_TEXT = 2000  # of a variable


class Notice(Protocol):
    """Passes on how a batch has ended."""

    def send(self, end: Mapping[str, object], limit_s: float) -> str | None:
        """Within so many seconds. Gives one sentence if that failed."""
        ...


def notice_of(text: str) -> Notice:
    """By what `--on-end` says. Raises BadInput for what can be neither run nor posted to from here."""
    if URL.match(text):
        return Hook(url_of(text, os.environ))
    words = words_of(text)
    if not shutil.which(words[0]):
        raise BadInput(f"--on-end: there is no command {words[0]!r} here")
    return Command(words)


def check_form(text: str) -> None:
    """Raises BadInput for what no machine could run or post to."""
    if URL.match(text):
        url_of(text, Anything())
    else:
        words_of(text)


@dataclass(frozen=True)
class Command:
    """Is run, with the end on its standard input and in variables."""

    words: Sequence[str]

    def send(self, end: Mapping[str, object], limit_s: float) -> str | None:
        try:
            process = self._start(end)
        except OSError as error:
            return f"{self._name} could not be run: {error.strerror or error}"
        try:
            process.communicate(_body(end), timeout=limit_s)
        except subprocess.TimeoutExpired:
            return self._leave(process, limit_s)
        return f"{self._name} ended with {process.returncode}" if process.returncode else None

    def _start(self, end: Mapping[str, object]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            self.words,
            stdin=subprocess.PIPE,
            stdout=2,  # what it prints is for people
            env={**os.environ, **_variables(end)},
            start_new_session=True,  # what is sent to end this process does not end it
        )

    def _leave(self, process: "subprocess.Popen[bytes]", limit_s: float) -> str | None:
        """One that has little time because this process is about to be killed goes on by itself."""
        if limit_s < LIMIT_S:
            return None
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"{self._name} had not ended within {limit_s:.0f} s and was killed"

    @property
    def _name(self) -> str:
        """Its other words may hold what is secret."""
        return f"the command of --on-end ({self.words[0]})"


@dataclass(frozen=True)
class Hook:
    """Is posted to."""

    url: str

    def send(self, end: Mapping[str, object], limit_s: float) -> str | None:
        said: list[str | None] = [f"no answer within {limit_s:.0f} s"]
        # Looking up a name, and an answer that trickles in, know no time limit of their own.
        thread = Thread(target=lambda: said.append(_try_to_post(self.url, _body(end), limit_s)), daemon=True)
        thread.start()
        thread.join(limit_s)
        return f"--on-end: {self._place}: {said[-1]}" if said[-1] else None

    @property
    def _place(self) -> str:
        """Scheme and host: paths and queries may hold what is secret."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


class Anything(dict[str, str]):
    """Stands for an environment that is not known: every variable is set."""

    def __missing__(self, key: str) -> str:
        return "x"


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """`sha256=` and the HMAC of `TIMESTAMP.BODY`, as hex digits."""
    return f"sha256={hmac.new(secret.encode(), timestamp.encode() + b'.' + body, hashlib.sha256).hexdigest()}"


def words_of(text: str) -> list[str]:
    """A command, split as a shell would; it is run without one, so that nothing in it is expanded or chained."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise BadInput(f"--on-end cannot be split into words: {error}") from error
    if not words or not words[0]:
        raise BadInput("--on-end is empty; give a command, or a URL that begins with http:// or https://")
    return words


def url_of(text: str, variables: Mapping[str, str]) -> str:
    """With the variables that it names in place, so that what is secret need not stand on a command line."""
    try:
        url = Template(text).substitute(variables)
    except KeyError as error:
        raise BadInput(f"--on-end names the variable {error.args[0]}, which is not set here") from error
    except ValueError as error:
        raise BadInput("--on-end: a $ in the URL begins a variable, as in ${HOOK}; $$ stands for itself") from error
    if not _is_whole(url):
        raise BadInput("--on-end is no URL that can be posted to; it should be like https://HOST/PATH")
    if "@" in urlsplit(url).netloc:
        raise BadInput("--on-end: a name or password in a URL is not sent; the receiver may check the signature")
    return url.partition("#")[0]


def _is_whole(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0 and url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        return False


class _NoRedirects(HTTPRedirectHandler):
    """What is signed for one place is sent to no other."""

    def redirect_request(self, req: Request, fp: object, code: int, msg: str, headers: object, newurl: str) -> None:
        return None


def _try_to_post(url: str, body: bytes, limit_s: float) -> str | None:
    """What went wrong the last time. What the receiver itself refuses is not sent again."""
    headers, ends_s = _headers(body), time.monotonic() + limit_s
    opener, said = build_opener(_NoRedirects), None
    for attempt in range(TRIES if limit_s >= LIMIT_S else 1):
        time.sleep(PAUSE_S * attempt)
        try:
            request = Request(url, data=body, headers=headers, method="POST")
            with opener.open(request, timeout=max(0.1, min(ANSWER_S, ends_s - time.monotonic()))):
                return None
        except HTTPError as error:
            said = f"it answered {error.code}"
            error.close()
            if error.code < 500 and error.code != 429:
                return said
        except (OSError, HTTPException) as error:
            reason = error.reason if isinstance(error, URLError) else error
            said = f"it could not be reached ({getattr(reason, 'strerror', None) or type(reason).__name__})"
    return said


def _headers(body: bytes) -> dict[str, str]:
    timestamp, secret = str(int(time.time())), os.environ.get(SECRET)
    headers = {"Content-Type": "application/json", "User-Agent": "resca-render", "X-Resca-Timestamp": timestamp}
    return {**headers, "X-Resca-Signature": signature(secret, timestamp, body)} if secret else headers


def _body(end: Mapping[str, object]) -> bytes:
    return json.dumps(end).encode()


def _variables(end: Mapping[str, object]) -> dict[str, str]:
    """What is known of the end, as RESCA_HOW, RESCA_EXIT_CODE and so on; without what no variable can hold."""
    texts = {key: visible(str(value))[:LONGEST_TEXT] for key, value in end.items() if value is not None}
    return {f"RESCA_{key.upper()}": text.encode(errors="replace").decode() for key, text in texts.items()}
