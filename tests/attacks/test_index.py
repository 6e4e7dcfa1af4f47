"""The index of attacks leads somewhere, and leaves nothing out."""

import re
from pathlib import Path

import tests.attacks as here

ROOT = Path(__file__).parents[2]


def test_every_attack_is_tried_where_the_index_says() -> None:
    named = re.findall(r"tests/[\w/]+\.py", here.__doc__ or "")
    assert len(named) > 20
    for path in named:
        assert "\ndef test_" in (ROOT / path).read_text(), f"{path} holds no test"


def test_no_attack_is_missing_from_the_index() -> None:
    own = {f"tests/attacks/{path.name}" for path in Path(__file__).parent.glob("test_*.py")}
    own.remove("tests/attacks/test_index.py")
    missing = {path for path in own if path not in (here.__doc__ or "")}
    assert not missing, "name them in tests/attacks/__init__.py"
