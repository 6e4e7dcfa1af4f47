"""The examples of the API, in the docs and in the README, do what stands there."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from authapp import dev
from authapp.services import utc_now
from tests.support.databases import add_migrated_database
from tests.support.instances import ROOT, serving
from tests.support.people import PASSWORD
from tests.support.services import open_services
from tests.support.settings import environment_for, make_config

ADMIN = "root@example.org"
DOCS = (ROOT / "docs/api.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Use it from a program\n")[2]
README = README.partition("\n## ")[0]
DIFFERS = "…"  # what differs each time
MARK = "-- the next example --"

needs_curl = pytest.mark.skipif(
    not shutil.which("curl"), reason="NO curl, so nobody runs these examples: apt-get install curl"
)


@dataclass(frozen=True)
class Example:
    """A command or script, and the output that stands below it: lines, or JSON."""

    code: str
    kind: str
    shown: str


def examples(language: str) -> list[Example]:
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)
    return [
        Example(code, *(below if below[0] in {"text", "json"} else ("text", "")))
        for (kind, code), below in zip(blocks, [*blocks[1:], ("", "")], strict=True)
        if kind == language
    ]


CURL, PYTHON = examples("sh"), examples("python")


@pytest.fixture(scope="module")
def reader(
    served_by: str,
    postgres: dev.PostgreSQL,
    valkey: dev.Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Mapping[str, str]]:
    """The environment of somebody who reads them beside an instance that runs."""
    url = add_migrated_database(postgres.url, "examples")
    secret = "a secret key for the examples only"
    with open_services(make_config(url, valkey.url, SECRET_KEY=secret), utc_now) as services:
        services.registration.sign_up(ADMIN, PASSWORD, roles=("admin", "user"))
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()  # ours; other tests used up limits
    environment = environment_for(
        url,
        valkey.url,
        SECRET_KEY=secret,
        SESSION_COOKIE_SECURE="0",  # as `make run` has it
    )
    home = tmp_path_factory.mktemp("examples")
    with serving("wsgi:app", environment, home / f"{served_by}.log") as instance:
        yield {
            "PATH": environment["PATH"],
            "HOME": str(home),
            "AUTHAPP": f"http://127.0.0.1:{instance.port}",
            "ADMIN_EMAIL": ADMIN,
            "ADMIN_PASSWORD": PASSWORD,
        }


def run(command: Sequence[str], reader: Mapping[str, str]) -> str:
    """The output of a command; it must end well."""
    done = subprocess.run(
        command,
        check=False,
        env=dict(reader),
        cwd=reader["HOME"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def printed(
    command: Sequence[str], mark: str, among: list[Example], reader: Mapping[str, str]
) -> list[str]:
    """The output of each example, when all are run as one script."""
    script = f"{mark}\n".join(example.code for example in among)
    return run([*command, script], reader).split(f"{MARK}\n")


@pytest.fixture(scope="module")
def printed_by_curl(reader: Mapping[str, str]) -> list[str]:
    return printed(["sh", "-euc"], f"echo '{MARK}'", CURL, reader)


@pytest.fixture(scope="module")
def printed_by_python(reader: Mapping[str, str]) -> list[str]:
    return printed([sys.executable, "-c"], f"print({MARK!r}, flush=True)", PYTHON, reader)


def values(text: str) -> list[Any]:
    """The JSON values in a text, one after the other."""
    found, text = [], text.strip()
    while text:
        value, end = json.JSONDecoder().raw_decode(text)
        found.append(value)
        text = text[end:].strip()
    return found


def fits(shown: Any, came: Any) -> bool:
    if isinstance(shown, dict) and isinstance(came, dict):
        return shown.keys() == came.keys() and all(fits(shown[k], came[k]) for k in shown)
    if isinstance(shown, list) and isinstance(came, list):
        return len(shown) == len(came) and all(map(fits, shown, came))
    return bool(shown == came or (shown == DIFFERS and came))


def assert_as_shown(example: Example, came: str) -> None:
    if example.kind == "json":
        assert fits(values(example.shown), values(came)), came
        return
    pattern = re.escape(example.shown.rstrip()).replace(re.escape(DIFFERS), ".*")
    assert re.fullmatch(pattern, came.rstrip(), re.IGNORECASE), came  # names of headers are


@needs_curl
@pytest.mark.parametrize("number", range(len(CURL)))
def test_curl(printed_by_curl: list[str], number: int) -> None:
    assert_as_shown(CURL[number], printed_by_curl[number])


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_python(printed_by_python: list[str], number: int) -> None:
    assert_as_shown(PYTHON[number], printed_by_python[number])


@needs_curl
def test_readme(reader: Mapping[str, str]) -> None:
    """Nothing in it is refused."""
    scripts = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert len(scripts) == 2
    Path(reader["HOME"], ".curlrc").write_text("fail\nshow-error\n")
    answers = values(run(["sh", "-euc", "\n".join(scripts)], reader))
    assert [a.get("email") for a in answers if "email" in a] == ["ann@example.org"] * 3
    assert "session" in answers[1]


def test_the_examples_are_found() -> None:
    assert len(CURL) >= 10
    assert len(PYTHON) >= 9
    assert len([e for e in CURL + PYTHON if not e.shown]) == 2, (
        "but the first, each prints something"
    )


@pytest.mark.parametrize(
    ("shown", "came", "good"),
    [
        ('{"a": "…"}', '{"a": "1"}', True),
        ('{"a": "…"}', '{"a": ""}', False),
        ('{"a": "…"}', '{"a": "1", "b": 2}', False),
        ('{"a": [1, "…"]}', '{"a": [1]}', False),
        ('{"a": 1} {"b": 2}', '{"a": 1}', False),
    ],
)
def test_a_difference_is_seen(shown: str, came: str, good: bool) -> None:
    """The control."""
    assert fits(values(shown), values(came)) is good
