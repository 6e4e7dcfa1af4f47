"""The text of mails: whole, in the brand's name, and nothing in it is somebody else's link."""

import re
from datetime import UTC, datetime
from email import message_from_string
from email.message import EmailMessage
from email.policy import SMTP
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import ChoiceLoader, DictLoader, FileSystemLoader

from authapp.assembly.mailing import TEMPLATES
from authapp.brand import Brand
from authapp.mail.messages import Messages, safe
from authapp.mail.outbox import MAIL_KINDS, Letter
from authapp.mail.public_links import PublicLinks
from authapp.mail.transport import RenderedMail
from authapp.sessions.user_agents import device_name

PUBLIC_URL = "https://auth.example.org/sso"
LINK = f"{PUBLIC_URL}/verify?token={'t' * 43}"
UNDO = f"{PUBLIC_URL}/email/undo?token={'u' * 43}"
AT = datetime(2031, 5, 4, 12, tzinfo=UTC)
BRAND = Brand(name="Acme & Söhne", color="#ffcc00", support_url="/help")
NOTICES = (
    "new_device",
    "password_changed",
    "refused_logins",
    "factors_changed",
    "factor_refused",
    "email_changed",
    "change_announced",
)
WHOLE = {
    "link": LINK,
    "undo_link": UNDO,
    "code": "12345678",
    "name": "Ann",
    "when": "2031-05-04T12:00:00Z",
    "device": "Firefox on Linux",
    "address": "203.0.113.5",
    "new_email": "new@example.org",
    "invited_by": "bob@example.org",
    "count": "12",
}


def messages(*templates: dict[str, str], brand: Brand = BRAND, sender: str = "a@b.org") -> Messages:
    loaders = [*map(DictLoader, templates), FileSystemLoader(TEMPLATES)]
    return Messages(ChoiceLoader(loaders), brand, PublicLinks(PUBLIC_URL), sender, device_name, str)


def read(mail: RenderedMail) -> EmailMessage:
    """As a mail program reads it; each line ends as it has to."""
    assert re.fullmatch(rb"(?:[^\r\n]{0,998}\r\n)+", mail.content)
    return message_from_string(mail.content.decode(), _class=EmailMessage, policy=SMTP)


def render(kind: str, context: dict[str, str], to: str = "ann@example.org") -> EmailMessage:
    return read(messages().render(kind, Letter(to, context), AT, 7))


def part(mail: EmailMessage, kind: str) -> str:
    found = mail.get_body((kind,))
    assert found is not None
    return str(found.get_content()).replace("\r\n", "\n")


class Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("kind", MAIL_KINDS)
@pytest.mark.parametrize("context", [WHOLE, {}], ids=["whole", "empty"])
def test_every_kind_is_whole_in_both_parts(kind: str, context: dict[str, str]) -> None:
    mail = render(kind, context)
    text, html = part(mail, "plain"), part(mail, "html")
    assert mail["Subject"]
    assert "\n" not in mail["Subject"]
    page = Page(html)
    assert "Acme & Söhne" in text
    assert "Acme & Söhne" in page.text
    assert not {"script", "img", "link", "style"} & set(page.tags)
    for link in {*filter(None, page.links), *re.findall(r"https?://\S+", text)}:
        assert link.startswith((f"{PUBLIC_URL}/", "https://auth.example.org/help")), link
    assert max(map(len, text.splitlines())) <= max(80, len(UNDO))
    assert "None" not in text + html
    assert "{" not in text
    assert not re.search(r"\n\n\n", text)
    assert {line for line in text.splitlines() if line.endswith(" ")} <= {"-- "}
    # one part says nothing that the other does not
    assert {link for link in page.links if "token" in link} == set(
        re.findall(r"\S+token=\w+", text)
    )


@pytest.mark.parametrize("kind", ["verify", "reset", "confirm_change", "invitation"])
def test_links_and_codes_are_there(kind: str) -> None:
    mail = render(kind, WHOLE)
    assert LINK in part(mail, "plain")
    assert f'href="{LINK}"' in part(mail, "html")
    assert (kind in {"verify", "confirm_change"}) == ("12345678" in part(mail, "plain"))


@pytest.mark.parametrize("kind", NOTICES)
def test_a_notice_says_when_which_device_from_where_and_what_to_do(kind: str) -> None:
    """OWASP ASVS 5.0, 6.3.5 and 6.3.7."""
    mail = render(kind, {**WHOLE, "link": ""})
    for body in (part(mail, "plain"), Page(part(mail, "html")).text):
        for fact in ("4 May 2031, 12:00 UTC", "Firefox on Linux", "203.0.113.5"):
            assert fact in body
        assert re.search(r"password|back", body)
    whole = part(mail, "plain") + part(mail, "html")
    assert "/login" not in whole
    assert f"{PUBLIC_URL}/forgot" in whole or UNDO in whole


