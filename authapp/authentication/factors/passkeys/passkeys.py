"""Passkeys of people who are logged in: look, add, rename, remove."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from authapp.accounts.actor import Actor
from authapp.accounts.profiles import stored_name, why_name_refused
from authapp.authentication.factors.factors import Factors
from authapp.authentication.factors.parts import FactorParts
from authapp.authentication.factors.passkeys.check import amr_of
from authapp.authentication.factors.passkeys.json_forms import (
    CreationOptions,
    RegistrationCredential,
    RequestOptions,
)
from authapp.authentication.factors.passkeys.names import name_of
from authapp.authentication.factors.passkeys.relying_party import RelyingParty
from authapp.authentication.factors.passkeys.rows import descriptors
from authapp.cache.changes import Changed, Changes
from authapp.crypto.base64url import to_base64url
from authapp.errors import (
    InvalidField,
    InvalidPasskey,
    NoSuchPasskey,
    PasskeyTaken,
)
from authapp.sessions.records import ActiveSession, IssuedLogin, IssuedTokens
from authapp.sessions.user_agents import device_name
from authapp.storage.factors.models import Passkey
from authapp.storage.models import User
from authapp.storage.postgres import Database

MOST_PASSKEYS = 20  # of one person


@dataclass(frozen=True, slots=True)
class HeldPasskey:
    """A passkey as its person sees it.

    Attributes:
        authenticator: a hint at what keeps it; empty where nobody can say.
        is_synced: the authenticator keeps it on more than one device.
        counter_fell_at: when its counter fell: another device may hold a copy of the key.
    """

    id: UUID
    name: str
    authenticator: str
    created_at: datetime
    last_used_at: datetime | None
    is_synced: bool
    counter_fell_at: datetime | None

    @classmethod
    def of(cls, row: Passkey) -> "HeldPasskey":
        return cls(
            row.id,
            row.name,
            name_of(row.aaguid),
            row.created_at,
            row.last_used_at,
            row.backed_up,
            row.counter_fell_at,
        )


@dataclass(frozen=True, slots=True)
class AcceptedPasskeys:
    """The passkeys that count, as browsers are told (WebAuthn Level 3, 5.1.10.3).

    Attributes:
        user_handle, credential_ids: base64url.
    """

    rp_id: str
    user_handle: str
    credential_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AddedPasskey:
    """A passkey that was added, and how the session goes on.

    Attributes:
        recovery_codes: those that were made with the first factor; they can't be shown again.
    """

    passkey: HeldPasskey
    issued: IssuedLogin | IssuedTokens
    recovery_codes: tuple[str, ...] = field(default=(), repr=False)


class Passkeys:
    """The use cases that look at passkeys and change them.

    Whoever changes one has proved not long ago who they are: the callers see to it. A change ends
    the other sessions of the person, as each change of factors does.

    Raises:
        PasskeysOff: from every method that adds or uses one.
        NotAuthenticated: from every method that takes a session, if it has ended.
        StoreUnavailable: from every method; nothing was changed.
    """

    def __init__(
        self,
        database: Database,
        changes: Changes,
        factors: Factors,
        parts: FactorParts,
    ) -> None:
        self._database = database
        self._changes = changes
        self._factors = factors
        self._set_up = parts.set_up
        self._check = parts.passkey_check
        self._rows = parts.passkey_rows

    @property
    def why_off(self) -> str:
        """Why there are no passkeys here; empty where there are."""
        return self._check.why_off

    @property
    def relying_party(self) -> RelyingParty:
        """
        Raises:
            PasskeysOff
        """
        return self._check.ceremonies.relying_party

    def expect_on(self) -> None:
        """
        Raises:
            PasskeysOff
        """
        _ = self._check.ceremonies

    def of(self, user_id: UUID) -> list[HeldPasskey]:
        """The passkeys of a person, the oldest first."""
        with self._database.transaction() as db:
            return [HeldPasskey.of(row) for row in self._rows.of(db, user_id)]

    def accepted(self, user_id: UUID) -> AcceptedPasskeys | None:
        """For the browser; None: there is nothing to tell it of."""
        if self.why_off:
            return None
        with self._database.transaction() as db:
            user = db.get(User, user_id)
            if user is None or user.webauthn_handle is None:
                return None
            ids = tuple(to_base64url(row.credential_id) for row in self._rows.of(db, user_id))
            rp_id = self._check.ceremonies.relying_party.id
            return AcceptedPasskeys(rp_id, to_base64url(user.webauthn_handle), ids)

    def creation_options(self, live: ActiveSession) -> CreationOptions:
        """The options by which a browser makes a passkey; the answer counts in this session."""
        ceremonies = self._check.ceremonies
        with self._changes.begin(acknowledged=False) as change:
            user = self._factors.hold(change, live)
            handle = self._rows.user_handle(user)
            held = descriptors(self._rows.of(change.db, user.id))
        return ceremonies.creation_options(
            handle, user.email, user.name, held, live.record.id.bytes
        )

    def request_options(self, live: ActiveSession) -> RequestOptions:
        """The options by which this person proves again who they are, in this session."""
        with self._database.transaction() as db:
            allowed = descriptors(self._rows.of(db, live.record.user.id))
        return self._check.ceremonies.request_options(
            "second factor", live.record.id.bytes, allowed
        )

    def enrol(
        self, live: ActiveSession, credential: RegistrationCredential, name: str, actor: Actor
    ) -> Changed[AddedPasskey]:
        """Adds a passkey that the browser made.

        Args:
            name: empty: the name of the authenticator, or of the browser, is taken.
        Raises:
            InvalidField: the name can't be taken, or the answer is not accepted.
            PasskeyTaken: it belongs to somebody already.
        """
        actor = actor.known_as(live.record.user.id)
        name = _read_name(name)
        try:
            made, challenge = self._check.ceremonies.verify_made(credential, live.record.id.bytes)
        except InvalidPasskey:
            raise _not_accepted() from None
        with self._changes.begin() as change:
            user = self._factors.hold(change, live)
            if len(self._rows.of(change.db, user.id)) >= MOST_PASSKEYS:
                raise InvalidField(
                    {"credential": f"{MOST_PASSKEYS} passkeys are enough; remove one first"}
                )
            if not self._rows.use_challenge(change.db, challenge):
                raise _not_accepted()
            called = name or name_of(made.aaguid) or device_name(actor.user_agent)
            rp_id = self._check.ceremonies.relying_party.id
            row = self._rows.add(change.db, user, made, called, rp_id)
            if row is None:
                raise PasskeyTaken("This passkey belongs to an account already.")
            amr = amr_of(row)
            added = self._set_up.added(change.db, user, actor, "passkey_added", amr)
            issued = self._factors.go_on(change, user, live, actor, amr)
            held = HeldPasskey.of(row)
        return change.returning(AddedPasskey(held, issued, added.recovery_codes))

    def rename(self, live: ActiveSession, passkey_id: UUID, name: str) -> HeldPasskey:
        """
        Raises:
            InvalidField: the name can't be taken.
            NoSuchPasskey: this person has no such passkey.
        """
        name = _read_name(name)
        if not name:
            raise InvalidField({"name": "give it a name"})
        with self._changes.begin(acknowledged=False) as change:
            user = self._factors.hold(change, live)
            row = self._rows.rename(change.db, user.id, passkey_id, name)
            if row is None:
                raise NoSuchPasskey("this person has no such passkey")
            return HeldPasskey.of(row)

    def remove(
        self, live: ActiveSession, passkey_id: UUID, actor: Actor
    ) -> Changed[IssuedLogin | IssuedTokens]:
        """Removes a passkey; without another factor the recovery codes, too.

        Raises:
            NoSuchPasskey: this person has no such passkey.
            FactorNeeded: the person must hold a second factor, and has no other; or nobody could
                log in to the account any more.
        """
        actor = actor.known_as(live.record.user.id)
        with self._changes.begin() as change:
            user = self._factors.hold(change, live)
            if not self._rows.remove(change.db, user.id, passkey_id):
                raise NoSuchPasskey("this person has no such passkey")
            self._factors.note_removal(change, user, actor, "passkey_removed")
            issued = self._factors.go_on(change, user, live, actor)
        return change.returning(issued)


def _read_name(name: str) -> str:
    if why := why_name_refused(name):
        raise InvalidField({"name": why})
    return stored_name(name)


def _not_accepted() -> InvalidField:
    return InvalidField({"credential": "this passkey is not accepted; make it once more"})
