"""The structure holds: imports point down, and every module says what lives in it."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST_FILE = 400  # lines
LARGEST_FOLDER = 14  # modules, without `__init__`
MODULES = sorted(
    path
    for path in (ROOT / "authapp").rglob("*.py")
    if "migrations/versions" not in path.as_posix()
)


def test_imports_point_down() -> None:
    linted = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert linted.returncode == 0, (
        "an import points up, or a new module is in no layer; move the code to the layer that may "
        f"know it, or add the module to its layer in pyproject.toml:\n{linted.stdout}"
    )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_opens_with_what_lives_in_it(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, f"{path.name} needs a first line that says what lives in it"


def test_a_file_can_be_read_in_one_go() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    too_long = {
        path.relative_to(ROOT).as_posix(): lines
        for path, lines in lengths.items()
        if lines > LONGEST_FILE
    }
    assert not too_long, f"move a noun of its own to a file beside it: {too_long}"


def test_a_folder_can_be_taken_in_at_a_glance() -> None:
    folders = Counter(path.parent for path in MODULES if path.stem != "__init__")
    too_full = {
        folder.relative_to(ROOT).as_posix(): modules
        for folder, modules in folders.items()
        if modules > LARGEST_FOLDER
    }
    assert not too_full, f"make a room within it for what belongs together: {too_full}"


def test_the_tour_names_every_module() -> None:
    tour = ast.get_docstring(ast.parse((ROOT / "authapp/__init__.py").read_text("utf-8"))) or ""
    named = set(re.findall(r"\w+", tour))
    top = ROOT / "authapp"
    rooms = {path.parent.name for path in top.glob("*/__init__.py")}
    there = {path.stem for path in top.glob("*.py")} - {"__init__"} | rooms
    assert there <= named, f"name them in authapp/__init__.py: {sorted(there - named)}"


def test_no_view_drops_whether_a_change_is_everywhere() -> None:
    """A view that calls a change and drops its result would answer 200 or 204 in place of 202."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}
    changes = {
        node.name
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.returns
        if "Changed[" in ast.unparse(node.returns)
    }
    assert {"update_profile", "end_one", "log_out_of", "change_password"} <= changes
    dropped = [
        f"{path.name}:{node.lineno}"
        for path, tree in trees.items()
        if path.is_relative_to(ROOT / "authapp/web")
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        if isinstance(called := node.value.func, ast.Attribute) and called.attr in changes
    ]
    assert not dropped, f"give the result to `settle`: {dropped}"
