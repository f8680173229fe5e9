"""A door in front of a batch's directory, without Ray: what a driver does there, tests write into its ledger."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from jobs.models.facts import read_facts
from jobs.options.batch import RenderOptions
from jobs.serve.api import make_api
from jobs.serve.batch_queue import BatchQueue
from jobs.serve.checked import Checker
from jobs.serve.door import Door, Terms
from jobs.serve.token import digest
from jobs.store.items import BatchSettings, RenderItem
from jobs.store.ledger import Ledger
from jobs.store.open import open_storage
from tests.jobs.models.test_facts import make_model
from tests.jobs.store.example import finish, settings
from tests.jobs.survival.harness import until

TOKEN = "a-token-of-enough-letters"
AUTHORIZATION = {"Authorization": f"Bearer {TOKEN}"}
PERIOD_S = 0.02


class Batch:
    """A directory with a batch: as a driver writes into it, and as a door reads of it."""

    def __init__(self, out: Path, model: Path) -> None:
        self.out, self.model = out, model
        self.storage = open_storage(out)
        self.settings: BatchSettings = settings(out, model=str(model))
        self.ledger = Ledger(self.storage)

    def tell(self, kind: str, **facts: Any) -> None:
        self.ledger.add(kind, **facts)
        self.ledger.flush()

    def finish(self, video: dict[str, Any]) -> None:
        """A file, a sidecar and a line in the ledger."""
        self.tell("start", id=video["id"], n=1, g=0)
        finish(self.settings, self.item(video))

    def item(self, video: dict[str, Any]) -> RenderItem:
        width, height = map(int, video["size"].split("x"))
        frames = round(float(video["seconds"]) * 8) + 1
        facts = {name: video[name] for name in ("id", "prompt", "seed")}
        return RenderItem(**facts, height=height, width=width, num_frames=frames, steps=12)

    def door(self, **terms: Any) -> Door:
        options = RenderOptions(out=str(self.out), model=str(self.model))
        check = Checker(options, read_facts(str(self.model)))
        given = {"model": "the-model", "fps": 8, "most_left": 100, "period_s": PERIOD_S, **terms}
        return Door(BatchQueue(open_storage(self.out)), check, Terms(**given))


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    model = make_model(
        tmp_path / "model", {"num_attention_heads": 4}, height=64, width=64, num_frames=5, fps=8, steps=12
    )
    return Batch(tmp_path / "out", model)


@pytest.fixture
def serve(batch: Batch) -> Iterator[Callable[..., TestClient]]:
    """Opens the door once more, and gives a client that has the token; when it has read the ledger."""
    with ExitStack() as stack:

        def serve(**terms: Any) -> TestClient:
            api = make_api(batch.door(**terms), digest(TOKEN.encode()))
            client = stack.enter_context(TestClient(api, headers=AUTHORIZATION))
            until(lambda: client.get("/readyz").status_code == 200, "the ledger to be read")
            return client

        yield serve


@pytest.fixture
def client(serve: Callable[..., TestClient]) -> TestClient:
    return serve()
