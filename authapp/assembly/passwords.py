"""Builds from the settings what says which passwords are accepted, and what hashes them."""

from functools import partial

from authapp.assembly.capacity import logins_at_once
from authapp.authentication.addresses import network_of
from authapp.config import Config
from authapp.passwords.block_list import BlockList
from authapp.passwords.foreign_hashes import bcrypt_seconds
from authapp.passwords.hashing import PasswordHasher
from authapp.passwords.hashing_queue import HashingQueue
from authapp.passwords.new_passwords import NewPasswords
from authapp.passwords.policy import PasswordPolicy


def build_new_passwords(config: Config) -> NewPasswords:
    policy = PasswordPolicy(
        config.PASSWORD_MIN_LENGTH, BlockList(config.PASSWORD_BLOCKLIST), config.BRAND_NAME
    )
    hasher = PasswordHasher(
        peppers=config.PASSWORD_PEPPER,
        rounds=config.BCRYPT_ROUNDS,
        queue=HashingQueue(
            places=logins_at_once(config.WEB_THREADS),
            seconds=bcrypt_seconds(config.BCRYPT_ROUNDS),
            patience=config.LOGIN_TIMEOUT_SECONDS,
            network_of=partial(network_of, prefix=48),  # a customer may have so much of IPv6
        ),
    )
    return NewPasswords(policy, hasher)
