"""What is said of a model that cannot be had from the hub, or would not be whole."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest

from jobs.errors import BadInput, InfrastructureError
from jobs.models.facts import read_facts
from tests.jobs.models.test_facts import make_model

COMMIT = "a" * 40


@pytest.fixture(autouse=True)
def away(tmp_path, monkeypatch):
    """A hub that does not answer, and an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does, of one model in a directory."""

    root: Path

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/owner/name/tree/"):
            self._answer(json.dumps([self._entry(file) for file in self.root.rglob("*") if file.is_file()]).encode())
        elif path.startswith("/api/models/owner/name"):
            self._answer(json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": []}).encode())
        elif path.startswith("/owner/name/resolve/"):
            self._answer((self.root / path.partition(f"{COMMIT}/")[2]).read_bytes())
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_HEAD = do_GET

    def _entry(self, file: Path) -> dict[str, object]:
        data = file.read_bytes()
        name = file.relative_to(self.root).as_posix()
        return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def _answer(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", hashlib.sha1(data).hexdigest())
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[Path]:
    """The directory of a hub's only model, owner/name."""
    model = make_model(tmp_path / "on-the-hub")
    with ThreadingHTTPServer(("127.0.0.1", 0), type("OneModel", (Hub,), {"root": model})) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        url = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)
        yield model
        server.shutdown()


def test_a_model_on_the_hub_has_its_commit_as_revision(hub):
    facts = read_facts("owner/name")
    assert (facts.source, facts.revision, facts.earlier_revision) == ("owner/name", COMMIT, None)


def test_a_hub_model_without_plain_weights_names_the_variant(hub):
    weights = hub / "vae" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".fp16.safetensors"))
    with pytest.raises(BadInput, match="only weights of the variant fp16 in vae/: --variant fp16 takes them"):
        read_facts("owner/name")
    assert read_facts("owner/name", variant="fp16").variant == "fp16"
    with pytest.raises(BadInput, match="owner/name has no weights of the variant bf16"):
        read_facts("owner/name", variant="bf16")


def test_a_cache_that_cannot_be_used_is_named(hub, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(
        InfrastructureError, match=r"the hub's cache .*file/cache cannot be used: Not a directory; set HF_"
    ):
        read_facts("owner/name")


def test_a_model_that_the_hub_does_not_know_is_bad_input(hub):
    with pytest.raises(BadInput, match="model no/body at revision main is not on the hub, or is not public"):
        read_facts("no/body")


def test_a_hub_that_does_not_answer_is_named_with_the_cache():
    with pytest.raises(
        InfrastructureError, match=r"owner/name is no directory here and not in .*cache, and the hub does"
    ):
        read_facts("owner/name")


def test_a_mistyped_path_is_bad_input(tmp_path):
    (tmp_path / "models").mkdir()
    with pytest.raises(BadInput, match=r"there is no model directory models/typo, though models is there"):
        read_facts("models/typo")
