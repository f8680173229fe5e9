"""The door by HTTP, as OpenAI's API has it, in front of a directory that a driver writes into as well."""

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.testclient import TestClient

from jobs.serve.body import MOST_BYTES
from jobs.store.additions import PROMPTS, Additions
from jobs.store.ledger import read_lines
from tests.jobs.serve.conftest import TOKEN, Batch
from tests.jobs.store.example import item
from tests.jobs.survival.harness import until

pytestmark = pytest.mark.timeout(120)
ASKED = {"prompt": "a red ball", "model": "the-model", "seconds": "2", "size": "64x32", "seed": 7}


def created(client: TestClient, **fields: Any) -> dict[str, Any]:
    answer = client.post("/v1/videos", json=ASKED | fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refusal(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"} and error["message"]
    return error


def becomes(client: TestClient, video: dict[str, Any], status: str) -> dict[str, Any]:
    def now() -> dict[str, Any] | None:
        found = client.get(f"/v1/videos/{video['id']}").json()
        return found if found.get("status") == status else None

    return until(now, f"{video['id']} to be {status}")


def test_a_video_is_in_the_ledger_before_it_is_answered(client, batch: Batch):
    video = created(client)
    assert re.fullmatch(r"video_[0-9a-f]{24}", video["id"])
    assert {**video, "id": "", "created_at": 0} == {
        "id": "", "object": "video", "model": "the-model", "status": "queued", "progress": 0, "created_at": 0,
        "completed_at": None, "expires_at": None, "seconds": "2", "size": "64x32", "prompt": "a red ball", "seed": 7,
        "error": None,
    }  # fmt: skip
    [line] = read_lines(batch.storage)
    assert line["e"] == "add" and line["item"] == batch.item(video)
    assert client.get(f"/v1/videos/{video['id']}").json() == video


def test_a_form_says_the_same_as_json_and_what_is_not_said_is_the_models(client):
    form = client.post("/v1/videos", files={name: (None, str(value)) for name, value in ASKED.items()}).json()
    assert {**form, "id": "", "created_at": 0} == {**created(client), "id": "", "created_at": 0}
    short = client.post("/v1/videos", json={"prompt": "a cat"}).json()
    assert (short["size"], short["seconds"]) == ("64x64", "0.5") and short["seed"] != created(client, seed=None)["seed"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": " "}, "at least 1 character"),
        ({"prompt": "\u200b"}, "there is nothing in it that can be seen"),
        ({"prompt": None}, "field 'prompt' is missing"),
        ({"prompt": ["a"]}, "prompt"),
        ({"prompt": "a\x00b"}, "NUL"),
        ({"model": "sora-2"}, "has the model the-model, not 'sora-2'"),
        ({"size": "64 x 32"}, "must be WIDTHxHEIGHT"),
        ({"size": "70x32"}, "nearest: height 32, width 64"),
        ({"seconds": "1.5"}, "whole number"),
        ({"seconds": "4", "num_frames": 9}, "cannot stand in body beside seconds"),
        ({"seed": -1}, "seed"),
        ({"seed": True}, "seed"),
        ({"id": "mine"}, "unknown field 'id'"),
        ({"output": "../../etc/passwd"}, "unknown field 'output'"),
        ({"input_reference": {"image_url": "https://example.org/a.png"}}, "starts from an image"),
        ({"guidance": "much"}, "guidance"),
        ({"steps": 10**9}, "steps"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_sentence_and_leaves_no_trace(client, batch: Batch, fields, said):
    error = refusal(client.post("/v1/videos", json=ASKED | fields), 400)
    assert error["type"] == "invalid_request_error" and said in error["message"]
    assert list(read_lines(batch.storage)) == []


@pytest.mark.parametrize(
    ("content", "kind", "status", "said"),
    [
        (b'{"prompt": "a"', "application/json", 400, "not valid JSON"),
        (b'{"prompt": "a", "prompt": "b"}', "application/json", 400, "stands twice"),
        (b'["a"]', "application/json", 400, "must be a JSON object"),
        (b"[" * 100_000, "application/json", 400, "nested too deeply"),
        (b'{"prompt": "\xff"}', "application/json", 400, "not UTF-8"),
        (b'{"prompt": "\\ud800"}', "application/json", 400, "prompt"),
        (b"prompt=a", "application/x-www-form-urlencoded", 400, "must be application/json or multipart/form-data"),
        (b"prompt", "multipart/form-data", 400, "form cannot be read"),
        (b"nonsense", "multipart/form-data; boundary=x", 400, "form cannot be read"),
        (json.dumps({"prompt": "a" * MOST_BYTES}).encode(), "application/json", 413, "at most 256 KiB"),
    ],
)
def test_a_body_that_is_none_is_refused(client, content, kind, status, said):
    assert (
        said in refusal(client.post("/v1/videos", content=content, headers={"Content-Type": kind}), status)["message"]
    )


def test_a_body_that_does_not_say_how_long_it_is_is_read_no_further_than_is_allowed(client):
    sent = 0

    def endless():
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield b" " * (MOST_BYTES // 4)

    headers = {"Content-Type": "application/json"}
    assert refusal(client.post("/v1/videos", content=endless(), headers=headers), 413)


def test_a_file_is_refused_by_its_name(client):
    image = {"prompt": (None, "a cat"), "input_reference": ("a.png", b"\x89PNG", "image/png")}
    assert "starts from an image" in refusal(client.post("/v1/videos", files=image), 400)["message"]
    text = {"prompt": ("prompt.txt", b"a cat")}
    assert "must be text, not a file" in refusal(client.post("/v1/videos", files=text), 400)["message"]


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer \xff"],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/videos"), ("GET", "/v1/videos/x"), ("GET", "/nothing")])
def test_without_the_token_nothing_is_told_or_taken(client, batch: Batch, header, method, path):
    headers = {"Authorization": header.encode("latin-1")}
    answer = client.request(method, path, headers=headers, json=ASKED if method == "POST" else None)
    assert refusal(answer, 401)["code"] == "invalid_api_key" and answer.headers["WWW-Authenticate"] == "Bearer"
    assert list(read_lines(batch.storage)) == []


def test_health_is_open_and_says_nothing_of_videos(client, batch: Batch):
    created(client)
    del client.headers["Authorization"]
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready", "is_rendering": False, "left": 1}


def test_a_video_goes_through_its_states_and_is_downloaded(client, batch: Batch):
    video = created(client)
    assert refusal(client.get(f"/v1/videos/{video['id']}/content"), 404)["code"] == "video_not_ready"
    batch.tell("begin", total=1)
    batch.tell("start", id=video["id"], n=1, g=0)
    becomes(client, video, "in_progress")
    batch.finish(video)
    done = becomes(client, video, "completed")
    assert done["progress"] == 100 and done["completed_at"] >= done["created_at"]
    content = client.get(f"/v1/videos/{video['id']}/content")
    assert content.content == (batch.out / batch.settings.file(batch.item(video))).read_bytes()
    assert content.headers["content-type"] == "video/mp4"
    part = client.get(f"/v1/videos/{video['id']}/content", headers={"Range": "bytes=4-7"})
    assert part.status_code == 206 and part.content == b"ftyp"
    poster = client.get(f"/v1/videos/{video['id']}/content?variant=thumbnail")
    assert poster.headers["content-type"] == "image/webp" and poster.content[:4] == b"RIFF"
    assert poster.headers["etag"] != content.headers["etag"]
    assert "spritesheet" in refusal(client.get(f"/v1/videos/{video['id']}/content?variant=spritesheet"), 400)["message"]
    (batch.out / batch.settings.file(batch.item(video))).unlink()
    assert refusal(client.get(f"/v1/videos/{video['id']}/content"), 404)["code"] == "video_gone"


def test_a_video_that_was_given_up_says_why(client, batch: Batch):
    video = created(client)
    batch.tell("fail", id=video["id"], n=2, g=0, why="item", error="its numbers overflow")
    failed = becomes(client, video, "failed")
    assert failed["error"] == {"code": "item", "message": "its numbers overflow"}
    assert "its numbers overflow" in refusal(client.get(f"/v1/videos/{video['id']}/content"), 404)["message"]


def test_what_others_add_is_there_and_what_is_not_is_not(client, batch: Batch):
    Additions(batch.storage).add(lambda members: [item(id="by-hand", num_frames=9)])
    until(lambda: client.get("/v1/videos/by-hand").status_code == 200, "the addition to be read")
    assert client.get("/v1/videos/by-hand").json()["seconds"] == "1"
    for path in ("/v1/videos/nobody", "/v1/videos/nobody/content", "/v1/videos/..%2Fdriver.lock"):
        assert refusal(client.get(path), 404)
    assert refusal(client.delete("/v1/videos/nobody"), 404)["code"] == "video_not_found"
    assert refusal(client.get("/v1/nothing"), 404)["code"] == "unknown_path"
    assert refusal(client.put("/v1/videos"), 405)


def test_what_the_batch_began_with_is_there_and_cannot_be_deleted(serve, batch: Batch):
    batch.tell("begin", total=2)
    items = [item(id="0000", num_frames=9), item(id="0001", seed=1, num_frames=9)]
    batch.storage.write(PROMPTS, "".join(f"{each.model_dump_json(exclude_none=True)}\n" for each in items).encode())
    client = serve()
    mine = created(client)
    assert [each["id"] for each in client.get("/v1/videos").json()["data"]] == [mine["id"], "0001", "0000"]
    assert client.get("/readyz").json()["left"] == 3
    assert "prompt file" in refusal(client.delete("/v1/videos/0000"), 400)["message"]


def test_pages_go_through_all_videos_in_both_directions(client):
    ids = [created(client)["id"] for _ in range(5)]
    whole = client.get("/v1/videos?order=asc").json()
    assert [each["id"] for each in whole["data"]] == ids and not whole["has_more"]
    assert (whole["object"], whole["first_id"], whole["last_id"]) == ("list", ids[0], ids[-1])
    newest = client.get("/v1/videos?limit=2").json()
    assert [each["id"] for each in newest["data"]] == ids[:2:-1] and newest["has_more"]
    rest = client.get(f"/v1/videos?limit=3&after={newest['last_id']}").json()
    assert [each["id"] for each in rest["data"]] == ids[2::-1] and not rest["has_more"]
    later = client.get(f"/v1/videos?order=asc&after={ids[3]}").json()
    assert [each["id"] for each in later["data"]] == ids[4:]
    for query in ("limit=0", "limit=101", "limit=x", "limit=²", "order=up", "after=nobody"):
        assert refusal(client.get(f"/v1/videos?{query}"), 400)


def test_a_full_queue_says_when_to_come_again_and_has_room_when_a_video_has_ended(serve, batch: Batch):
    client = serve(most_left=2)
    first = client.post("/v1/videos", json=ASKED, headers={"Idempotency-Key": "first"}).json()
    second = created(client)
    full = client.post("/v1/videos", json=ASKED)
    assert refusal(full, 429)["code"] == "queue_full" and int(full.headers["Retry-After"]) > 0
    again = client.post("/v1/videos", json=ASKED, headers={"Idempotency-Key": "first"})
    assert again.json()["id"] == first["id"]  # it has been accepted before
    batch.finish(first)
    becomes(client, first, "completed")
    created(client)
    assert refusal(client.post("/v1/videos", json=ASKED), 429)
    assert client.delete(f"/v1/videos/{second['id']}").status_code == 200
    created(client)


def test_of_many_at_once_exactly_as_many_are_taken_as_there_is_room_for(serve, batch: Batch):
    client = serve(most_left=20)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: client.post("/v1/videos", json=ASKED), range(60)))
    taken = [answer.json()["id"] for answer in answers if answer.status_code == 200]
    assert len(taken) == 20 and {answer.status_code for answer in answers} == {200, 429}
    assert {line["id"] for line in read_lines(batch.storage)} == set(taken)


