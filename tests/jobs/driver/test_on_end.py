"""Who is told of the end: real commands and a real receiver, and what is said when they fail."""

import hashlib
import hmac
import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from jobs.driver import on_end
from jobs.driver.on_end import HURRIED_S, LIMIT_S, SECRET, check_form, notice_of
from jobs.errors import BadInput

pytestmark = pytest.mark.timeout(60)
END = {"how": "partial", "exit_code": 3, "batch": "/videos of mine", "done": 7, "error": "a\x1b[31m\0\ud83d red\nball"}


class Receiver(HTTPServer):
    """Answers with one code after another, the last one again and again, and keeps what it was sent."""

    def __init__(self, *codes: int, delay_s: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), Receiving)
        self.codes, self.delay_s = list(codes), delay_s
        self.requests: list[tuple[str, dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Receiving(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, dict(self.headers), body))
        time.sleep(self.server.delay_s)
        codes = self.server.codes
        self.send_response(codes.pop(0) if len(codes) > 1 else codes[0])
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing of it on the terminal."""


@pytest.fixture
def receive(monkeypatch) -> Iterator:
    """Starts receivers; pauses between tries are short."""
    monkeypatch.setattr(on_end, "PAUSE_S", 0.05)
    monkeypatch.delenv(SECRET, raising=False)
    servers: list[Receiver] = []

    def start(*codes: int, **options: float) -> Receiver:
        servers.append(Receiver(*codes, **options))
        threading.Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def sent(text: str, limit_s: float = LIMIT_S) -> str | None:
    return notice_of(text).send(END, limit_s)


def test_a_receiver_gets_the_end_as_json_with_a_signature_that_it_can_check(receive, monkeypatch):
    monkeypatch.setenv(SECRET, "a key")
    server = receive(204)
    assert sent(f"{server.url}/hook?a=1#part") is None
    [(path, headers, body)] = server.requests
    assert path == "/hook?a=1" and json.loads(body) == END and headers["Content-Type"] == "application/json"
    timestamp = headers["X-Resca-Timestamp"]
    assert abs(time.time() - int(timestamp)) < 60
    expected = hmac.new(b"a key", timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    assert headers["X-Resca-Signature"] == f"sha256={expected}"


def test_without_a_key_nothing_is_signed(receive):
    server = receive(200)
    assert sent(server.url) is None
    assert "X-Resca-Signature" not in server.requests[0][1]


def test_variables_in_a_url_are_put_in_their_place(receive, monkeypatch):
    server = receive(200)
    monkeypatch.setenv("HOOK", "s3cret")
    assert sent(f"{server.url}/$HOOK/${{HOOK}}?price=$$5") is None
    assert server.requests[0][0] == "/s3cret/s3cret?price=$5"


@pytest.mark.parametrize(
    ("codes", "tries", "said"),
    [
        ((500, 503, 200), 3, None),
        ((503,), 3, "it answered 503"),
        ((429, 200), 2, None),
        ((404,), 1, "it answered 404"),
        ((302,), 1, "it answered 302"),
    ],
)
def test_what_a_receiver_cannot_take_now_is_sent_again_and_what_it_refuses_is_not(receive, codes, tries, said):
    server = receive(*codes)
    told = sent(f"{server.url}/secret")
    assert len(server.requests) == tries
    assert told == (said and f"--on-end: {server.url}: {said}")


def test_nobody_answers(receive):
    server = receive(200)
    server.shutdown()
    server.server_close()
    told = sent(f"{server.url}/secret")
    assert told == f"--on-end: {server.url}: it could not be reached (Connection refused)"


def test_who_is_about_to_be_killed_tries_once_and_waits_no_longer_than_it_may(receive, monkeypatch):
    assert HURRIED_S <= 2.0
    server = receive(500, 200)
    assert sent(server.url, 0.5) == f"--on-end: {server.url}: it answered 500"
    slow = receive(200, delay_s=1.5)
    began = time.monotonic()
    said = sent(slow.url, 0.3) or ""
    assert "within" in said or "could not be reached" in said
    assert time.monotonic() - began < 1.4


def command(folder: Path, code: str) -> str:
    (folder / "told.py").write_text(code)
    return f"{sys.executable} '{folder / 'told.py'}' 'two words' $HOME ; rm -rf *"


def test_a_command_gets_the_end_on_its_standard_input_and_in_variables_and_no_shell_sees_it(tmp_path, capfd):
    code = (
        "import json, os, sys; told = {k: v for k, v in os.environ.items() if k.startswith('RESCA_')};"
        f"open({str(tmp_path / 'out.json')!r}, 'w').write(json.dumps([json.load(sys.stdin), told, sys.argv[1:]]));"
        "print('for people')"
    )
    assert sent(command(tmp_path, code)) is None
    end, variables, words = json.loads((tmp_path / "out.json").read_text())
    assert end == END and words == ["two words", "$HOME", ";", "rm", "-rf", "*"]
    assert (variables["RESCA_HOW"], variables["RESCA_EXIT_CODE"], variables["RESCA_DONE"]) == ("partial", "3", "7")
    assert variables["RESCA_BATCH"] == "/videos of mine" and variables["RESCA_ERROR"].endswith(" red\nball")
    captured = capfd.readouterr()
    assert captured.out == "" and "for people" in captured.err


def test_a_command_that_fails_or_hangs_is_one_sentence_that_names_no_more_than_itself(tmp_path, monkeypatch):
    fails = sent(command(tmp_path, "raise SystemExit(7)"))
    assert fails == f"the command of --on-end ({sys.executable}) ended with 7"
    monkeypatch.setattr(on_end, "LIMIT_S", 0.3)
    hangs = sent(command(tmp_path, "import time; time.sleep(30)"), 0.3)
    assert hangs == f"the command of --on-end ({sys.executable}) had not ended within 0 s and was killed"


def test_a_command_of_a_stopped_run_goes_on_by_itself(tmp_path):
    code = f"import time; time.sleep(1); open({str(tmp_path / 'late')!r}, 'w').close()"
    assert sent(command(tmp_path, code), 0.2) is None
    ends = time.monotonic() + 20
    while not (tmp_path / "late").exists():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_a_command_that_reads_nothing_is_fine(tmp_path):
    large = {**END, "error": "x" * 1_000_000}
    assert notice_of(command(tmp_path, "import sys; sys.stdin.close()")).send(large, LIMIT_S) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("''", "is empty"),
        ("no-such-command --at all", "there is no command 'no-such-command' here"),
        ("echo 'half a quote", "cannot be split into words"),
        ("https://", "no URL that can be posted to"),
        ("http://host:99999/", "no URL that can be posted to"),
        ("https://a host/x", "no URL that can be posted to"),
        ("http://[::1", "no URL that can be posted to"),
        ("https://host/\r\nHost: other", "no URL that can be posted to"),
        ("https://user:s3cret@host/x", "a name or password in a URL is not sent"),
        ("https://host/$NOT_SET_ANYWHERE", "names the variable NOT_SET_ANYWHERE, which is not set here"),
        ("https://host/$", "a $ in the URL begins a variable"),
    ],
)
def test_what_cannot_be_told_anything_is_refused_in_one_sentence_without_secrets(text, said):
    with pytest.raises(BadInput) as refusal:
        notice_of(text)
    assert said in str(refusal.value) and "s3cret" not in str(refusal.value)


def test_what_only_another_machine_knows_is_not_asked_of_this_one():
    check_form("https://host/$NOT_SET_ANYWHERE")
    check_form("a-command-of-the-cluster --with 'two words'")
    for text in ("", "'", "https://", "https://a b/"):
        with pytest.raises(BadInput):
            check_form(text)
