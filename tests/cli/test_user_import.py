"""`users import`: users of another system are added line by line; refused lines are named."""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from click.testing import Result
from flask import Flask

from authapp import Config, create_app
from authapp.accounts.emails import parse_email
from authapp.accounts.importing.lines import MAX_LINE
from authapp.accounts.importing.users import BATCH
from authapp.errors import StoreUnavailable
from authapp.services import Services
from tests.support.foreign_hashes import all_kinds
from tests.support.people import EMAIL, PASSWORD
from tests.support.services import sql
from tests.web.support import browser, log_in, services_of

OLD_PASSWORD = "old one"
HASH = bcrypt.hashpw(OLD_PASSWORD.encode(), bcrypt.gensalt(4)).decode()


@pytest.fixture
def app(config: Config) -> Iterator[Flask]:
    app = create_app(config)
    yield app
    services_of(app).close()


def lines(*users: Any) -> str:
    """A file; text stands for itself."""
    return "".join(f"{u if isinstance(u, str) else json.dumps(u)}\n" for u in users)


def run(app: Flask, file: str | bytes, *options: str) -> Result:
    return app.test_cli_runner().invoke(args=("auth", "users", "import", "-", *options), input=file)


def imported(app: Flask, *users: Any) -> str:
    result = run(app, lines(*users))
    assert result.exit_code == 0, result.output
    return result.stdout


def refusals(result: Result) -> dict[int, str]:
    """The lines that were refused, by number, and the reason."""
    assert result.exit_code == 1
    told = (line.removeprefix("line ").partition(": ") for line in result.stderr.splitlines())
    return {int(number): reason for number, _, reason in told if number.isdigit()}


def stored(services: Services) -> list[tuple[Any, ...]]:
    return sql(
        services,
        "SELECT email, name, password_hash, created_at, email_verified_at FROM users"
        " ORDER BY email",
    )


# -- what is made ----------------------------------------------------------------------------------


def test_a_line_becomes_a_user_as_it_says(app: Flask) -> None:
    services = services_of(app)
    told = imported(
        app,
        {
            "email": "Ada@Example.org",
            "name": " Ada  King ",
            "roles": ["user", "admin"],
            "verified": True,
            "created_at": "2019-05-31T12:00:00+02:00",
            "password_hash": HASH,
        },
        {"email": "bob@example.org"},
    )
    assert told == "2 lines: 2 made, 0 skipped, 0 refused.\n"
    ada, bob = stored(services)
    assert ada[:2] == ("Ada@example.org", "Ada King")
    assert ada[2].startswith("imported:bcrypt:1:")
    assert ada[3] == datetime(2019, 5, 31, 10, tzinfo=UTC)
    assert abs(ada[4] - datetime.now(UTC)).total_seconds() < 60
    assert bob[:3] == ("bob@example.org", "", "")
    assert abs(bob[3] - datetime.now(UTC)).total_seconds() < 60
    assert bob[4] is None, "nobody said that this address is verified"
    found = services.users.find(parse_email("ada@example.org"))
    assert found
    assert found.roles == ("admin", "user")


def test_the_audit_log_tells_of_each_user_once(app: Flask) -> None:
    imported(app, {"email": EMAIL, "roles": []}, {"email": "bob@example.org"})
    events = sql(
        services_of(app),
        "SELECT u.email, event, actor_id, details FROM audit_events a"
        " JOIN users u ON u.id = user_id ORDER BY u.email",
    )
    assert events == [
        (EMAIL, "user.created", None, {"roles": [], "imported": True}),
        ("bob@example.org", "user.created", None, {"roles": ["user"], "imported": True}),
    ]


def test_fields_may_be_null_and_lines_blank(app: Flask) -> None:
    nothing = dict.fromkeys(("name", "roles", "verified", "created_at", "password_hash"))
    file = "\ufeff" + lines({"email": EMAIL, **nothing}, "", "  ", {"email": "bob@example.org"})
    assert run(app, file.encode()).exit_code == 0
    assert [row[0] for row in stored(services_of(app))] == [EMAIL, "bob@example.org"]


def test_a_file_may_be_named(app: Flask, tmp_path: Path) -> None:
    file = tmp_path / "users.jsonl"
    file.write_text(json.dumps({"email": EMAIL}))  # without a line end
    result = app.test_cli_runner().invoke(args=("auth", "users", "import", str(file)))
    assert (result.exit_code, result.stdout) == (0, "1 line: 1 made, 0 skipped, 0 refused.\n")


