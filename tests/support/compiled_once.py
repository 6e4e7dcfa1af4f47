"""Compiles each template and each route once in a process, not once for each of a thousand apps.

Half of what a test with an app of its own costs is the compiler, which makes the same code again.
"""

from collections.abc import Callable
from types import CodeType
from typing import Any

from flask import Flask
from jinja2 import BytecodeCache
from jinja2.bccache import Bucket
from werkzeug.routing import Rule

Builder = Callable[..., tuple[str, str]]


class CodeInMemory(BytecodeCache):
    """The code of templates, by name and source. Jinja asks it before it compiles one."""

    def __init__(self) -> None:
        self._code: dict[tuple[str, str], CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._code.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        assert bucket.code is not None
        self._code[bucket.key, bucket.checksum] = bucket.code


def compile_once() -> None:
    """For all apps of this process that are made from now on."""
    Flask.jinja_options = {"bytecode_cache": CodeInMemory()}
    rule: Any = Rule  # Werkzeug has no public place for this
    rule._compile_builder = _once(rule._compile_builder)


def _once(compile_builder: Callable[[Any, bool], Builder]) -> Callable[[Any, bool], Builder]:
    """As `compile_builder`, which writes a function that builds the URLs of a route.

    All that it reads is in the key, but for defaults; routes with these are compiled each time.
    """
    made: dict[tuple[object, ...], Builder] = {}

    def compiled(rule: Any, append_unknown: bool = True) -> Builder:
        if rule.defaults:
            return compile_builder(rule, append_unknown)
        key = (rule.rule, *rule._trace, append_unknown)
        if key not in made:
            made[key] = compile_builder(rule, append_unknown)
        return made[key]

    return compiled
