"""Readers for the files of deploy/."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def compose(name: str = "compose.yaml") -> dict[str, Any]:
    """A Compose file with its anchors resolved."""
    found: dict[str, Any] = json.loads(json.dumps(YAML(typ="safe").load(DEPLOY / name)))
    return found


def dockerfile() -> list[tuple[str, str]]:
    """Its instructions, each with its arguments, in order."""
    text = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text())
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    parts = (line.strip().partition(" ") for line in lines)
    return [(name, arguments.strip()) for name, _, arguments in parts]


def copied_by_dockerfile() -> list[str]:
    """The paths of the repository that get into the last stage."""
    last = max(n for n, (name, _) in enumerate(dockerfile()) if name == "FROM")
    copies = [arguments.split() for name, arguments in dockerfile()[last:] if name == "COPY"]
    return [path for words in copies if "--from" not in words[0] for path in words[:-1]]


def read_env(path: Path) -> dict[str, str]:
    lines = (line.partition("=") for line in path.read_text().splitlines())
    return {name: value for name, _, value in lines}


def of_file(name: str, changes: Mapping[str, str]) -> dict[str, str]:
    """The changes of texts that this file has."""
    text = (DEPLOY / name).read_text()
    return {old: new for old, new in changes.items() if old in text}


def adapted(name: str, changes: dict[str, str]) -> str:
    """A file with other places in it; each of those must be there to be replaced."""
    text = (DEPLOY / name).read_text()
    for old, new in changes.items():
        assert old in text, f"deploy/{name} no longer says {old!r}: adapt the tests"
        text = text.replace(old, new)
    return text
