"""Somebody who can write to Redis can't run code, log in or become an administrator by it."""

import os
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import redis

from authapp import dev
from authapp.cache.entries import decode_entry, encode_entry
from authapp.crypto.sealing import Sealer
from authapp.sessions.records import SessionRecord
from tests.attacks.conftest import SECRET_KEY
from tests.attacks.site import Site
from tests.support.people import PASSWORD
from tests.support.waiting import wait_until


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def writer(valkey: dev.Valkey, site: Site) -> Iterator[redis.Redis]:
    """A client of the site's Redis, on an empty server."""
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()  # ours: the tests started it
        yield client


def copies(writer: redis.Redis) -> dict[bytes, bytes]:
    """The sealed copies there are."""
    found: dict[bytes, bytes] = {}
    for key in writer.scan_iter():
        value: Any = writer.hget(key.decode(), "v") if writer.type(key) == b"hash" else None
        if value:
            found[key] = value
    return found


def plant(writer: redis.Redis, key: str, value: bytes) -> None:
    """Only the copy: what else is kept beside it stays right."""
    writer.hset(key, mapping={"v": value})


def own_copy(site: Site, writer: redis.Redis, token: str) -> tuple[str, bytes]:
    """The key and the copy of this session, the only one there is."""
    deadline = time.monotonic() + 20
    while True:  # Redis may not be asked just now
        assert site.me(token).status == 200
        if found := [kv for kv in copies(writer).items() if kv[0].startswith(b"sess:")]:
            ((key, value),) = found
            return key.decode(), value
        assert time.monotonic() < deadline
        time.sleep(0.05)


def await_redis(site: Site) -> None:
    """Returns once it is asked again."""
    wait_until(lambda: site.ask("GET", "/readyz").json()["stores"]["redis"] == "ok")


def test_the_bomb_works(tmp_path: Path) -> None:
    """The control."""
    with pytest.raises(FileExistsError):
        pickle.loads(pickle.dumps(Bomb(tmp_path)))
    pickle.loads(pickle.dumps(Bomb(tmp_path / "new")))
    assert (tmp_path / "new").exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_planted_pickle_is_never_read(
    site: Site, writer: redis.Redis, tmp_path: Path, protocol: int
) -> None:
    """Wherever a session library would look: our copies, and the keys Flask-Session uses."""
    mark = tmp_path / "ran"
    bomb = pickle.dumps(Bomb(mark), protocol)
    email = site.sign_up()
    token = site.log_in(email)
    key, _ = own_copy(site, writer, token)
    for copied in copies(writer):
        plant(writer, copied.decode(), bomb)
    digest = key.partition(":")[2]
    for prefix in ("session:", "sess:", "flask:", ""):
        for name in (token, digest):
            if not writer.exists(f"{prefix}{name}"):
                writer.set(f"{prefix}{name}", bomb)
    assert site.me(token).json()["email"] == email, "the facts answer"
    assert site.ask("GET", "/account", token=token).status == 200
    site.log_in(email)
    assert site.ask("POST", "/api/v1/logout", token=token).status == 204
    assert not mark.exists()


def test_a_key_of_another_type_keeps_nobody_out(site: Site, writer: redis.Redis) -> None:
    email = site.sign_up()
    token = site.log_in(email)
    key, _ = own_copy(site, writer, token)
    writer.delete(key)
    writer.set(key, pickle.dumps({"user": "admin"}))
    for _ in range(8):  # more than it takes until Redis is not asked any more
        assert site.me(token).status == 200
    assert site.ask("GET", "/account", token=token).status == 200
    assert site.ask("POST", "/api/v1/logout", token=token).status in {202, 204}
    assert site.me(token).status == 401
    assert site.me(site.log_in(email)).status == 200
    writer.delete(key)
    await_redis(site)


def set_role(site: Site, email: str, role: str) -> None:
    """By hand, before they log in."""
    site.sql(
        "INSERT INTO user_roles SELECT u.id, r.id FROM users u, roles r"
        " WHERE u.email = %s AND r.name = %s",
        email,
        role,
    )


def planted_copies(value: bytes, key: str) -> dict[str, bytes]:
    return {
        "in clear": value,
        "sealed by a secret of their own": Sealer(["k" * 32]).seal(key, value),
        "cut": value[:20],
        "empty": b"",
    }


def test_a_session_that_was_planted_is_refused(site: Site, writer: redis.Redis) -> None:
    """Everything right but the seal, with the attacker an administrator in it."""
    email = site.sign_up()
    token = site.log_in(email)
    key, value = own_copy(site, writer, token)
    record = Sealer([SECRET_KEY]).open(key, value)
    assert record is not None
    found = decode_entry(record, SessionRecord)
    assert found is not None, "the control: with the secret it opens"
    assert found.user.email == email, "and says who it is"
    permissions = ("users:read", "users:write")
    admin = msgspec.structs.replace(found.user, roles=("admin",), permissions=permissions)
    raised = msgspec.structs.replace(found, user=admin)
    for how, planted in planted_copies(encode_entry(raised), key).items():
        plant(writer, key, planted)
        assert site.me(token).json()["roles"] == ["user"], how
        plant(writer, key, planted)
        assert site.ask("GET", "/api/v1/users", token=token).status == 403, how


