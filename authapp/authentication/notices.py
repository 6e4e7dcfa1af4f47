"""Notices: mails that tell people what happened to their account, so that they notice a thief."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Executable, Integer, Uuid, bindparam, cast, func, literal_column, select
from sqlalchemy.orm import Session

from authapp.accounts.actor import NOBODY, Actor
from authapp.authentication.addresses import network_of
from authapp.mail.account_mails import address_of
from authapp.mail.outbox import Mail, MailKind, Outbox
from authapp.mail.public_links import PublicLinks
from authapp.storage.models import AuditEvent, OutgoingMail, User, table_of

LOOKED_AT = 200  # events of a person, the newest, in which former places are looked for
UNUSUAL = 10  # refused log-ins of an account within a day that its owner is told of
_DAY = timedelta(days=1)

# how many notices of a kind a person gets, so that nobody can be flooded by them
_AT_MOST: Final[dict[MailKind, tuple[int, timedelta]]] = {
    "new_device": (3, timedelta(hours=1)),
    "password_changed": (3, timedelta(hours=1)),
    "refused_logins": (1, _DAY),
    "factors_changed": (10, timedelta(hours=1)),
    "factor_refused": (1, timedelta(hours=1)),
}

_events = table_of(AuditEvent).c
_newest = (
    select((_events.event == literal_column("'session.begun'")).label("begun"), _events.address)
    .where(_events.user_id == bindparam("user_id", type_=Uuid))
    .order_by(_events.at.desc(), _events.id.desc())
    .limit(LOOKED_AT)
    .subquery()
)
# whether events are log-ins, from where they came, and how many there are
_PLACES: Executable = select(_newest.c.begun, _newest.c.address, func.count()).group_by(
    _newest.c.begun, _newest.c.address
)

TellOfLogin = Callable[[Session, User], None]  # is called within the change that begins a session


class Notices:
    """Writes notices down within the changes that they tell of (OWASP ASVS 5.0, 6.3.5 and 6.3.7).

    A notice that a cap refuses is not sent. No act waits for another one to the same person, or
    fails, because of a notice.
    """

    def __init__(
        self, outbox: Outbox, public_link: PublicLinks, clock: Callable[[], datetime]
    ) -> None:
        self._outbox = outbox
        self._public_link = public_link
        self._clock = clock

    @property
    def are_sent(self) -> bool:
        """Whether mail is on."""
        return self._outbox.enabled

    def of_login(self, actor: Actor, *, is_known_device: bool = False) -> TellOfLogin | None:
        """What to do when a session begins; None: nobody is told.

        Args:
            is_known_device: the browser has shown that this account logged in with it before.
        """
        if is_known_device or not self._outbox.enabled:
            return None
        return lambda db, user: self._new_login(db, user, actor)

    def password_changed(self, db: Session, user: User, actor: Actor) -> None:
        """Tells a person that their password was changed, and from where if they did it."""
        self._put(db, "password_changed", user, actor if actor.id == user.id else NOBODY)

    def factors_changed(self, db: Session, user: User, actor: Actor, what: str) -> None:
        """Tells a person that a factor was added, replaced or removed, and from where if they did
        it.

        Args:
            what: as the template of the mail names it.
        """
        self._put(db, "factors_changed", user, actor if actor.id == user.id else NOBODY, what=what)

    def recovery_code_used(self, db: Session, user: User, actor: Actor, left: int) -> None:
        """Tells a person that a recovery code was used, and how many are left."""
        self._put(db, "factors_changed", user, actor, what="recovery_code_used", left=str(left))

    def factor_refused(self, db: Session, user: User, actor: Actor) -> None:
        """Tells a person that somebody knew their password and failed at the second factor."""
        self._put(db, "factor_refused", user, actor)

    def refused_logins(self, db: Session, user: User, actor: Actor) -> None:
        """Tells a person of an unusual number of refused log-ins within a day, once a day."""
        if (
            not self._outbox.enabled
            or not user.active
            or self._has_enough(db, "refused_logins", user)
        ):
            return
        counts = func.coalesce(cast(AuditEvent.details["count"].astext, Integer), 1)
        refused = db.scalar(
            select(func.sum(counts)).where(
                AuditEvent.user_id == user.id,
                AuditEvent.at > self._clock() - _DAY,
                AuditEvent.event == "login.failed",
            )
        )
        if (refused or 0) >= UNUSUAL:
            self._put(db, "refused_logins", user, actor, count=str(refused))

    def _new_login(self, db: Session, user: User, actor: Actor) -> None:
        """Tells of a log-in from where this person never logged in, but for their first one."""
        events = db.execute(_PLACES, {"user_id": user.id}).all()
        former = {address for has_begun, address, _ in events if has_begun}
        is_first = not former and sum(count for *_, count in events) < LOOKED_AT
        if is_first or _place_of(actor.address) in {_place_of(address) for address in former}:
            return
        self._put(db, "new_device", user, actor)

    def _put(self, db: Session, kind: MailKind, user: User, actor: Actor, **more: str) -> None:
        if not self._outbox.enabled:
            return
        context = self._context(user, actor) | more
        mail = Mail(kind, address_of(user), context, user_id=user.id)
        self._outbox.put_notice(db, mail, *_AT_MOST[kind])

    def _has_enough(self, db: Session, kind: MailKind, user: User) -> bool:
        """Whether a person got as many notices of this kind as they get."""
        most, within = _AT_MOST[kind]
        found = db.scalar(
            select(func.count()).where(
                OutgoingMail.user_id == user.id,
                OutgoingMail.kind == kind,
                OutgoingMail.created_at > self._clock() - within,
            )
        )
        return (found or 0) >= most

    def _context(self, user: User, actor: Actor) -> dict[str, str]:
        """The facts of each notice: when, which device, from where, and what to do."""
        return {
            "name": user.name,
            "when": self._clock().isoformat(),
            "user_agent": actor.user_agent,
            "address": actor.address,
            "forgot_link": self._public_link("/forgot"),
        }


def _place_of(address: str) -> str:
    """The network that counts as a place: 256 addresses of IPv4, or what a site of IPv6 has."""
    network = network_of(address, 48)
    return network if "/" in network else network.rpartition(".")[0]
