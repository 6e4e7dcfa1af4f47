"""Path rules: the first that matches counts, and what no rule is about is refused."""

from pathlib import Path

import pytest

from authapp.errors import Forbidden, SettingError
from authapp.guarding.rule_file import read_rules
from authapp.guarding.rules import GuardRules

RULES = """
[[rules]]
host = "app.example.org"
path = "/api"
methods = "OPTIONS"
allow = "public"

[[rules]]
host = "app.example.org"
path = ["/assets", "/login/help/"]
methods = ["GET"]
allow = "public"

[[rules]]
host = "app.example.org"
path = "/admin"
roles = ["admin", "staff"]
factor = 2
verified = true

[[rules]]
host = ["app.example.org", "*.shop.example.org:8443"]
allow = "signed-in"

[[rules]]
host = "api.example.org"
path = "/v1"
verified = true
"""


def read(text: str, folder: Path) -> GuardRules:
    file = folder / "rules.toml"
    file.write_text(text, encoding="utf-8")
    rules = read_rules(str(file))
    assert rules is not None
    return rules


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> GuardRules:
    return read(RULES, tmp_path_factory.mktemp("rules"))


MATCHES = {
    ("OPTIONS", "app.example.org", "/api/notes"): 1,
    ("GET", "app.example.org", "/api/notes"): 4,
    ("OPTIONS", "app.example.org", "/apis"): 4,
    ("GET", "app.example.org", "/assets/a.css"): 2,
    ("HEAD", "app.example.org", "/assets"): 2,
    ("POST", "app.example.org", "/assets"): 4,
    ("get", "app.example.org", "/assets"): 4,
    ("GET", "app.example.org", "/login/help"): 2,
    ("GET", "app.example.org", "/login"): 4,
    ("GET", "app.example.org", "/admin"): 3,
    ("GET", "app.example.org", "/admin/"): 3,
    ("BREW", "app.example.org", "/admin/x"): 3,
    ("GET", "app.example.org", "/%61dmin/x"): 3,
    ("GET", "app.example.org", "/administrator"): 4,
    ("GET", "APP.example.org:443", "/admin"): 3,
    ("GET", "app.example.org:80", "/"): 4,
    ("GET", "a.shop.example.org:8443", "/"): 4,
    ("GET", "a.b.shop.example.org:8443", "/admin"): 4,
    ("GET", "api.example.org", "/v1/x"): 5,
    ("GET", "app.example.org", "/a;b=1/c"): 4,
    ("GET", "app.example.org", "/Page"): 4,
}


@pytest.mark.parametrize("asked", MATCHES, ids=" ".join)
def test_the_first_rule_that_matches_counts(rules: GuardRules, asked: tuple[str, str, str]) -> None:
    assert rules.find(*asked).number == MATCHES[asked]


REFUSED = {
    ("GET", "other.example.org", "/"): "this host is not guarded here",
    ("GET", "app.example.org.", "/"): "this host is not guarded here",
    ("GET", "app.example.org:8443", "/"): "this host is not guarded here",
    ("GET", "shop.example.org:8443", "/"): "this host is not guarded here",
    ("GET", ".shop.example.org:8443", "/"): "this host is not guarded here",
    ("GET", "evilshop.example.org:8443", "/"): "this host is not guarded here",
    ("GET", "api.example.org", "/"): "no rule lets anybody see this page",
    ("GET", "api.example.org", "/v10"): "no rule lets anybody see this page",
    ("GET", "app.example.org", "/x/../admin"): "not in normal form",
    ("GET", "app.example.org", "//admin"): "not in normal form",
    ("GET", "app.example.org", "/x%2fadmin"): "not in normal form",
    ("GET", "app.example.org", "/%2e%2e/admin"): "not in normal form",
    ("GET", "app.example.org", "/x\\admin"): "not in normal form",
    ("GET", "app.example.org", "/%c0%ae"): "not in normal form",
    ("GET", "app.example.org", "/admin;x/a"): "two ways",
    ("GET", "app.example.org", "/x/..;/admin"): "two ways",
    ("GET", "app.example.org", "/ADMIN/a"): "two ways",
    ("GET", "app.example.org", "/Assets/a"): "two ways",
    ("", "app.example.org", "/"): "the proxy does not say",
    ("GET", "", "/"): "the proxy does not say",
    ("GET", "app.example.org", ""): "the proxy does not say",
}


