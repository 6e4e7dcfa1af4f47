"""One canonical form for all spellings of an address."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authapp import create_app
from authapp.accounts.emails import Email, parse_email
from authapp.config import Config
from authapp.errors import InvalidField
from tests.support.people import OTHER_PASSWORD, PASSWORD
from tests.support.settings import make_config


def test_a_long_text_is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidField) as caught:
        parse_email(" " * 320 + "ada@example.org")
    assert caught.value.errors == {"email": "use at most 320 characters"}


def canonical(text: str) -> str:
    return parse_email(text).canonical


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ada@Example.ORG", "ada@example.org"),
        ("  ada@example.org\n", "ada@example.org"),
        ("ａｄａ@example.org", "ada@example.org"),  # full-width
        ("ada@ｅｘａｍｐｌｅ.org", "ada@example.org"),
        ("İnfo@example.org", "i\u0307nfo@example.org"),  # Postgres' lower says otherwise
        ("STRASSE@example.org", "straße@example.org"),
        ("ﬁona@example.org", "fiona@example.org"),  # ligature
        ("jose\u0301@example.org", "jos\u00e9@example.org"),  # NFD and NFC
        ("ΣΊΣΥΦΟΣ@example.org", "σίσυφος@example.org"),
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
        ("ada@BÜCHER.example", "ada@bu\u0308cher.example"),
    ],
)
def test_spellings_of_one_address_meet(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ada@example.org", "ada@example.com"),
        ("ada+news@example.org", "ada@example.org"),  # whose mailbox that is we can't know
        ("a.da@example.org", "ada@example.org"),
        ("jose@example.org", "jos\u00e9@example.org"),
        ("info@example.org", "ınfo@example.org"),  # dotless
    ],
)
def test_different_addresses_stay_different(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


def test_mail_goes_to_what_was_written() -> None:
    email = parse_email("Ada.Lovelace@BÜCHER.example")
    assert email.stored == "Ada.Lovelace@bücher.example"
    assert email.canonical == "ada.lovelace@xn--bcher-kva.example"


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "ada",
        "ada@",
        "@example.org",
        "ada@example",
        "ada@example..org",
        "a da@example.org",
        "ada@exa mple.org",
        "ada@b@example.org",
        "ada＠b@example.org",  # a full-width @ that would become one
        '"a@b"@example.org',
        "ada@[127.0.0.1]",
        "Ada <ada@example.org>",
        "ada\0@example.org",
        "ada\r\nBcc: all@example.org",
        "ada\u200b@example.org",
        "ada\u202egro.elpmaxe@example.org",
        "ada\u00ad@example.org",
        "ada´s@example.org",  # a blank and an accent, when taken apart
        "\ud800@example.org",
        "ada@xn--a.example",
        "a" * 243 + "@example.org",
        "ada@" + "a" * 64 + ".org",
        "ada@" + "a.b" * 100 + ".org",
    ],
)
def test_what_is_no_address_is_refused_with_advice(text: str) -> None:
    with pytest.raises(InvalidField) as caught:
        parse_email(text)
    assert caught.value.errors == {"email": "enter an email address like name@example.org"}


@pytest.mark.parametrize(
    "invisible",
    "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b\u180e\u180f\u200b\u200d\u2060\u3164\ufe00\ufe0f\uffa0"
    "\U000e0100\U000e01ef",
    ids=ascii,
)
@pytest.mark.parametrize("place", ["{}ada", "a{}da", "ada{}"])
def test_what_shows_nothing_is_refused(invisible: str, place: str) -> None:
    """Two addresses that look the same would be two people."""
    with pytest.raises(InvalidField):
        parse_email(place.format(invisible) + "@example.org")


locals_ = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs"]), min_size=1, max_size=12)
domains = st.sampled_from(
    ["example.org", "BÜCHER.example", "ｅｘａｍｐｌｅ.org", "xn--bcher-kva.example"]
)


@given(locals_, domains)
@example("İ", "example.org")
@example("ﬀ", "example.org")
def test_the_canonical_form_is_stable(local: str, domain: str) -> None:
    try:
        email = parse_email(f"{local}@{domain}")
    except InvalidField:
        return
    # what is stored is parsed again when its password changes
    assert parse_email(email.stored) == email
    assert email.canonical.isprintable()
    assert email.canonical.count("@") == 1
    decomposed = unicodedata.normalize("NFD", f"{local}@{domain}")
    for spelling in (email.canonical, decomposed, f"{local.casefold()}@{domain.upper()}"):
        try:
            again = canonical(spelling)
        except InvalidField:
            continue  # a spelling that is no address can't be somebody else's either
        assert again == email.canonical


# -- domains of an intranet ------------------------------------------------------------------------

LOCAL = ("corp.local", "localhost", "intranet", "xn--bro-hoa.intern")


@pytest.mark.parametrize(
    ("text", "stored", "canonical"),
    [
        ("ann@corp.local", "ann@corp.local", "ann@corp.local"),
        (" Ann@CORP.local ", "Ann@corp.local", "ann@corp.local"),
        ("ann@localhost", "ann@localhost", "ann@localhost"),
        ("ann@intranet", "ann@intranet", "ann@intranet"),
        ("ann@ｃｏｒｐ。local", "ann@corp.local", "ann@corp.local"),
        ("ann@büro.intern", "ann@büro.intern", "ann@xn--bro-hoa.intern"),
        ("ann@xn--bro-hoa.intern", "ann@büro.intern", "ann@xn--bro-hoa.intern"),
        ("ann@example.org", "ann@example.org", "ann@example.org"),
    ],
)
def test_addresses_of_listed_domains_are_read(text: str, stored: str, canonical: str) -> None:
    assert parse_email(text, LOCAL) == Email(stored, canonical)


@pytest.mark.parametrize(
    "text",
    [
        *("ann@eu.corp.local", "ann@other.local", "ann@local", "ann@host", "ann@invalid"),
        *("ann@corp.local.", "ann@.corp.local", "ann@corp.local.test.", "ann@localhost.localhost"),
        *("@localhost", "ann@", "ann", "localhost", "a b@localhost", "ann@localhost@localhost"),
        *("ann\u200b@localhost", "ann@[127.0.0.1]", "<ann@localhost>"),
    ],
)
def test_all_other_addresses_are_refused_as_before(text: str) -> None:
    for domains in ((), LOCAL):
        with pytest.raises(InvalidField):
            parse_email(text, domains)


def test_no_address_of_an_intranet_is_taken_unless_it_is_listed() -> None:
    for text in ("ann@corp.local", "ann@localhost", "ann@intranet"):
        with pytest.raises(InvalidField):
            parse_email(text)


def test_a_person_of_an_intranet_is_known_everywhere(config: Config) -> None:
    """By command line, API and page."""
    app = create_app(
        make_config(
            config.DATABASE_URL,
            config.REDIS_URL,
            EMAIL_LOCAL_DOMAINS="corp.local,localhost",
            SESSION_COOKIE_SECURE="0",
        )
    )
    runner, client = app.test_cli_runner(), app.test_client()
    same = {"Sec-Fetch-Site": "same-origin"}
    for email, again in (("ann@corp.local", "ANN@Corp.Local"), ("ann@localhost", "ann@LOCALHOST")):
        made = runner.invoke(
            args=["auth", "users", "create", email, "--password-stdin"], input=f"{PASSWORD}\n"
        )
        assert made.exit_code == 0, made.output
        assert runner.invoke(args=["auth", "users", "grant", again, "admin"]).exit_code == 0
        assert email in runner.invoke(args=["auth", "users", "show", again]).output
        assert runner.invoke(args=["auth", "audit", "list", "--user", again]).exit_code == 0
        body = {"email": again, "password": PASSWORD}
        assert client.post("/api/v1/login", json=body, headers=same).json["user"]["email"] == email  # type: ignore[index]
        changed = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
        assert client.post("/api/v1/me/password", json=changed, headers=same).status_code < 300
        assert app.test_client().post("/login", data=body, headers=same).status_code == 401
        form = body | {"password": OTHER_PASSWORD}
        assert app.test_client().post("/login", data=form, headers=same).status_code == 303
        assert app.test_client().post("/api/v1/signup", json=form, headers=same).status_code == 409
    elsewhere = {"email": "ann@other.local", "password": PASSWORD}
    assert client.post("/api/v1/signup", json=elsewhere, headers=same).status_code == 400
