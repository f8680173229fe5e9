"""The token: where it is read from, what is refused, and that no message quotes it."""

import pytest

from jobs.errors import BadInput
from jobs.serve.token import VARIABLE, digest, token_digest

TOKEN = "a-token-of-enough-letters"


def test_it_is_that_of_the_file_or_else_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, f"{TOKEN}-of-environment")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert token_digest(tmp_path / "token") == digest(TOKEN.encode())
    assert token_digest(None) == digest(f"{TOKEN}-of-environment".encode())


@pytest.mark.parametrize(
    "text", ["", " \n", "short", "with a space in between", "x" * 600, "grün-und-lang-genug-dafür"]
)
def test_one_that_no_header_holds_or_anybody_guesses_is_refused_and_not_quoted(tmp_path, monkeypatch, text):
    (tmp_path / "token").write_text(text)
    monkeypatch.setenv(VARIABLE, text)
    for file in (tmp_path / "token", None):
        with pytest.raises(BadInput) as refusal:
            token_digest(file)
        assert "openssl rand" in str(refusal.value) and (not text.strip() or text not in str(refusal.value))


def test_without_any_and_for_a_file_that_is_not_there_there_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(BadInput, match="RESCA_TOKEN holds no token"):
        token_digest(None)
    with pytest.raises(BadInput, match=r"cannot read the token in .*: No such file or directory"):
        token_digest(tmp_path / "token")
