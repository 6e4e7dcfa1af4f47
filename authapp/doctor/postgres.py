"""Postgres: reachable, new enough, migrated, writable, safe to talk to, with room for us."""

from collections.abc import Iterator
from typing import Any

from psycopg2 import errorcodes
from sqlalchemy import delete, exists, false, func, insert, select, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from authapp.accounts.credentials import imported_part, is_imported
from authapp.assembly.passkeys import relying_party_of
from authapp.authentication.factors.passkeys.relying_party import NoRelyingParty
from authapp.config import Config
from authapp.doctor import replication
from authapp.doctor.clocks import Clocks
from authapp.doctor.findings import Finding, State, reason
from authapp.doctor.hosts import is_loopback
from authapp.errors import SettingError
from authapp.passwords.foreign_hashes import INSTALL_ARGON2, has_argon2
from authapp.storage.database_urls import read_database_url
from authapp.storage.deployments import expect_key_prefix
from authapp.storage.factors.models import Passkey
from authapp.storage.migrations.installations import expect_no_role
from authapp.storage.models import (
    AuditEvent,
    OneTimeLink,
    OutgoingMail,
    PendingFence,
    Role,
    SessionRow,
    User,
    UserRole,
)
from authapp.storage.postgres import STATEMENT_TIMEOUT
from authapp.storage.postgres_connections import (
    SEARCH_PATH,
    WITHOUT_LIMITS,
    Connector,
    engine_of,
)
from authapp.storage.schema_names import in_schema

NEEDED = 11  # CREATE TRIGGER … EXECUTE FUNCTION
MAINTAINED = 14  # older ones get no security fixes
WRITTEN = (User, UserRole, SessionRow, AuditEvent, PendingFence, OutgoingMail, OneTimeLink)


def examine(config: Config, pool_size: int, clocks: Clocks) -> Iterator[Finding]:
    """
    Args:
        pool_size: connections that each worker may open.
    """
    settings = SEARCH_PATH | WITHOUT_LIMITS | {"statement_timeout": f"{STATEMENT_TIMEOUT}s"}
    engine = engine_of(
        Connector(config.DATABASE_URL, "authapp doctor", settings),
        execution_options=in_schema(config.DATABASE_SCHEMA),
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",  # so that a question that fails leaves the next one alone
    )
    try:
        with engine.connect() as connection:
            yield _version(connection)
            yield _transport(connection)
            clocks.compare("postgres", lambda: _time(connection))
            migrations = _migrations(connection, config.DATABASE_SCHEMA)
            yield migrations
            if migrations.state is State.OK:
                yield _writes(connection)
                yield _fences(connection)
                yield _key_prefix(connection, config.KEY_PREFIX, config.DATABASE_SCHEMA)
                yield _imported(connection)
                yield _unverified(connection)
                yield _second_factor(connection, config.SECOND_FACTOR)
                yield _passwordless(connection, config)
                yield from _mails(connection, is_on=bool(config.MAIL_URL))
                yield from replication.lost_commits(connection)
            yield from replication.examine(connection)
            yield _room(connection, config.WEB_CONCURRENCY * pool_size)
    except SettingError as error:
        told, _, remedy = str(error).removeprefix("DATABASE_URL: ").partition("; ")
        yield Finding("postgres", State.FAIL, told, remedy)
    except DBAPIError as error:
        password = read_database_url(config.DATABASE_URL).get("password")
        why = reason(error.orig or error, password)
        remedy = "start it, or correct DATABASE_URL"
        yield Finding("postgres", State.FAIL, f"it can't be asked: {why}", remedy)


def _number(connection: Connection, setting: str) -> int:
    found = connection.scalar(text("SELECT current_setting(:name)"), {"name": setting})
    return int(found or 0)


def _time(connection: Connection) -> float:
    return float(connection.scalar(text("SELECT extract(epoch FROM clock_timestamp())")) or 0)


def _version(connection: Connection) -> Finding:
    major, minor = divmod(_number(connection, "server_version_num"), 10_000)
    told = f"PostgreSQL {major}.{minor} answers"
    if major < NEEDED:
        return Finding(
            "postgres", State.FAIL, told, f"use {NEEDED} at least, better a maintained one"
        )
    if major < MAINTAINED:
        remedy = f"upgrade it to {MAINTAINED} or newer"
        return Finding("postgres", State.WARN, f"{told}, but is no longer maintained", remedy)
    return Finding("postgres", State.OK, told)


