"""Paths as path rules compare them: decoded, and only where everybody reads the same path."""

import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

Segments = tuple[str, ...]

# RFC 3986, 2.1 and 3.3; a backslash is a slash to some, a hash sign ends a path
_MALFORMED = re.compile(r"%(?![0-9A-Fa-f]{2})|[\x00-\x20\x7f\\#?]")
_ENCODED = re.compile(r"%(?:2f|2e|5c)", re.IGNORECASE)  # "/", "." and "\"


def segments_of(path: str) -> Segments | None:
    """The decoded segments of a path; None: it is not in normal form.

    Some proxies and apps read such a path in another way than others, and so as another page.

    Args:
        path: as it was written, not decoded; bytes as Latin-1, as WSGI has them.
    """
    if not path.startswith("/") or _MALFORMED.search(path) or _ENCODED.search(path):
        return None
    try:
        decoded = unquote_to_bytes(path.encode("latin-1")).decode("utf-8")
    except UnicodeError:
        return None
    # whatever is still encoded now would be decoded by an app that decodes twice
    if _ENCODED.search(decoded) or any(c < " " or c == "\x7f" for c in decoded):
        return None
    return _sound(tuple(decoded[1:].split("/")))


def _sound(segments: Segments) -> Segments | None:
    """These segments, without dot segments and without empty ones, but for the last."""
    if "" in segments[:-1] or "." in segments or ".." in segments:
        return None
    return segments


def other_readings(segments: Segments) -> Iterator[Segments | None]:
    """How some apps read these segments, besides as they are; None: as no path in normal form.

    Servlet containers cut each segment at `;`.
    """
    if any(";" in segment for segment in segments):
        yield _sound(tuple(segment.partition(";")[0] for segment in segments))


def folded(segments: Segments) -> Segments:
    """In lower case: Express and others do not tell upper case from lower case."""
    return tuple(segment.casefold() for segment in segments)