def test_a_request_that_is_made_again_finds_its_video_also_behind_another_door(serve, batch: Batch):
    client, named = serve(), {"Idempotency-Key": "order 66"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.post("/v1/videos", json=ASKED, headers=named), range(8)))
    [video_id] = {answer.json()["id"] for answer in answers}
    other = client.post("/v1/videos", json=ASKED | {"seed": 8}, headers=named)
    assert refusal(other, 422)["code"] == "idempotency_key_reused"
    assert refusal(client.post("/v1/videos", json=ASKED, headers={"Idempotency-Key": "x" * 256}), 400)
    later = serve()  # As after a kill: it has only the ledger.
    assert later.post("/v1/videos", json=ASKED, headers=named).json()["id"] == video_id
    assert refusal(later.post("/v1/videos", json=ASKED | {"seed": 8}, headers=named), 422)
    assert [line["id"] for line in read_lines(batch.storage)] == [video_id]
    assert "order 66" not in "".join(path.read_text() for path in (batch.out / "ledger").iterdir())


def test_a_video_that_waits_is_withdrawn_and_a_finished_one_is_gone_with_its_files(serve, batch: Batch):
    client = serve()
    waiting, running, finished = created(client), created(client), created(client)
    batch.tell("start", id=running["id"], n=1, g=0)
    batch.finish(finished)
    becomes(client, running, "in_progress"), becomes(client, finished, "completed")
    for video in (waiting, finished):
        deleted = {"id": video["id"], "object": "video.deleted", "deleted": True}
        assert client.delete(f"/v1/videos/{video['id']}").json() == deleted
        assert refusal(client.get(f"/v1/videos/{video['id']}"), 404)
        assert refusal(client.delete(f"/v1/videos/{video['id']}"), 404)
    assert refusal(client.delete(f"/v1/videos/{running['id']}"), 409)["code"] == "video_in_progress"
    assert list((batch.out / "videos").iterdir()) == []
    later = serve()
    assert [each["id"] for each in later.get("/v1/videos").json()["data"]] == [running["id"]]
    batch.finish(waiting)  # A driver had begun it by then.
    until(lambda: not list((batch.out / "videos").iterdir()), "what nobody wants to go")