def _transport(connection: Connection) -> Finding:
    driver: Any = connection.connection.driver_connection
    asked: dict[str, str] = driver.info.dsn_parameters  # with what libpq took from the environment
    hosts = asked.get("host") or asked.get("hostaddr") or ""
    return judge_transport(hosts, asked.get("sslmode", ""), driver.info.ssl_in_use)


def judge_transport(hosts: str, sslmode: str, encrypted: bool) -> Finding:
    """
    Args:
        hosts: names, addresses or directories of sockets, with commas between; may be empty.
        encrypted: whether this very connection is.
    """
    check = "postgres transport"
    away = [host for host in hosts.split(",") if not _is_local(host)]
    if not away:
        return Finding(check, State.OK, "it is on this machine")
    there = ", ".join(away)
    verify = "add ?sslmode=verify-full&sslrootcert=… to DATABASE_URL"
    if not encrypted:
        return Finding(check, State.WARN, f"what is sent to {there} is not encrypted", verify)
    if sslmode not in {"verify-ca", "verify-full"}:
        return Finding(check, State.WARN, f"nothing proves that it is {there} who answers", verify)
    return Finding(check, State.OK, f"TLS, and {there} is verified")


def _is_local(host: str) -> bool:
    return not host or host.startswith(("/", "@")) or is_loopback(host)


def _migrations(connection: Connection, database_schema: str) -> Finding:
    from authapp.storage import schema  # noqa: PLC0415 — brings Alembic, which no worker needs

    try:
        expect_no_role(connection, database_schema)
    except SettingError as error:
        told, _, remedy = str(error).partition(": ")[2].partition("; ")
        return Finding("postgres schema", State.FAIL, told, remedy)
    found = schema.examine(connection, database_schema)
    state = State.OK if found.is_usable else State.FAIL
    return Finding("postgres schema", state, found.told, found.remedy)


def _writes(connection: Connection) -> Finding:
    """Asks for changes of no row: refused exactly when those of rows would be."""
    check = "postgres writes"
    try:
        for model in WRITTEN:
            table = model.__table__
            nothing = select(table).where(false())
            connection.execute(insert(model).from_select(list(table.columns), nothing))
            connection.execute(delete(model).where(false()))
    except DBAPIError as error:
        why = reason(error.orig or error)
        code = getattr(error.orig, "pgcode", None)
        if code == errorcodes.READ_ONLY_SQL_TRANSACTION:
            remedy = (
                "point DATABASE_URL at the primary (target_session_attrs=read-write finds it), or "
                "reset default_transaction_read_only"
            )
            return Finding(check, State.FAIL, f"it only reads: {why}", remedy)
        if code == errorcodes.INSUFFICIENT_PRIVILEGE:
            remedy = "grant it to the account in DATABASE_URL"
            return Finding(check, State.FAIL, f"a right is missing: {why}", remedy)
        raise
    return Finding(check, State.OK, "it takes changes")


def _fences(connection: Connection) -> Finding:
    waiting = connection.scalar(select(func.count()).select_from(PendingFence)) or 0
    if waiting:
        told = f"{waiting} wait until Redis takes them; until then copies may be behind"
        remedy = "once Redis answers run `flask --app wsgi auth maintenance`"
        return Finding("pending fences", State.WARN, told, remedy)
    return Finding("pending fences", State.OK, "none")


def _mails(connection: Connection, *, is_on: bool) -> Iterator[Finding]:
    """The mails that wait, or were dropped within a day. Without either and without mail: none."""
    waits = OutgoingMail.sent_at.is_(None) & OutgoingMail.failed_at.is_(None)
    late = func.now() - text("interval '5 minutes'")
    recent = func.now() - text("interval '1 day'")
    waiting, dropped = connection.execute(
        select(
            func.count().filter(waits, OutgoingMail.created_at < late),
            func.count().filter(OutgoingMail.failed_at > recent),
        )
    ).one()
    if waiting:
        told = f"{waiting} waiting for more than five minutes"
        remedy = "see `flask --app wsgi auth mail status`" if is_on else "set MAIL_URL again"
        yield Finding("waiting mails", State.WARN, told, remedy)
    if dropped:
        told = f"{dropped} dropped within a day"
        remedy = "see `flask --app wsgi auth mail status`, and mail_dropped in the log"
        yield Finding("dropped mails", State.WARN, told, remedy)
    if is_on and not waiting and not dropped:
        yield Finding("waiting mails", State.OK, "none is late, and none was dropped within a day")


