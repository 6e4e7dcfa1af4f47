"""The password check of a log-in: in equal time, whether there is an account or not."""

from contextlib import suppress

from authapp.accounts.credentials import Credentials, CredentialStore
from authapp.accounts.emails import Email
from authapp.accounts.store import UserStore
from authapp.authentication.recovery.lost_passwords import LostPasswords, went_back
from authapp.authentication.recovery.one_time_passwords import OneTimePasswords
from authapp.errors import Busy, InvalidCredentials, ReplacedPassword, StoreUnavailable
from authapp.passwords.constant_time import ConstantTimeRefusal
from authapp.passwords.hashing import PasswordHasher, Verdict
from authapp.passwords.hashing_queue import HashingQueue
from authapp.storage.deadlines import deadline
from authapp.telemetry.logging import get_logger

REHASH_PATIENCE = 0.8  # seconds for Postgres to take a new hash; the log-in needs the rest

_log = get_logger(__name__)


class PasswordCheck:
    """Compares a password with the credentials of an email, and says what follows if it is right.

    Attributes:
        queue: where a log-in takes its place before it asks anything here.
    """

    def __init__(
        self,
        users: UserStore,
        credentials: CredentialStore,
        hasher: PasswordHasher,
        one_time_passwords: OneTimePasswords,
        lost_passwords: LostPasswords,
    ) -> None:
        self._users = users
        self._credentials = credentials
        self._hasher = hasher
        self._one_time_passwords = one_time_passwords
        self._lost_passwords = lost_passwords
        self.queue: HashingQueue = hasher.queue

    def refusal_seconds(self, password: str) -> float:
        """Seconds that hashing takes in every refusal of this password."""
        return self._hasher.refusal_seconds(self._credentials.slowest_imported, password)

    def find_cached(
        self, email: Email, password: str, refusal: ConstantTimeRefusal
    ) -> Credentials | None:
        """The credentials of an email, from the cache if they are there.

        Raises:
            StoreUnavailable: raised after as much work as for an email with a cache entry; see
                `verify`.
        """
        try:
            return self._credentials.find(email)
        except StoreUnavailable:
            with refusal.hashing(), suppress(Busy):  # there may be no time left for the hash
                refusal.count(self._hasher.verify_dummy(password).seconds)
            raise

    def verify(
        self,
        email: Email,
        password: str,
        cached: Credentials | None,
        refusal: ConstantTimeRefusal,
    ) -> tuple[Credentials, Verdict]:
        """Compares the password with the cached credentials, then with the facts if need be.

        Args:
            cached: may come from a cache entry, which is behind the facts while fences are pending.
        Returns:
            The credentials that the password opens, and a verdict that is a match.
        Raises:
            InvalidCredentials
            ReplacedPassword: it is the one before the last change, which only the copy knows.
            StoreUnavailable: the password does not match the cache entry, and Postgres can't be
                asked. A refusal would tell that there is an entry and so an account, because for
                all other emails Postgres decides.
        """
        verdict = self._compare(password, cached, refusal)
        if cached is None:
            raise InvalidCredentials
        if verdict is not Verdict.MISMATCH:
            return cached, verdict
        facts = self._credentials.read(email)
        # A second comparison takes time and so tells that the account exists. It is made only if
        # its result can differ.
        if facts is None or not _may_match_instead(facts, cached):
            raise InvalidCredentials
        verdict = self._compare(password, facts, refusal)
        if verdict is Verdict.MISMATCH:
            raise InvalidCredentials
        if went_back(facts, cached):
            raise ReplacedPassword
        return facts, verdict

    def follow_up(self, verified: Credentials, verdict: Verdict, password: str) -> None:
        """Returns if a session may begin for credentials whose password was right.

        A password whose hash is not as strong as it should be gets a new one.

        Raises:
            PasswordChangeRequired, InvalidCredentials, StoreUnavailable: as `OneTimePasswords`.
        """
        self._one_time_passwords.lead_on(verified)
        if verdict is Verdict.MATCH_REHASH:
            self._rehash(verified, password)

    def unless_changed(
        self, email: Email, password: str, verified: Credentials, refusal: ConstantTimeRefusal
    ) -> Credentials:
        """The current credentials, if the same password still opens them.

        The epoch may have changed since for another reason, for example because all sessions of
        the user were ended. Or Postgres has lost what the copy knows: a change of the password,
        which is put back, or the account, which was made again since.

        Raises:
            InvalidCredentials
        """
        facts = self._credentials.read(email)
        if facts is None or not facts.user.active:
            raise InvalidCredentials
        if facts.user.id != verified.user.id:
            if self._compare(password, facts, refusal) is Verdict.MISMATCH:
                raise InvalidCredentials
            return facts
        if facts.password_hash == verified.password_hash:
            return facts
        if went_back(facts, verified):
            return self._lost_passwords.put_back(verified)
        raise InvalidCredentials

    def _compare(
        self, password: str, found: Credentials | None, refusal: ConstantTimeRefusal
    ) -> Verdict:
        """Compares in equal time, whether there are credentials of an active user or not."""
        with refusal.hashing():
            if found is None or not found.user.active:
                compared = self._hasher.verify_dummy(password)
            else:
                compared = self._hasher.verify(password, found.password_hash, found.user.id)
            refusal.count(compared.seconds)
        if found is not None and self._one_time_passwords.has_expired(found):
            return Verdict.MISMATCH
        return compared.verdict

    def _rehash(self, verified: Credentials, password: str) -> None:
        new_hash = self._hasher.hash(password)
        try:
            with deadline(REHASH_PATIENCE):
                self._users.rehash(verified.user.id, verified.epoch, new_hash)
        except StoreUnavailable:
            _log.info("rehash_postponed")  # to the next log-in


def _may_match_instead(facts: Credentials, cached: Credentials) -> bool:
    """Whether a password that does not match the cached credentials may match the facts."""
    differs = facts.password_hash != cached.password_hash or not cached.user.active
    return facts.user.active and differs
