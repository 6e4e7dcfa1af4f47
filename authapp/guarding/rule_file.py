"""Reads the file that GUARD_RULES names, and says which line to correct, and how."""

import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from authapp.errors import SettingError
from authapp.guarding.paths import Segments, segments_of
from authapp.guarding.rules import GuardRules, Rule, without_usual_port

_MAX_BYTES = 1024 * 1024
_KEYS = ("host", "path", "methods", "allow", "roles", "factor", "verified")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
_HOST = re.compile(rf"(?:(?:\*\.)?{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]+\])(?::[0-9]{{1,5}})?")
_METHOD = re.compile(r"[A-Z][A-Z-]{1,30}")


def read_rules(file: str) -> GuardRules | None:
    """
    Args:
        file: a path; empty: there are no rules.

    Raises:
        SettingError: it can't be used; one line that names the line and the remedy.
    """
    if not file:
        return None
    try:
        return GuardRules(_parse(_read(file)))
    except ValueError as error:
        raise SettingError(f"GUARD_RULES: {file}: {error}") from None


def _read(file: str) -> str:
    try:
        with Path(file).open("rb") as opened:
            content = opened.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(
            f"it can't be read ({error.strerror}); name a file of path rules"
        ) from None
    if len(content) > _MAX_BYTES:
        raise ValueError("it is larger than 1 MiB; name a file of path rules")
    return content.decode("utf-8")  # its error is a ValueError


def _parse(text: str) -> list[Rule]:
    content = tomllib.loads(text)  # its error is a ValueError that names the line
    listed: Any = content.get("rules")
    if set(content) != {"rules"} or not _is_list_of(listed, dict):
        wrong = sorted(set(content) - {"rules"})
        raise ValueError(
            "write each rule below a line [[rules]]"
            + (f"; {wrong[0]!r} has no meaning beside them" if wrong else "")
        )
    rules: list[Rule] = []
    for number, (entry, place) in enumerate(
        zip(listed, _places(text, len(listed)), strict=True), 1
    ):
        try:
            rules.append(_rule(number, entry))
            _see_that_it_applies(rules)
        except ValueError as error:
            raise ValueError(f"rule {number}{place}: {error}") from None
    return rules


def _places(text: str, count: int) -> list[str]:
    """Where each rule begins, in words; TOML has other ways to write them, then it is left out."""
    lines = [
        number
        for number, line in enumerate(text.splitlines(), 1)
        if re.match(r"\s*\[\[\s*rules\s*\]\]", line)
    ]
    return [f" (line {line})" for line in lines] if len(lines) == count else [""] * count


def _rule(number: int, entry: Mapping[str, Any]) -> Rule:
    for key in entry:
        if key not in _KEYS:
            near = get_close_matches(key, _KEYS, 1)
            remedy = f"write {near[0]}" if near else f"there are {', '.join(_KEYS)}"
            raise ValueError(f"{key!r} has no meaning; {remedy}")
    is_public = _is_public(entry)
    return Rule(
        number,
        hosts=tuple(map(_host, _texts(entry, "host", '"app.example.org"'))),
        paths=tuple(map(_path, _texts(entry, "path", '"/admin"', default=("/",)))),
        methods=frozenset(map(_method, _texts(entry, "methods", '["GET", "POST"]', default=()))),
        is_public=is_public,
        roles=_texts(entry, "roles", '["staff"]', default=()),
        needs_factor=_one_of(entry, "factor", {1: False, 2: True}, "factor = 2"),
        needs_verified=_one_of(entry, "verified", {False: False, True: True}, "verified = true"),
    )


def _is_public(entry: Mapping[str, Any]) -> bool:
    allow = entry.get("allow")
    demands = [key for key in ("roles", "factor", "verified") if key in entry]
    if allow is None and not demands:
        raise ValueError('say who may pass: allow = "public" or allow = "signed-in", or roles')
    if allow not in {None, "public", "signed-in"}:
        raise ValueError('write allow = "public" or allow = "signed-in"')
    if allow == "public" and demands:
        raise ValueError(f"what is public demands nothing; leave out allow or {demands[0]}")
    return allow == "public"


def _texts(
    entry: Mapping[str, Any], key: str, example: str, default: tuple[str, ...] | None = None
) -> tuple[str, ...]:
    """One text, or a list of some."""
    if key not in entry and default is not None:
        return default
    value = entry.get(key)
    values = [value] if isinstance(value, str) else value
    if not values or not _is_list_of(values, str) or not all(values):
        raise ValueError(f"write {key} = {example}")
    return tuple(values)


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _host(text: str) -> str:
    host = text.lower()
    if not _HOST.fullmatch(host):
        raise ValueError(
            f"{text!r} is no host: write it like app.example.org, app.example.org:8443 "
            "or *.example.org"
        )
    return without_usual_port(host)


def _path(text: str) -> Segments:
    """A beginning of paths; a slash at its end makes no difference."""
    segments = segments_of(text.encode().decode("latin-1"))
    if segments is None or "*" in text:
        raise ValueError(
            f"{text!r} is no beginning of paths in normal form: write it like /admin, "
            "which is /admin and all below"
        )
    return segments[:-1] if segments[-1] == "" else segments


def _method(text: str) -> str:
    if not _METHOD.fullmatch(text):
        raise ValueError(f"{text!r} is no method: write it in capitals, like POST")
    if text == "HEAD":
        raise ValueError("HEAD goes with GET: write GET")
    return text


def _one_of(entry: Mapping[str, Any], key: str, meanings: Mapping[int, bool], example: str) -> bool:
    """Reads a value that may be left out. To Python, 1 and true are the same."""
    for value, meaning in meanings.items():
        if key in entry and type(entry[key]) is type(value) and entry[key] == value:
            return meaning
    if key in entry:
        raise ValueError(f"write {example}, or leave it out")
    return False


def _see_that_it_applies(rules: list[Rule]) -> None:
    *earlier, last = rules
    for rule in earlier:
        if rule.takes_all_of(last):
            raise ValueError(
                f"it never applies, because rule {rule.number} takes all of its requests: "
                "put it before that"
            )
