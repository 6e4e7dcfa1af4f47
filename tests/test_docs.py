"""The documents are true: links lead somewhere, named tests exist, numbers are the product's."""

import ast
import re
from dataclasses import MISSING, Field, fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import fields as fields_of
from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase

from authapp.assembly.capacity import POOL_SIZE
from authapp.config import Config
from authapp.passwords.block_list import BlockList
from authapp.passwords.context_words import SERVICE_WORDS
from authapp.passwords.policy import PasswordPolicy
from authapp.telemetry import metrics
from authapp.web.api.account import PasswordBody, ProfileBody
from authapp.web.api.representations import AccountView, MeView, RoleView, SessionView
from authapp.web.api.signup import SignupBody
from authapp.web.api.users import RolesBody, UserBody
from tests.web.test_authorization import MATRIX
from tests.web.test_limits import CALLS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
OUTAGES = (ROOT / "docs" / "outages.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"tests/[\w/]+\.py::\w+", PAGE + OUTAGES)))
WAY_IN = re.compile(
    r"(/api/v1)?/(login|passkeys/login|tokens|signup(-passkey)?|(account|me)/confirm)"
    r"(/(factor|passkey|refresh))*"
)
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def rows() -> list[list[str]]:
    """The rows of the tables that say what is met."""
    found: list[list[str]] = []
    judging = False
    for line in PAGE.splitlines():
        judging = line.startswith("|") and (judging or line.endswith("| shown by |"))
        if judging and not line.endswith("| shown by |") and "---" not in line:
            found.append(cells_of(line))
    return found


def part(title: str) -> str:
    """The text under a heading."""
    found = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    assert found, f"there is no part {title!r}"
    return found


@cache
def functions_of(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("named", NAMED)
def test_a_test_that_is_named_exists(named: str) -> None:
    path, _, name = named.partition("::")
    assert (ROOT / path).is_file(), f"there is no {path}"
    assert name in functions_of(path), f"{path} has no {name}"


def test_each_line_says_whether_it_is_met_and_what_is_met_names_a_test() -> None:
    assert len(rows()) > 100
    for row in rows():
        number, asked, state, how, shown = row
        assert state in {"met", "not yet", "not applicable"}, row
        assert asked, row
        assert how, row
        named = [shown[1:-1] for shown in shown.split()]
        assert bool(named) is (state == "met"), f"{number}: {asked}"
        assert set(named) <= set(NAMED), f"{number} names something else than tests: {shown}"


def test_what_is_missing_of_level_1_is_said_at_the_top() -> None:
    missing = [row[0].split()[0] for row in rows() if row[2] == "not yet" and "L1" in row[0]]
    said = f"Of Level 1, here is not yet: {', '.join(missing)}."
    assert (said if missing else "Every line of Level 1 is met.") in PAGE


def test_the_defaults_are_those_of_the_settings() -> None:
    defaults = {setting.name: setting.default for setting in fields(Config)}
    said = {}
    for line in PAGE.splitlines():
        if named := re.match(r"\| `([A-Z_]+)` \|", line):
            said[named[1]] = re.findall(r"\| `([^`]+)` \|", line[named.end() - 1 :])
    assert said == {name: [str(defaults[name])] for name in said}
    assert set(said) >= {
        *("LOGIN_LIMIT_PER_ADDRESS", "LOGIN_FAILURES_PER_ACCOUNT", "LOGIN_TIMEOUT_SECONDS"),
        *("SESSION_IDLE_SECONDS", "SESSION_ABSOLUTE_SECONDS", "REMEMBER_ME_SECONDS"),
        *("ACCESS_TOKEN_SECONDS", "SESSION_MAX_PER_USER", "BCRYPT_ROUNDS", "TRUSTED_PROXY_HOPS"),
    }
    assert Config.REMEMBER_ME_SECONDS <= 30 * 86_400, "NIST SP 800-63B-4, 2.1.3"


def test_the_context_words_are_those_that_are_refused() -> None:
    words = set(re.findall(r"`([a-z]+)`", part("Words that no password may be")))
    assert words == set(SERVICE_WORDS)
    for word in words:
        assert PasswordPolicy(15, BlockList()).why_refused(word * 3), word


def test_the_guide_counts_connections_as_they_are() -> None:
    guide = (ROOT / "docs" / "production.md").read_text(encoding="utf-8")
    assert f"up to {POOL_SIZE} connections of Postgres" in guide
    assert f"instances × workers × {POOL_SIZE + 1} must" in guide


def test_every_way_in_is_named() -> None:
    """Calls that take a password, and all others that log in, sign up or renew a session."""
    named = set(re.findall(r"`(/[\w/-]+)`", part("Every way in")))
    paths = re.findall(r"^POST +(\S+)", MATRIX, re.MULTILINE)
    by_link = {"/verify", "/api/v1/email/verify", "/reset", "/api/v1/password/reset"}
    assert named == {*CALLS, *filter(WAY_IN.fullmatch, paths), *by_link}


def test_every_field_has_a_rule() -> None:
    named = set(re.findall(r"`(\w+)`", part("Who may do what")))
    told = (MeView, AccountView, SessionView, RoleView)
    read = (SignupBody, ProfileBody, PasswordBody, UserBody, RolesBody)
    there_are = {field.name for record in (*told, *read) for field in fields_of(record)}
    assert there_are <= named, sorted(there_are - named)


def operations_told(title: str) -> set[str]:
    """The names in the first column of the table under a heading of docs/operations.md."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    lines = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0].splitlines()
    rows = [cells_of(line)[0] for line in lines if line.startswith("| `")]
    return set(re.findall(r"`(\w+)`", " ".join(rows)))


def test_every_metric_is_told() -> None:
    ours = [metric for metric in vars(metrics).values() if isinstance(metric, MetricWrapperBase)]
    names = {f"{metric._name}{'_total' * isinstance(metric, Counter)}" for metric in ours}
    assert operations_told("Metrics") == names


def test_every_warning_and_error_of_the_log_is_told() -> None:
    """Those that are events. The others are sentences."""
    logged = re.compile(r"_log\.(?:warning|error|exception)\(\s*\"([a-z_]+)\"")
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "authapp").rglob("*.py"))
    assert operations_told("Logs") == {event for text in sources for event in logged.findall(text)}


def without_code(text: str) -> str:
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", lambda code: code[0] if "](" not in code[0] else "", text)


def anchors_of(document: Path) -> set[str]:
    """The anchors that GitHub gives to headings."""
    text = without_code(document.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = (re.sub(r"[`*]", "", title).strip().lower() for title in titles)
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in plain}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", without_code(document.read_text(encoding="utf-8")))
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue  # another site
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), f"{document.name}: {link} leads nowhere"
        if anchor:
            assert anchor in anchors_of(target), f"{document.name}: {link} has no such heading"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_that_is_named_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for named in re.findall(r"`((?:authapp|tests|deploy|benchmarks)/[\w/.-]*)(?:::\w+)?`", text):
        made = "secrets" in named  # by deploy/make-secrets
        assert made or (ROOT / named).exists(), f"{document.name} names {named}"


def test_every_document_is_linked() -> None:
    """From the README, or from a document beside it."""
    texts = {document: document.read_text(encoding="utf-8") for document in DOCUMENTS}
    for document in DOCUMENTS[1:]:
        others = "".join(text for path, text in texts.items() if path != document)
        assert re.search(rf"\]\((docs/)?{document.name}(#[\w-]+)?\)", others), document.name


def test_the_readme_is_short() -> None:
    assert len(DOCUMENTS[0].read_bytes()) <= 8 << 10


def settings_told() -> dict[str, list[str]]:
    """The lines of docs/settings.md, by name: default, what is allowed, meaning."""
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    text = text.partition("\n## Settings of Flask")[0]
    lines = [cells_of(line) for line in text.splitlines() if line.startswith("| `")]
    assert len(lines) == len({line[0] for line in lines}), "each setting once"
    return {line[0].strip("`"): line[1:] for line in lines}


def default_told(setting: Field[Any]) -> str:
    if setting.name == "WEB_CONCURRENCY":
        return "processors"
    if setting.default is MISSING:
        return "required"
    if isinstance(setting.default, bool):
        return "on" if setting.default else "off"
    return "none" if setting.default in {"", ()} else f"`{setting.default}`"


def test_the_settings_are_all_there_with_their_defaults() -> None:
    told = {name: cells[0] for name, cells in settings_told().items()}
    assert told == {setting.name: default_told(setting) for setting in fields(Config)}


def test_the_settings_say_what_is_allowed() -> None:
    told = settings_told()
    for setting in fields(Config):
        parse, (_, allowed, meaning) = setting.metadata["parse"], told[setting.name]
        assert meaning, setting.name
        if bounds := re.fullmatch(r"(\d+) to (\d+)", allowed):
            low, high = map(int, bounds.groups())
            assert (parse(str(low)), parse(str(high))) == (low, high), setting.name
            for beyond in (low - 1, high + 1):
                with pytest.raises(ValueError, match="set it to a whole number"):
                    parse(str(beyond))
        else:
            assert setting.type is not int, f"{setting.name} needs its bounds"
