"""What a request asks for: its body, JSON or a form, as the fields of a line of a prompt file."""

from collections.abc import AsyncGenerator

from fastapi import Request
from pydantic import JsonValue
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from jobs.errors import BadInput
from jobs.models.family import Json
from jobs.request.prompt_lines import cell_value, field_list, parsed
from jobs.serve.refusal import Refusal, invalid

MOST_BYTES = 1 << 18
MOST_FIELDS = 64
WHERE = "the request"
IMAGE = "input_reference"
FIELDS = (
    *("prompt", "model", "seconds", "size", "height", "width", "num_frames"),
    *("seed", "steps", "method", "guidance", "negative_prompt", "fps", "priority"),
)


async def read_fields(request: Request) -> Json:
    """The fields of a request, those that are null left out.

    Raises Refusal for a body that is too big, cannot be read, or asks for what there is not.
    """
    body = await _read(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        given = await _form(request.headers, body)
    elif kind == "application/json":
        given = _json(body)
    else:
        raise invalid(f"the content type {kind or 'is missing; it'} must be application/json or multipart/form-data")
    fields: Json = {name: value for name, value in given.items() if value is not None}
    if IMAGE in fields:
        raise invalid("no model here starts from an image; leave out input_reference", param=IMAGE)
    if unknown := [name for name in fields if name not in FIELDS]:
        known = ", ".join(FIELDS)
        raise invalid(f"unknown {field_list(unknown)}; known: {known}", param=unknown[0], code="unknown_parameter")
    return fields


async def _read(request: Request) -> bytes:
    """The body, of which no more is read than is allowed, whatever its header says."""
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > MOST_BYTES:
        raise _too_big()
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise _too_big()
    return bytes(body)


def _too_big() -> Refusal:
    message = f"the body may have at most {MOST_BYTES >> 10} KiB"
    return Refusal(status=413, message=message, code="body_too_big", headers={"Connection": "close"})


def _json(body: bytes) -> Json:
    try:
        value = parsed(body.decode(), WHERE)
    except UnicodeDecodeError:
        raise invalid("the body is not UTF-8") from None
    except BadInput as error:
        raise invalid(str(error)) from error
    if not isinstance(value, dict):
        raise invalid('the body must be a JSON object such as {"prompt": "..."}')
    return value


async def _form(headers: Headers, body: bytes) -> Json:
    """The texts of a form, numbers where they belong, as in the cells of a table."""

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(headers, chunks(), max_files=1, max_fields=MOST_FIELDS, max_part_size=MOST_BYTES)
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise invalid(f"the form cannot be read: {getattr(error, 'message', error)}") from error
    names = [name for name, _ in form.multi_items()]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise invalid(f"field {twice!r} stands twice", param=twice)
    return {name: _value(name, each) for name, each in form.multi_items()}


def _value(name: str, value: str | UploadFile) -> JsonValue:
    if isinstance(value, UploadFile):
        if name != IMAGE:
            raise invalid(f"field {name!r} must be text, not a file", param=name)
        return value.filename
    return cell_value(name, value.strip()) if value.strip() else None