@pytest.mark.parametrize("hash_", [None, "", "!KAxLIRdN4VwJmZiMwmxoDCj2WTXSlE9PTiAH3rkW"])
def test_without_a_password_nobody_can_log_in_before_one_is_set(
    app: Flask, hash_: str | None
) -> None:
    imported(app, {"email": EMAIL, "password_hash": hash_})
    assert log_in(browser(app), EMAIL, "").status_code == 400
    assert log_in(browser(app), EMAIL, PASSWORD).status_code == 401
    app.test_cli_runner().invoke(
        args=("auth", "users", "set-password", EMAIL, "--password-stdin"), input=PASSWORD
    )
    assert log_in(browser(app), EMAIL, PASSWORD).status_code == 303


# -- what is refused -------------------------------------------------------------------------------

WRONG = {
    "no JSON": ("{", "it is no JSON"),
    "an array": ("[]", "it is no JSON object"),
    "deep": ("[" * 10_000, "it is no JSON"),
    "half a character": ('{"email": "\\ud800@example.org"}', "it is no JSON"),
    "an unknown field": ({"email": EMAIL, "is_staff": True}, "'is_staff': there is no such field"),
    "no email": ({"name": "Ada"}, "email: it is missing"),
    "a number": ({"email": 7}, "email: it is missing or no text"),
    "no address": ({"email": "ada"}, "email: enter an email address"),
    "a name": ({"email": EMAIL, "name": 7}, "name: write text"),
    "a long name": ({"email": EMAIL, "name": "x" * 101}, "name: use at most 100"),
    "a NUL": ({"email": EMAIL, "name": "a\x00b"}, "name: use letters"),
    "a role": ({"email": EMAIL, "roles": "user"}, 'roles: write a list of names, like ["user"]'),
    "roles": ({"email": EMAIL, "roles": [7]}, "roles: write a list"),
    "a pope": ({"email": EMAIL, "roles": ["pope"]}, "the roles are: admin, user; `roles create`"),
    "verified": ({"email": EMAIL, "verified": "yes"}, "verified: write true or false"),
    "verified 1": ({"email": EMAIL, "verified": 1}, "verified: write true or false"),
    "no zone": (
        {"email": EMAIL, "created_at": "2019-05-31T12:00:00"},
        "write a time with its zone",
    ),
    "seconds": ({"email": EMAIL, "created_at": 1559296800}, "write a time with its zone"),
    "the year 1": ({"email": EMAIL, "created_at": "0001-01-01T00:00:00+14:00"}, "created_at: "),
    "the future": ({"email": EMAIL, "created_at": "2999-01-01T00:00:00Z"}, "in the future"),
    "a hash": ({"email": EMAIL, "password_hash": "md5$x$y"}, "password_hash: it is of no known"),
    "no text": ({"email": EMAIL, "password_hash": 7}, "password_hash: write the hash as text"),
    "dear": (
        {"email": EMAIL, "password_hash": HASH.replace("$04$", "$16$")},
        "password_hash: one comparison would take about 3.8 s",
    ),
    "long": ('{"email": "' + "x" * MAX_LINE + '"}', "it is longer than"),
}


@pytest.mark.parametrize(("user", "reason"), WRONG.values(), ids=WRONG)
def test_a_line_that_can_not_be_imported_is_named_with_the_remedy(
    app: Flask, user: Any, reason: str
) -> None:
    result = run(app, lines({"email": "a@example.org"}, user, {"email": "z@example.org"}))
    (told,) = refusals(result).items()
    assert told[0] == 2
    assert reason in told[1]
    assert HASH[7:] not in result.output
    assert "3 lines: 2 made, 0 skipped, 1 refused.\n" in result.stdout
    assert [row[0] for row in stored(services_of(app))] == ["a@example.org", "z@example.org"]


def test_all_that_is_wrong_with_a_line_is_told_at_once(app: Flask) -> None:
    wrong = {"email": "ada", "name": 7, "roles": 7, "verified": 7, "created_at": 7, "x\x1b[2J": 7}
    (reason,) = refusals(run(app, lines(wrong | {"password_hash": 7}))).values()
    assert all(f"{field}: " in reason for field in ("email", "name", "roles", "verified"))
    assert all(f"{field}: " in reason for field in ("created_at", "password_hash"))
    assert "\x1b" not in reason


def test_of_lines_with_one_email_the_first_is_taken(app: Flask) -> None:
    result = run(app, lines({"email": EMAIL, "name": "Ada"}, {"email": EMAIL.upper()}))
    assert refusals(result) == {2: "email: line 1 has the same; remove one of them"}
    assert [row[1] for row in stored(services_of(app))] == ["Ada"]