def test_a_storage_that_refuses_is_told_and_what_was_refused_is_not_there(serve, batch: Batch):
    client = serve()
    first = created(client)
    (batch.out / "ledger").rename(batch.out / "away")
    (batch.out / "ledger").write_text("in the way")
    full = client.post("/v1/videos", json=ASKED)
    assert refusal(full, 503)["type"] == "server_error" and full.headers["Retry-After"]
    assert client.get(f"/v1/videos/{first['id']}").status_code == 200
    (batch.out / "ledger").unlink()
    (batch.out / "away").rename(batch.out / "ledger")
    assert created(client)["id"] in {line["id"] for line in read_lines(batch.storage)}
    assert len(list(read_lines(batch.storage))) == 2


def test_what_was_answered_is_there_after_the_door_was_closed_in_any_state(serve, batch: Batch):
    client: Callable[..., TestClient] = serve()
    videos = [created(client) for _ in range(4)]
    batch.tell("start", id=videos[0]["id"], n=1, g=0)
    batch.tell("fail", id=videos[1]["id"], n=1, g=0, error="no")
    batch.finish(videos[2])
    later = serve()
    assert [later.get(f"/v1/videos/{video['id']}").json()["status"] for video in videos] == [
        "in_progress", "failed", "completed", "queued"
    ]  # fmt: skip