def _unverified(connection: Connection) -> Finding:
    unverified, waiting = connection.execute(
        select(
            func.count(),
            func.count().filter(User.email_confirmation_due),
        ).where(User.email_verified_at.is_(None), User.active)
    ).one()
    if not unverified:
        return Finding("addresses", State.OK, "all are verified")
    text = f"{unverified} unverified; {waiting} of these people can't log in before they confirm"
    advice = "`users verify EMAIL` confirms an address that you know to be the person's"
    return Finding("addresses", State.OK, text, advice)


def _key_prefix(connection: Connection, key_prefix: str, schema: str) -> Finding:
    driver: Any = connection.connection.driver_connection
    try:
        expect_key_prefix(driver, key_prefix, schema, record=False)
    except SettingError as error:
        told, _, remedy = str(error).partition(": ")
        return Finding("key prefix", State.FAIL, told, remedy)
    if key_prefix:
        return Finding("key prefix", State.OK, f"the keys in Redis begin with {key_prefix}")
    advice = "set KEY_PREFIX where deployments share a Redis"
    return Finding("key prefix", State.OK, "none", advice)


def _imported(connection: Connection) -> Finding:
    check = "imported passwords"
    kind = imported_part(2)
    counted = select(kind, func.count()).where(is_imported()).group_by(kind).order_by(kind)
    found = {str(name): int(people) for name, people in connection.execute(counted)}
    if not found:
        return Finding(check, State.OK, "every hash is ours")
    kinds = ", ".join(f"{people} {name}" for name, people in found.items())
    told = f"{sum(found.values())} people have not logged in since they were imported: {kinds}"
    if "argon2" in found and not has_argon2():
        text = f"{told}; those with argon2 can't log in, because its library is missing"
        return Finding(check, State.FAIL, text, f"run {INSTALL_ARGON2} for all instances")
    advice = "refusals take as long as the slowest of these hashes until all are replaced"
    return Finding(check, State.OK, told, advice)


def _second_factor(connection: Connection, setting: str) -> Finding:
    check = "second factor"
    if setting == "optional":
        return Finding(check, State.OK, "for people who set one up")
    if setting == "required":
        return Finding(check, State.OK, "for everybody")
    asked = setting.split(",")
    known = set(connection.scalars(select(Role.name).where(Role.name.in_(asked))))
    if unknown := [name for name in asked if name not in known]:
        told = f"for people with a role that does not exist: {', '.join(unknown)}"
        remedy = "correct SECOND_FACTOR, or make the role by `roles create`"
        return Finding(check, State.WARN, told, remedy)
    return Finding(check, State.OK, f"for people who set one up or are {', '.join(asked)}")


def _passwordless(connection: Connection, config: Config) -> Finding:
    """People who log in by passkeys alone, of which only those of the present host count."""
    check = "no password"
    try:
        rp_id = relying_party_of(config).id
    except NoRelyingParty:
        rp_id = ""
    usable = exists().where(Passkey.user_id == User.id, Passkey.rp_id == rp_id)
    people, lost = connection.execute(
        select(func.count(), func.count().filter(~usable)).where(
            User.password_hash == "", User.second_factor, User.active
        )
    ).one()
    if lost:
        told = f"{lost} people have no password, and no passkey for {rp_id or 'this deployment'}"
        remedy = "`users reset EMAIL` gives them a link to set a password, or set PUBLIC_URL back"
        return Finding(check, State.WARN, told, remedy)
    return Finding(check, State.OK, f"{people} people log in by passkeys alone")


def _room(connection: Connection, wanted: int) -> Finding:
    reserved = _number(connection, "superuser_reserved_connections")
    room = _number(connection, "max_connections") - reserved
    told = f"one instance may open {wanted} of {room}"
    if wanted > room:
        remedy = "raise max_connections, lower WEB_CONCURRENCY, or put PgBouncer in between"
        return Finding("postgres connections", State.WARN, told, remedy)
    return Finding("postgres connections", State.OK, told)
