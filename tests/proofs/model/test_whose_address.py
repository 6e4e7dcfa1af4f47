"""A stranger signs up with somebody else's address, and gains nothing in any order of the acts.

The orders are run by the real services on real stores: all short ones, and a sample of long ones.
`EXPLORE_LONG` runs every order of four acts.
"""

import itertools
import os
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from sqlalchemy import delete

from authapp import dev
from authapp.accounts.credentials import Credentials
from authapp.accounts.store import UserStore
from authapp.authentication.recovery import forgotten
from authapp.authentication.verification import PasswordProof
from authapp.crypto.tokens import SessionToken
from authapp.errors import AuthappError, EmailUnverified, InvalidCredentials
from authapp.passwords import constant_time
from authapp.services import Services, build_services
from authapp.sessions.records import ActiveSession
from authapp.storage.models import OutgoingMail
from tests.support.databases import add_migrated_database
from tests.support.mails import MAIL_SETTINGS, Written, mails
from tests.support.people import CLIENT
from tests.support.settings import UNLIMITED, make_config

LONG = bool(os.environ.get("EXPLORE_LONG"))
SEED = int(os.environ.get("EXPLORE_SEED", "20240229"))
DRAWN, LENGTH = 15, 5  # long orders, for each start
STRANGERS, OWNERS = "whatever the stranger likes", "seven quiet rivers meet"
WITHOUT_CAPS = {"MAIL_LIMIT_PER_RECIPIENT": UNLIMITED, "MAIL_LIMIT_TOTAL": UNLIMITED}

if LONG:
    pytestmark = pytest.mark.timeout(0)

_numbers = itertools.count()


@dataclass
class World:
    """An address, and what the stranger and its owner hold of it.

    Attributes:
        before: an instance from before addresses were verified.
        asks_password: off in a control: a link alone confirms.
    """

    services: Services
    before: Services
    asks_password: bool = True
    email: str = field(default_factory=lambda: f"ceo{next(_numbers)}@example.org")
    proof: PasswordProof | None = None
    strangers_proof: PasswordProof | None = None
    taken: list[SessionToken] = field(default_factory=list)

    # -- acts of the stranger, who reads no mail -----------------------------------------------

    def stranger_signed_up_before(self) -> None:
        done = self.before.registration.sign_up_from(CLIENT, self.email, STRANGERS)
        assert done.user is not None
        self.stranger_logs_in()

    def stranger_signs_up(self) -> None:
        done = self.services.registration.sign_up_from(CLIENT, self.email, STRANGERS)
        self.strangers_proof = done.proof

    def stranger_logs_in(self) -> None:
        with suppress(InvalidCredentials, EmailUnverified):
            log_in = self.services.authentication.log_in
            self.taken.append(log_in(self.email, STRANGERS, CLIENT).session.token)
            issue = self.services.authentication.issue_token
            self.taken.append(issue(self.email, STRANGERS, CLIENT).session.token)

    def stranger_asks_for_another_mail(self) -> None:
        self.services.verification.resend(self.email, CLIENT)

    # -- acts of the owner, who follows every link and types every code ------------------------

    def owner_signs_up(self) -> None:
        done = self.services.registration.sign_up_from(CLIENT, self.email, OWNERS)
        self.proof = done.proof

    def owner_follows_the_newest_link(self) -> None:
        self._follow(self._mails("verify")[-1:])

    def owner_follows_the_first_link(self) -> None:
        self._follow(self._mails("verify")[:1])

    def owner_types_the_code(self) -> None:
        for mail in self._mails("verify")[-1:]:
            for password in ("", OWNERS):
                with suppress(AuthappError):
                    self.services.verification.confirm_by_code(
                        self.email, mail.context["code"], password, self._shown(), CLIENT
                    )

    def owner_resets(self) -> None:
        self.services.forgotten_passwords.forgot(self.email, CLIENT)
        for mail in self._mails("reset")[-1:]:
            with suppress(AuthappError):
                self.services.password_resets.reset(mail.token, OWNERS, CLIENT)

    def _follow(self, found: list[Written]) -> None:
        for mail in found:
            for password in ("", OWNERS):
                with suppress(AuthappError):
                    self.services.verification.confirm(mail.token, password, self._shown(), CLIENT)

    def _shown(self) -> PasswordProof | None:
        """The proof that the owner's browser keeps; in the control, one that fits anything."""
        if self.asks_password:
            return self.proof
        facts = self._facts()
        return PasswordProof(facts.user.id, facts.epoch) if facts else None

    def _mails(self, kind: str) -> list[Written]:
        return [m for m in mails(self.services, kind) if m.recipient == self.email]

    def _facts(self) -> Credentials | None:
        return self.services.credentials.read(self.services.parse_email(self.email))

    # -- what has to hold ----------------------------------------------------------------------

    def problem(self) -> str:
        """Names the thing that the stranger has gained; empty: nothing."""
        facts = self._facts()
        if facts is None:
            return ""
        alive = [
            token
            for token in self.taken
            if isinstance(self.services.sessions.find(token), ActiveSession)
        ]
        if facts.email_confirmation_due and alive:
            return "somebody is in before the address is confirmed"
        if not facts.user.email_verified:
            return ""
        if alive:
            return "the stranger is in an account that is verified for the owner's address"
        with suppress(InvalidCredentials):
            self.services.authentication.log_in(self.email, STRANGERS, CLIENT)
            return "the stranger's password opens an account that is verified for the owner"
        return ""

    def owner_gets_in(self) -> bool:
        """Whether the owner of the mailbox reaches the account, whatever happened."""
        self.owner_signs_up()
        self.owner_follows_the_newest_link()
        with suppress(InvalidCredentials, EmailUnverified):
            self.services.authentication.log_in(self.email, OWNERS, CLIENT)
            return True
        self.owner_resets()
        self.services.authentication.log_in(self.email, OWNERS, CLIENT)
        return True