def test_without_the_library_argon2_is_refused_with_the_remedy(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    hash_ = all_kinds(OLD_PASSWORD)["argon2id"]
    monkeypatch.setitem(sys.modules, "argon2", None)
    result = run(app, lines({"email": EMAIL, "password_hash": hash_}))
    assert "run pip install 'authapp[import]'" in refusals(result)[1]
    assert stored(services_of(app)) == []


# -- again, and a dry run --------------------------------------------------------------------------


def test_an_account_that_is_there_is_skipped_and_stays_as_it_is(app: Flask) -> None:
    services = services_of(app)
    services.registration.sign_up(EMAIL, PASSWORD, "Ada")
    before = stored(services)
    user = {"email": "ADA@example.org", "name": "Eve", "roles": ["admin"], "password_hash": HASH}
    told = imported(
        app,
        {"email": "a@example.org"},
        user,
        {"email": "b@example.org"},
        user | {"email": "c@example.org"},
    )
    assert told.splitlines() == [
        "4 lines: 3 made, 1 skipped, 0 refused.",
        "Skipped, because the email has an account: lines 2.",
    ]
    assert [row for row in stored(services) if row[0] == EMAIL] == before
    assert log_in(browser(app), EMAIL, PASSWORD).status_code == 303
    assert log_in(browser(app), EMAIL, OLD_PASSWORD).status_code == 401


class Interrupted:
    """A file whose reading is interrupted after so many lines."""

    def __init__(self, file: list[bytes], after: int) -> None:
        self._file, self._after = file, after

    def readline(self, _limit: int) -> bytes:
        self._after -= 1
        if self._after < 0:
            raise KeyboardInterrupt
        return self._file.pop(0)


def test_an_interrupted_import_goes_on_where_it_stopped(
    app: Flask, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = [{"email": f"p{number}@example.org"} for number in range(BATCH + 100)]
    file = [json.dumps(user).encode() + b"\n" for user in users]
    with pytest.raises(KeyboardInterrupt):
        for _ in services.user_import.run(Interrupted(file, BATCH + 50)):  # type: ignore[arg-type]
            pass
    assert len(stored(services)) == BATCH
    assert imported(app, *users).splitlines() == [
        f"{BATCH + 100} lines: 100 made, {BATCH} skipped, 0 refused.",
        f"Skipped, because the email has an account: lines 1-{BATCH}.",
    ]
    assert len(stored(services)) == BATCH + 100
    assert "0 made" in imported(app, *users)


def test_a_store_that_fails_ends_it_with_one_line_and_nothing_is_lost(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = services_of(app)
    begin, begun = services.changes.begin, 0

    def fails_once(**how: Any) -> Any:
        nonlocal begun
        begun += 1
        if begun == 2:
            raise StoreUnavailable("postgres")
        return begin(**how)

    monkeypatch.setattr(services.changes, "begin", fails_once)
    file = lines(*({"email": f"p{number}@example.org"} for number in range(2 * BATCH)))
    result = run(app, file)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        f"Error: postgres could not be asked after line {BATCH}. Run it again: those who are there "
        "are skipped."
    )
    assert len(stored(services)) == BATCH
    assert f"{BATCH} made, {BATCH} skipped, 0 refused" in run(app, file).stdout


def test_progress_is_told_with_each_batch(app: Flask) -> None:
    result = run(app, lines(*({"email": f"p{number}@example.org"} for number in range(BATCH + 1))))
    assert result.stderr.splitlines() == [
        f"{BATCH} lines: {BATCH} made, 0 skipped, 0 refused",
        f"{BATCH + 1} lines: {BATCH + 1} made, 0 skipped, 0 refused",
    ]


def test_a_dry_run_says_the_same_and_changes_nothing(app: Flask) -> None:
    services = services_of(app)
    services.registration.sign_up(EMAIL, PASSWORD)
    before = (
        sql(services, "SELECT count(*) FROM users"),
        sql(services, "SELECT id FROM audit_events"),
    )
    file = lines({"email": EMAIL}, {"email": "bob@example.org"}, {"email": "no"})
    dry = run(app, file, "--dry-run")
    after = (
        sql(services, "SELECT count(*) FROM users"),
        sql(services, "SELECT id FROM audit_events"),
    )
    assert before == after
    wet = run(app, file)
    assert dry.stdout == "A dry run. " + wet.stdout
    assert dry.stderr == wet.stderr
    assert dry.exit_code == wet.exit_code == 1


def test_the_empty_file_is_nothing(app: Flask) -> None:
    assert imported(app) == "0 lines: 0 made, 0 skipped, 0 refused.\n"
