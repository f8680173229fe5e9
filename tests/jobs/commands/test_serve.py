"""What `resca serve` refuses before anything is started: one sentence, exit code 2, and nothing is left behind."""

import socket
from pathlib import Path

import pytest

from jobs.__main__ import main
from jobs.commands import serve
from jobs.options.command_line import parse
from jobs.options.serve import ServeOptions
from jobs.options.words import words_of
from jobs.serve.rendering import driver_options
from jobs.serve.token import VARIABLE
from jobs.store.additions import PROMPTS
from tests.jobs.store.example import finish, item, settings

TOKEN = "a-token-of-enough-letters"


@pytest.fixture(autouse=True)
def token(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, TOKEN)


def complaint(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    before = sorted(Path().rglob("*"))
    assert main(["serve", "--model", "model", "--out", "out", *words]) == 2
    assert sorted(Path().rglob("*")) == before
    told = capsys.readouterr()
    assert told.err.startswith("resca: ") and len(told.err.splitlines()) == 1 and TOKEN not in told.err + told.out
    return told.err


def test_a_service_without_a_token_is_refused(capsys, monkeypatch):
    monkeypatch.delenv(VARIABLE)
    assert "RESCA_TOKEN holds no token" in complaint(capsys)
    assert "cannot read the token in" in complaint(capsys, "--token-file", "nowhere")


def test_a_place_where_somebody_listens_is_refused(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in complaint(capsys, "--port", port)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--port", "0"), "--port must be at least 1"),
        (("--port", "70000"), "--port must be at most 65535"),
        (("--queue", "0"), "--queue must be at least 1"),
        (("--host", "300.1.1.1"), "cannot listen on 300.1.1.1:8000"),
        (("--model", "nowhere"), "model nowhere is neither"),
        (("--ulysses", "3"), "3"),
        (("--method", "none-such"), "none-such"),
        (("--steps", "0"), "--steps must be at least 1"),
    ],
)
def test_what_no_video_or_place_can_have_is_refused(capsys, words, said):
    assert said in complaint(capsys, *words)


def test_without_the_packages_that_it_needs_it_names_them(capsys, monkeypatch):
    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    assert "pip install -e '.[serve]'" in complaint(capsys)


def test_a_batch_that_was_rendered_with_other_settings_is_refused(capsys, place):
    done = item(height=64, width=64, num_frames=5, steps=12)
    finish(settings(place / "out", model=str(place / "model")), done)
    (place / "out" / PROMPTS).write_text(done.model_dump_json(exclude_none=True) + "\n")
    assert "was rendered with other settings" in complaint(capsys)


def test_the_driver_is_told_the_same_and_what_its_batch_remembers(place):
    words = ["--out", str(place / "out"), "--steps", "4", "--env", "A=b", "--compile", "--queue", "3"]
    options = parse(["serve", *words])
    again = parse(["serve", "driver", *words_of(options)])
    assert isinstance(options, ServeOptions) and vars(again) == vars(options)
    (place / "out").mkdir()
    (place / "out" / PROMPTS).write_text('{"prompt":"a red ball"}\n')
    with driver_options(options) as asked:
        assert asked.stay and asked.video.steps == 4 and asked.env == ("A=b",)
        assert asked.prompts is not None and asked.prompts.read_text() == '{"prompt":"a red ball"}\n'
