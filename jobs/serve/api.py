"""OpenAI's video API: its paths, what they take, and how they answer."""

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path, PurePosixPath

from fastapi import FastAPI, Request
from fastapi.concurrency import contextmanager_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from jobs.serve.asset import Asset
from jobs.serve.body import read_fields
from jobs.serve.door import Door
from jobs.serve.idempotency import HEADER
from jobs.serve.index import Order
from jobs.serve.refusal import Refusal, invalid, not_found, unavailable
from jobs.serve.token import TokenRequired
from jobs.serve.video import Deleted, Page, Video

MOST_A_PAGE, USUAL_A_PAGE = 100, 20
ORDERS: dict[str, Order] = {"asc": "asc", "desc": "desc"}


def make_api(door: Door, token_digest: str) -> FastAPI:
    """The application, which follows the batch while it lives."""

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        async with door.following():
            yield

    api = FastAPI(title="ResCa Render", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    api.add_middleware(TokenRequired, token_digest=token_digest)
    api.add_exception_handler(Refusal, _refused)
    api.add_exception_handler(HTTPException, _unknown)
    api.add_exception_handler(Exception, _unforeseen)
    _add_videos(api, door)
    _add_health(api, door)
    return api


def _add_videos(api: FastAPI, door: Door) -> None:
    @api.post("/v1/videos")
    async def create(request: Request) -> Video:
        return await door.create(await read_fields(request), request.headers.get(HEADER))

    @api.get("/v1/videos")
    async def page(request: Request) -> Page:
        asked = request.query_params
        limit, order = _limit(asked.get("limit")), _order(asked.get("order", "desc"))
        videos, has_more = door.page(after=asked.get("after"), limit=limit, order=order)
        first, last = (videos[0]["id"], videos[-1]["id"]) if videos else (None, None)
        return {"object": "list", "data": videos, "first_id": first, "last_id": last, "has_more": has_more}

    @api.get("/v1/videos/{item_id}")
    async def retrieve(item_id: str) -> Video:
        return door.retrieve(item_id)

    @api.get("/v1/videos/{item_id}/content", response_class=Response)
    async def content(item_id: str, variant: str = "video") -> Response:
        return StoredFile(*door.content(item_id, variant))

    @api.delete("/v1/videos/{item_id}")
    async def delete(item_id: str) -> Deleted:
        await door.delete(item_id)
        return {"id": item_id, "object": "video.deleted", "deleted": True}


def _add_health(api: FastAPI, door: Door) -> None:
    @api.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @api.get("/readyz")
    async def readyz() -> JSONResponse:
        status = "ready" if door.is_ready else "not ready"
        content = {"status": status, "is_rendering": door.is_rendering, "left": door.num_left}
        return JSONResponse(content, 200 if door.is_ready else 503)


class StoredFile(Response):
    """A file, in parts where those are asked for; a copy of one that lies elsewhere is gone afterwards."""

    def __init__(self, asset: Asset, opened: AbstractContextManager[Path]) -> None:
        super().__init__()
        self._asset, self._opened = asset, opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as stack:
            answer = await self._answer(stack)
            await answer(scope, receive, send)

    async def _answer(self, stack: AsyncExitStack) -> Response:
        try:
            path = await stack.enter_async_context(contextmanager_in_threadpool(self._opened))
        except FileNotFoundError:
            return _answer_to(not_found("its file is not there any more", code="video_gone"))
        except OSError:
            return _answer_to(unavailable("the storage of this service does not answer; try again later"))
        name, headers = PurePosixPath(self._asset.name).name, {"ETag": f'"{self._asset.tag}"'}
        return FileResponse(path, headers=headers, media_type=self._asset.media_type, filename=name)


def _limit(given: str | None) -> int:
    if given is None:
        return USUAL_A_PAGE
    if not (given.isdecimal() and len(given) < 10 and 1 <= int(given) <= MOST_A_PAGE):
        raise invalid(f"limit {given!r} must be a whole number from 1 to {MOST_A_PAGE}", param="limit")
    return int(given)


def _order(given: str) -> Order:
    if given not in ORDERS:
        raise invalid(f"order {given!r} must be asc or desc", param="order")
    return ORDERS[given]


def _answer_to(refusal: Refusal) -> JSONResponse:
    return JSONResponse(refusal.content, refusal.status, refusal.headers)


async def _refused(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    return _answer_to(refusal)


async def _unknown(request: Request, error: Exception) -> Response:
    """A path or a method that there is not."""
    assert isinstance(error, HTTPException)
    message, headers = f"{request.method} {request.url.path}: {error.detail}", error.headers or {}
    return _answer_to(Refusal(status=error.status_code, message=message, code="unknown_path", headers=headers))


async def _unforeseen(request: Request, error: Exception) -> Response:
    """Its stack is in the log."""
    return _answer_to(Refusal(status=500, message=f"this was not foreseen: {type(error).__name__}", code="unforeseen"))
