"""Nobody but its owner reads a token."""

import os
from pathlib import Path

import pytest

from cluster.token import keep_private, own_token


@pytest.fixture
def token(tmp_path, monkeypatch) -> Path:
    """A token as Ray writes it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text("a" * 64)
    file.chmod(0o644)
    return file


def test_a_file_that_others_can_read_is_closed_to_them(token: Path):
    keep_private()
    assert token.stat().st_mode & 0o777 == 0o600
    token.unlink()
    keep_private()


def test_an_embedded_ray_has_a_token_that_no_file_holds(token: Path, monkeypatch):
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    with own_token():
        first = os.environ["RAY_AUTH_TOKEN"]
    assert len(first) == 64 and first != token.read_text()
    assert "RAY_AUTH_TOKEN" not in os.environ
    with own_token():
        assert os.environ["RAY_AUTH_TOKEN"] != first


def test_a_token_that_the_user_names_is_taken(token: Path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    with own_token():
        assert "RAY_AUTH_TOKEN" not in os.environ