@pytest.mark.parametrize(
    "name",
    [
        "https://evil.example",
        "evil.com",
        "www.evil",
        "go to evil.com/now please",
        "mail@evil.com",
        "Ann\r\nBcc: all@example.org\r\n\r\nevil.com",
        "<a href='https://evil.example'>Ann</a>",
        "Ann\u2028evil.com",
        "EVIL.Com",
        "ёvil.рф",
        "x" * 5000,
    ],
)
def test_a_name_is_plain_text_without_line_breaks_and_links(name: str) -> None:
    """A mail program makes links of what looks like one, in plain text as well."""
    context = {**WHOLE, "name": name, "device": name, "address": name, "invited_by": name}
    for kind in ("verify", "new_device", "invitation"):
        mail = render(kind, {**context, "invited_by": f"x {name}"})
        text, html = part(mail, "plain"), part(mail, "html")
        assert not re.search(r"(?i)[^\W_]\.(com|example|рф)\b(?!\.org)", text.replace(LINK, "")), (
            text
        )
        assert not re.search("evil.*://|www\\.evil", text)
        assert Page(html).tags.count("a") <= 3
        assert not any("evil" in link for link in Page(html).links)
        greeting = text.splitlines()[0]
        assert greeting.startswith("Hello ")
        assert len(greeting) < 250
        assert set(mail.keys()) == {
            *("From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted"),
            *("MIME-Version", "Content-Type"),
        }


@pytest.mark.parametrize(
    "name", ["J. R. R. Tolkien", "Ann O'Neil-Smith", "Dr. Ann", "李小龙", "ann"]
)
def test_an_ordinary_name_stays_as_it_is(name: str) -> None:
    assert safe("name", name) == name
    assert f"Hello {name}," in part(render("verify", {**WHOLE, "name": name}), "plain")


def test_headers() -> None:
    letter = Letter("ann@example.org", {})
    mail = read(messages(sender="no-reply@example.org").render("test", letter, AT, 7))
    assert mail["From"].addresses[0].addr_spec == "no-reply@example.org"
    assert mail["From"].addresses[0].display_name == "Acme & Söhne"
    assert mail["To"].addresses[0].addr_spec == "ann@example.org"
    assert mail["Date"] == "Sun, 04 May 2031 12:00:00 +0000"
    assert mail["Message-ID"] == "<7@example.org>"
    assert mail["Auto-Submitted"] == "auto-generated"
    named = read(messages(sender="Help <no-reply@example.org>").render("test", letter, AT, 7))
    assert named["From"].addresses[0].display_name == "Help"


def test_a_long_subject_and_a_long_name_are_whole() -> None:
    brand = Brand(name="Größe " * 40)
    mail = read(messages(brand=brand).render("test", Letter("ann@example.org", {}), AT, 7))
    assert mail["Subject"] == f"A test from {brand.name.strip()}"
    assert mail["From"].addresses[0].display_name.strip() == brand.name.strip()


def test_the_button_can_be_read_on_the_color_of_the_brand() -> None:
    html = part(render("verify", WHOLE), "html")
    assert "background:#ffcc00;color:#000000" in html
    plain = read(messages(brand=Brand()).render("verify", Letter("a@b.org", WHOLE), AT, 7))
    assert "background:#3451b2;color:#ffffff" in part(plain, "html")


def test_an_app_puts_templates_of_its_own_in_their_place() -> None:
    own = {
        "authapp/mail/reset.txt": "Neues Passwort\n\nHallo {{ name }}: {{ link }}\n",
        "authapp/mail/reset.html": "<p>Hallo {{ name }}: <a href='{{ link }}'>hier</a></p>",
    }
    mail = read(
        messages(own).render("reset", Letter("ann@example.org", {**WHOLE, "name": "<b>"}), AT, 7)
    )
    assert mail["Subject"] == "Neues Passwort"
    assert part(mail, "plain").strip() == f"Hallo <b>: {LINK}"
    assert "Hallo &lt;b&gt;:" in part(mail, "html")


def test_every_kind_has_templates_in_the_package() -> None:
    directory: Path = TEMPLATES / "authapp/mail"
    kinds = {path.stem for path in directory.iterdir() if path.stem[0] != "_"} - {"base"}
    assert kinds == set(MAIL_KINDS)
    assert all((directory / f"{kind}.{end}").is_file() for kind in kinds for end in ("txt", "html"))


def test_an_old_address_that_can_undo_nothing_is_not_told_that_it_counts() -> None:
    """As one that nobody had confirmed."""
    told = {"new_email": "new@example.org", "former_email": "ann@example.org"}
    old, new = (render("email_changed", {**told, **more}) for more in ({}, {"former_email": ""}))
    for kind in ("plain", "html"):
        text = " ".join(part(old, kind).split())
        assert "nobody logs in with ann@example.org" in text
        assert "our mails come here" not in text
        assert "our mails come here" in " ".join(part(new, kind).split())
