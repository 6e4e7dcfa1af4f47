"""The person that most tests are about, and the two calls that make them known."""

from typing import Any
from uuid import UUID

from authapp.accounts.actor import OPERATOR, Actor
from authapp.accounts.emails import parse_email
from authapp.accounts.identity import Identity
from authapp.cache.changes import Changed
from authapp.services import Services
from authapp.sessions.records import ActiveSession

PASSWORD = "correct horse battery staple"
OTHER_PASSWORD = "quite another long passphrase"
EMAIL = "ada@example.org"
CLIENT = Actor(
    address="192.0.2.7",
    user_agent="Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
)


def sign_up(services: Services, email: str = EMAIL, password: str = PASSWORD) -> Identity:
    return services.registration.sign_up(email, password, verified=True)


def log_in(
    services: Services, email: str = EMAIL, password: str = PASSWORD, **how: Any
) -> ActiveSession:
    return services.authentication.log_in(email, password, CLIENT, **how).session


def grant_role(services: Services, email: str, role: str) -> Changed[Identity]:
    """Gives a person a role, as the operator does."""
    return services.administration.grant_role(_id_of(services, email), role, OPERATOR)


def revoke_role(services: Services, email: str, role: str) -> Changed[Identity]:
    """Takes a role from a person, as the operator does."""
    return services.administration.revoke_role(_id_of(services, email), role, OPERATOR)


def _id_of(services: Services, email: str) -> UUID:
    found = services.users.find(parse_email(email))
    assert found is not None
    return found.id