@pytest.mark.parametrize("asked", REFUSED, ids=" ".join)
def test_what_no_rule_is_about_is_refused(rules: GuardRules, asked: tuple[str, str, str]) -> None:
    with pytest.raises(Forbidden, match=REFUSED[asked]):
        rules.find(*asked)


def test_rules_say_what_they_demand(rules: GuardRules) -> None:
    assert [str(rule) for rule in rules.rules] == [
        "OPTIONS app.example.org, /api: public",
        "GET app.example.org, /assets or /login/help: public",
        "app.example.org, /admin: signed in, role admin or staff, second factor, verified address",
        "app.example.org or *.shop.example.org:8443, /: signed in",
        "api.example.org, /v1: signed in, verified address",
    ]


HEAD = '[[rules]]\nhost = "a.example.org"\n'
MISTAKES = {
    "": "write each rule below a line [[rules]]",
    "rules = 1": "write each rule below a line [[rules]]",
    f'default = "deny"\n{HEAD}allow = "public"': "'default' has no meaning beside them",
    "[[rules]\n": "at line 1, column 8",
    HEAD: "rule 1 (line 1): say who may pass",
    f'{HEAD}allow = "all"': "rule 1 (line 1): write allow =",
    f'{HEAD}allow = "public"\nroles = ["a"]': "leave out allow or roles",
    f'{HEAD}role = ["a"]': "rule 1 (line 1): 'role' has no meaning; write roles",
    f'{HEAD}color = "red"': "'color' has no meaning; there are host, path, methods",
    f"{HEAD}roles = []": "write roles =",
    f'{HEAD}roles = [""]': "write roles =",
    f"{HEAD}roles = 7": "write roles =",
    f"{HEAD}factor = 3": "write factor = 2",
    f"{HEAD}factor = true": "write factor = 2",
    f'{HEAD}verified = "yes"': "write verified = true",
    '[[rules]]\nallow = "public"': "write host =",
    '[[rules]]\nhost = "https://a.example.org"\nallow = "public"': "is no host: write it like",
    '[[rules]]\nhost = "*"\nallow = "public"': "is no host: write it like",
    f'{HEAD}allow = "public"\npath = "admin"': "is no beginning of paths",
    f'{HEAD}allow = "public"\npath = "/a/../b"': "is no beginning of paths",
    f'{HEAD}allow = "public"\npath = "/a*"': "is no beginning of paths",
    f'{HEAD}allow = "public"\npath = []': "write path =",
    f'{HEAD}allow = "public"\nmethods = ["get"]': "write it in capitals",
    f'{HEAD}allow = "public"\nmethods = ["HEAD"]': "HEAD goes with GET",
    f'{HEAD}allow = "signed-in"\n\n# the rest\n{HEAD}roles = ["a"]\npath = "/x"': (
        "rule 2 (line 6): it never applies, because rule 1 takes all of its requests"
    ),
    '[[rules]]\nhost = "*.example.org"\nallow = "public"\n' + f'{HEAD}roles = ["a"]': (
        "rule 2 (line 4): it never applies"
    ),
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_told_with_its_line_and_the_remedy(text: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError) as caught:
        read(text, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"GUARD_RULES: {tmp_path}/rules.toml: ")
    assert MISTAKES[text] in message
    assert "\n" not in message


def test_rules_that_only_look_alike_apply(tmp_path: Path) -> None:
    text = (
        f'{HEAD}path = "/a"\nallow = "public"\n{HEAD}allow = "public"\nmethods = "GET"\n'
        f'{HEAD}allow = "signed-in"\n[[rules]]\nhost = "*.example.org"\nallow = "signed-in"'
    )
    assert len(read(text, tmp_path).rules) == 4


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    for write, told in (
        (lambda: None, "it can't be read (No such file or directory)"),
        (lambda: file.write_bytes(b"\xff"), "can't decode byte"),
        (lambda: file.write_bytes(b"#" * (1 << 20) + b"#"), "it is larger than 1 MiB"),
    ):
        write()
        with pytest.raises(SettingError) as caught:
            read_rules(str(file))
        assert told in str(caught.value)
    assert read_rules("") is None