ACTS = (
    World.stranger_signs_up,
    World.stranger_logs_in,
    World.stranger_asks_for_another_mail,
    World.owner_signs_up,
    World.owner_follows_the_newest_link,
    World.owner_follows_the_first_link,
    World.owner_types_the_code,
    World.owner_resets,
)
Act = Callable[[World], None]
STARTS: tuple[Act | None, ...] = (None, World.stranger_signed_up_before, World.stranger_signs_up)


@pytest.fixture(scope="module")
def instances(postgres: dev.PostgreSQL, valkey: dev.Valkey) -> Iterator[tuple[Services, Services]]:
    url = add_migrated_database(postgres.url, "whose_address")
    settings = {"SECRET_KEY": "a secret of this file alone " * 2, "SIGNUP": "open"}
    now = make_config(url, valkey.url, **settings, **MAIL_SETTINGS, **WITHOUT_CAPS)
    then = make_config(url, valkey.url, **settings)
    made = [build_services(config, None, lambda: datetime.now(UTC)) for config in (now, then)]
    with pytest.MonkeyPatch.context() as patched:  # what hides who has an account takes time
        patched.setattr(constant_time, "REFUSAL_SECONDS", 0.0)
        patched.setattr(forgotten, "_PAUSE", (0.0, 0.0))
        yield made[0], made[1]
    for services in made:
        services.close()


def explore(instances: tuple[Services, Services], *, asks_password: bool = True) -> list[str]:
    """Runs every order, and says in which the stranger gains something, and what."""
    found, count = [], 0
    for start in STARTS:
        for order in orders():
            world = World(*instances, asks_password=asks_password)
            with world.services.database.transaction() as db:
                db.execute(delete(OutgoingMail))  # or each order would read the mails of all
            if start:
                start(world)
            done = []
            for act in order:
                act(world)
                done.append(act.__name__)
                if problem := world.problem():
                    found.append(f"{start.__name__ if start else 'at first'}: {done}: {problem}")
                    break
            else:
                if asks_password and len(order) > 2:
                    assert world.owner_gets_in(), done
            count += 1
            if found and not asks_password:
                return found  # a control has shown what it is for
    assert count >= len(STARTS) * 71
    return found


def orders() -> list[tuple[Act, ...]]:
    if LONG:
        return list(itertools.permutations(ACTS, 4))
    draw = random.Random(SEED)
    drawn = [tuple(draw.sample(ACTS, LENGTH)) for _ in range(DRAWN)]
    return [*itertools.permutations(ACTS, 2), *drawn]


@pytest.mark.first
def test_a_stranger_gains_nothing_in_any_order(instances: tuple[Services, Services]) -> None:
    assert explore(instances) == []


def test_without_the_password_the_stranger_would_get_in(
    instances: tuple[Services, Services],
) -> None:
    """The control: a link that alone confirms the address."""
    assert explore(instances, asks_password=False)


def test_if_a_later_sign_up_replaced_nothing_the_stranger_would_get_in(
    instances: tuple[Services, Services], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the password of the first sign-up stays."""
    monkeypatch.setattr(UserStore, "replace_unconfirmed", lambda *_args: None)
    world = World(*instances)
    world.stranger_signs_up()
    world.owner_signs_up()
    world.owner_follows_the_newest_link()
    assert "stranger's password" in world.problem()
