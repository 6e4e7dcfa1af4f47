"""Password hashes as other systems store them, each made by the library that they use."""

import hashlib
import warnings

import argon2
from argon2.low_level import Type
from django.contrib.auth import hashers
from flask_bcrypt import Bcrypt
from werkzeug.security import generate_password_hash

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from passlib import hash as passlib


# The hashes are cheap: what they cost is no part of the form.
class _Pbkdf2Sha256(hashers.PBKDF2PasswordHasher):  # type: ignore[misc]
    iterations = 1_000


class _Pbkdf2Sha1(hashers.PBKDF2SHA1PasswordHasher):  # type: ignore[misc]
    iterations = 1_000


class _Scrypt(hashers.ScryptPasswordHasher):  # type: ignore[misc]
    work_factor = 2**8


class _Argon2(hashers.Argon2PasswordHasher):  # type: ignore[misc]
    time_cost, memory_cost, parallelism = 1, 64, 2


class _Bcrypt(hashers.BCryptPasswordHasher):  # type: ignore[misc]
    rounds = 4


class _BcryptSha256(hashers.BCryptSHA256PasswordHasher):  # type: ignore[misc]
    rounds = 4


def _django(hasher: hashers.BasePasswordHasher, password: str) -> str:
    made: str = hasher.encode(password, hasher.salt())
    return made


def _flask_bcrypt(password: str) -> str:
    made: bytes = Bcrypt().generate_password_hash(password, rounds=4)
    return made.decode()


def _flask_bcrypt_long(password: str) -> str:
    """As Flask-Bcrypt with BCRYPT_HANDLE_LONG_PASSWORDS, marked as the guide says."""
    return "bcrypt_sha256$" + _flask_bcrypt(hashlib.sha256(password.encode()).hexdigest())


def _argon2(kind: Type, password: str) -> str:
    return argon2.PasswordHasher(1, 64, 2, type=kind).hash(password)


def _passlib(name: str, password: str, **cost: object) -> str:
    made: str = getattr(passlib, name).using(**cost).hash(password)
    return made


def all_kinds(password: str) -> dict[str, str]:
    """A hash of this password in each form that can be imported, by a name of the form."""
    bcrypt_2b = _flask_bcrypt(password)
    return {
        "flask-bcrypt": bcrypt_2b,
        "flask-bcrypt-long": _flask_bcrypt_long(password),
        "bcrypt-2a": bcrypt_2b.replace("$2b$", "$2a$"),
        "bcrypt-2y": bcrypt_2b.replace("$2b$", "$2y$"),
        "werkzeug-scrypt": generate_password_hash(password, "scrypt:256:8:1"),
        "werkzeug-pbkdf2-sha256": generate_password_hash(password, "pbkdf2:sha256:1000"),
        "werkzeug-pbkdf2-sha512": generate_password_hash(password, "pbkdf2:sha512:1000"),
        "werkzeug-pbkdf2-sha1": generate_password_hash(password, "pbkdf2:sha1:1000"),
        "argon2id": _argon2(Type.ID, password),
        "argon2i": _argon2(Type.I, password),
        "argon2d": _argon2(Type.D, password),
        "django-pbkdf2-sha256": _django(_Pbkdf2Sha256(), password),
        "django-pbkdf2-sha1": _django(_Pbkdf2Sha1(), password),
        "django-scrypt": _django(_Scrypt(), password),
        "django-argon2": _django(_Argon2(), password),
        "django-bcrypt": _django(_Bcrypt(), password),
        "django-bcrypt-sha256": _django(_BcryptSha256(), password),
        "passlib-bcrypt": _passlib("bcrypt", password, rounds=4),
        "passlib-bcrypt-sha256": _passlib("bcrypt_sha256", password, rounds=4),
        "passlib-bcrypt-sha256-v1": _passlib("bcrypt_sha256", password, rounds=4, version=1),
        "passlib-pbkdf2-sha1": _passlib("pbkdf2_sha1", password, rounds=1_000),
        "passlib-pbkdf2-sha256": _passlib("pbkdf2_sha256", password, rounds=1_000),
        "passlib-pbkdf2-sha512": _passlib("pbkdf2_sha512", password, rounds=1_000),
        "passlib-scrypt": _passlib("scrypt", password, rounds=8),
        "passlib-argon2": _passlib("argon2", password, rounds=1, memory_cost=64, parallelism=1),
    }


KINDS = tuple(all_kinds("x"))