def test_a_session_of_somebody_else_is_refused(site: Site, writer: redis.Redis) -> None:
    victim, attacker = site.sign_up(), site.sign_up()
    victims = site.log_in(victim)
    _, copy = own_copy(site, writer, victims)
    writer.flushall()
    token = site.log_in(attacker)
    key, _ = own_copy(site, writer, token)
    plant(writer, key, copy)
    assert site.me(token).json()["email"] == attacker


def test_credentials_of_their_own_open_nobody(site: Site, writer: redis.Redis) -> None:
    """The copy that says which password opens the account, swapped for the attacker's."""
    victim, attacker = site.sign_up(), site.sign_up(password="a password only the attacker has")

    def credentials() -> dict[bytes, bytes]:
        return {k: v for k, v in copies(writer).items() if k.startswith(b"cred:")}

    deadline = time.monotonic() + 20
    while len(credentials()) < 2:
        assert time.monotonic() < deadline
        for email in (attacker, victim):
            site.ask("POST", "/api/v1/login", {"email": email, "password": "wrong"})
        time.sleep(0.05)  # they are filled behind the answer
    (one, value), (other, another) = credentials().items()
    plant(writer, one.decode(), another)
    plant(writer, other.decode(), value)
    stolen = {"email": victim, "password": "a password only the attacker has"}
    assert site.ask("POST", "/api/v1/login", stolen).status == 401
    site.log_in(victim)


def test_a_session_put_back_after_its_end_is_believed_for_a_moment_at_most(
    site: Site, writer: redis.Redis
) -> None:
    """It was sealed by us, so it opens: until REVALIDATE_SECONDS have passed since it was read."""
    token = site.log_in(site.sign_up())
    key, _ = own_copy(site, writer, token)
    fields: Any = writer.hgetall(key)
    assert site.ask("POST", "/api/v1/logout", token=token).status == 204
    assert site.me(token).status == 401
    deadline = time.monotonic() + 10
    while True:
        writer.delete(key)
        writer.hset(key, mapping=fields)  # again and again
        if site.me(token).status == 401:
            break
        assert time.monotonic() < deadline, "an ended session goes on and on"
        time.sleep(0.1)


def test_a_user_put_back_shows_what_was_and_gives_no_right(site: Site, writer: redis.Redis) -> None:
    """Sealed by us as well, and believed as long as it is kept; rights are those of sessions."""
    email = site.sign_up()
    (user_id,) = site.sql("SELECT id::text FROM users WHERE email = %s", email)[0]
    set_role(site, email, "admin")
    token = site.log_in(email)
    path, key = f"/api/v1/users/{user_id}", f"user:{user_id}"
    deadline = time.monotonic() + 20
    while not (fields := cast("dict[bytes, bytes]", writer.hgetall(key))).get(b"v"):
        assert "admin" in site.ask("GET", path, token=token).json()["roles"]
        assert time.monotonic() < deadline
    assert site.ask("GET", "/api/v1/roles", token=token).status == 200, "the control"
    body = {"roles": ["user"]}
    other = site.sign_up()
    set_role(site, other, "admin")
    changed = site.ask("PUT", f"{path}/roles", body, token=site.log_in(other))
    assert changed.status in {200, 202}
    deadline = time.monotonic() + 20
    while True:
        writer.delete(key)
        writer.hset(key, mapping=cast("dict[Any, Any]", fields))
        shown = site.ask("GET", path, token=token)
        may = [site.ask("GET", "/api/v1/roles", token=t) for t in (token, site.log_in(email))]
        if "admin" in shown.json()["roles"] and [answer.status for answer in may] == [403, 403]:
            break
        assert time.monotonic() < deadline


def test_credentials_put_back_open_nothing(site: Site, writer: redis.Redis) -> None:
    """Those of the password before: the row says that they are of then."""
    email = site.sign_up()
    token = site.log_in(email)
    deadline = time.monotonic() + 20
    while not (found := [k for k in copies(writer) if k.startswith(b"cred:")]):
        assert time.monotonic() < deadline
        site.log_in(email)
        time.sleep(0.05)
    key = found[0].decode()
    fields: Any = writer.hgetall(key)
    new = "a password of later on"
    change = {"current_password": PASSWORD, "new_password": new}
    changed = site.ask("POST", "/api/v1/me/password", change, token=token)
    assert changed.status in {202, 204}
    for password, status in ((PASSWORD, 401), (new, 200)):
        writer.delete(key)
        writer.hset(key, mapping=fields)
        body = {"email": email, "password": password}
        assert site.ask("POST", "/api/v1/login", body).status == status
