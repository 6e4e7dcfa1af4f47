"""Request bodies: their limits, and JSON as typed records with errors by field."""

import json
from collections.abc import Collection
from io import RawIOBase
from typing import IO, Any, TypeVar

import msgspec
from flask import Request
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from authapp.errors import InvalidField, InvalidJson

T = TypeVar("T", bound=msgspec.Struct)
MAX_BODY = 64 * 1024  # bytes: more than anything we read; above that it is refused (413)
MAX_FORM = 12 * 1024  # bytes: more than any form of ours needs
MAX_FIELDS = 50  # of a form or a query
_MAX_ERRORS = 10
_FORM = "application/x-www-form-urlencoded"
_NO_JSON = "The body is not valid JSON."

# Values stay as they are written until their field is known: to read thousands of numbers, which
# no field of ours takes, is slow.
_by_name = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_body(request: Request, kind: type[T]) -> T:
    """The body as a `kind`.

    Raises:
        UnsupportedMediaType: it does not call itself JSON.
        InvalidJson: it is no JSON object.
        InvalidField: unknown, missing, repeated or ill-typed fields, each with its reason.
    """
    if not request.is_json:
        raise UnsupportedMediaType("Send the body as application/json.")
    data = _whole(request)
    try:
        body = _by_name(data)
        _refuse_repeated(data)
    except msgspec.ValidationError:
        raise InvalidJson("The body is not a JSON object.") from None
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise InvalidJson(_NO_JSON) from None
    known = {field.name: field for field in msgspec.structs.fields(kind)}
    found: dict[str, object] = {}
    errors: dict[str, str] = {}
    for name, value in body.items():
        if name not in known:
            if len(errors) < _MAX_ERRORS:
                errors[name[:50]] = _unknown(known)
            continue
        try:
            found[name] = msgspec.json.decode(value, type=known[name].type)
        except msgspec.ValidationError as error:
            errors[name] = str(error)
        except (msgspec.DecodeError, RecursionError, ValueError):
            raise InvalidJson(_NO_JSON) from None
    for name, field in known.items():
        if field.required and name not in body:
            errors[name] = "this field is required"
    if errors:
        raise InvalidField(errors)
    return kind(**found)


class NoFields(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a call that takes none."""


def has_body(request: Request) -> bool:
    """Whether a request brings a body that is not empty."""
    if request.content_length is not None:
        return request.content_length > 0
    return "HTTP_TRANSFER_ENCODING" in request.environ and bool(_whole(request, cache=True))


def read_form(request: Request, longest: int = MAX_FORM) -> MultiDict[str, str]:
    """The fields of a form, as a page sends it.

    Args:
        longest: bytes.
    Raises:
        RequestEntityTooLarge: longer, or with more fields, than any form of ours.
    """
    request.max_content_length = min(longest, request.max_content_length or longest)
    request.max_form_parts = MAX_FIELDS
    if request.mimetype == _FORM and _whole(request, cache=True).count(b"&") > MAX_FIELDS:
        raise RequestEntityTooLarge
    return request.form


def _unknown(known: Collection[str]) -> str:
    return f"unknown field; known are: {', '.join(known)}" if known else "this call takes no fields"


def _refuse_repeated(data: bytes) -> None:
    """Readers differ in which of two fields of one name they take (RFC 8259, 4): what a gateway
    has checked may not be what we read. msgspec takes the last and can't say that there were more.
    """

    def note(pairs: list[tuple[str, Any]]) -> None:
        names: set[str] = set()
        for name, _ in pairs:
            if name in names:
                raise InvalidField({name[:50]: "this field is given more than once"})
            names.add(name)

    # numbers stay text: Python refuses to read thousands of digits
    json.loads(data, object_pairs_hook=note, parse_int=str, parse_float=str)


def expect_whole_body(request: Request) -> None:
    """Has a body refused (400) that ends before the Content-Length it announced (RFC 9112, 8):
    what came may look like a whole one, with a shorter password in it.

    gunicorn promises that the stream ends with the body, and so keeps Werkzeug from counting.
    """
    if "CONTENT_LENGTH" in request.environ and request.content_length is not None:
        request.environ.pop("wsgi.input_terminated", None)
    elif "HTTP_TRANSFER_ENCODING" in request.environ:
        request.environ["wsgi.input"] = _ChunkedBody(request.environ["wsgi.input"])


class _ChunkedBody(RawIOBase):
    """A body that comes in chunks. Malformed chunks are the client's fault (400): gunicorn raises
    errors of its own at them, which would pass for a fault of ours (500).
    """

    def __init__(self, body: IO[bytes]) -> None:
        self._body = body

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        try:
            return self._body.read(size)
        except Exception as error:
            raise BadRequest("The chunks of the body can't be read.") from error

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _whole(request: Request, *, cache: bool = False) -> bytes:
    data = request.get_data(cache=cache)
    if request.content_length is None:
        request.stream.read(1)  # a chunked body was cut at the limit; says so with 413
    return data
