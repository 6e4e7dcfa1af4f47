"""DATABASE_URL: what each spelling means, and one line without the password for all others."""

import pytest

from authapp.config import Config
from authapp.errors import SettingError
from authapp.storage.database_urls import read_database_url
from tests.test_config import GIVEN


@pytest.mark.parametrize(
    ("url", "meaning"),
    [
        ("postgresql://db/x", {"host": "db", "dbname": "x"}),
        ("postgres://", {}),
        ("postgresql+psycopg2://u:p@db:5433/x", {"user": "u", "password": "p", "port": "5433"}),
        ("postgresql://u:p%40%23%2F%3F%5B%25@db/x", {"password": "p@#/?[%"}),
        ("postgresql://u:a:b@db/x", {"user": "u", "password": "a:b", "host": "db"}),
        ("postgresql://u:100%@db/x", {"password": "100%", "host": "db"}),
        ("postgresql://ann@corp:p@db/x", {"user": "ann@corp", "password": "p", "host": "db"}),
        ("postgresql://[::1]:5433/x", {"host": "::1", "port": "5433"}),
        ("postgresql://%2Frun%2Fpg/my%20db", {"host": "/run/pg", "dbname": "my db"}),
        ("postgresql://u:p@/x?host=%2Frun%2Fpg", {"host": "/run/pg", "dbname": "x"}),
        ("postgresql://h1:5432,h2:5433/x", {"host": "h1,h2", "port": "5432,5433"}),
        ("postgresql://u:p@h1,[::1]:5433/x", {"host": "h1,::1", "port": ",5433"}),
        ("postgresql://h1,h2/x", {"host": "h1,h2"}),
        ("postgresql:///x?host=h1:5432&host=h2:5433", {"host": "h1,h2", "port": "5432,5433"}),
        ("postgresql:///x?host=h1,h2&port=5432,5433", {"host": "h1,h2", "port": "5432,5433"}),
        ("postgresql:///x?host=%2Frun%2Fpg:5433", {"host": "/run/pg", "port": "5433"}),
        ("postgresql:///x?host=h1&host=::1", {"host": "h1,::1"}),
        ("postgresql:///x?host=::1", {"host": "::1"}),
        ("postgresql://db/x?options=-csearch_path%3Da", {"options": "-csearch_path=a"}),
        ("postgresql://db/x?options=-c+search_path%3Da", {"options": "-c search_path=a"}),
        ("postgresql://db/x?options=endpoint%3Dep-cool", {"options": "endpoint=ep-cool"}),
        ("postgresql://db/x?ssl=true", {"sslmode": "require"}),
        ("postgresql://db/x?sslmode=verify-full&sslrootcert=/ca.crt", {"sslrootcert": "/ca.crt"}),
        (
            "postgresql://u:p@h1:5432,h2:5433/db?target_session_attrs=read-write",
            {"host": "h1,h2", "port": "5432,5433", "target_session_attrs": "read-write"},
        ),
    ],
)
def test_a_url_is_read(url: str, meaning: dict[str, str]) -> None:
    found = read_database_url(url)
    assert meaning.items() <= found.items()
    assert url == Config.from_mapping(GIVEN | {"DATABASE_URL": url}).DATABASE_URL


@pytest.mark.parametrize("character", "@#/?[]")
@pytest.mark.parametrize("password", ["hush{}hush", "12{}hush", "{}hush", "hush{}", "h{0}us{0}h"])
@pytest.mark.parametrize("rest", ["@db.example/x", "@db.example:5432/x?sslmode=require", "@/x"])
def test_a_password_that_needs_encoding_is_refused_with_the_remedy(
    character: str, password: str, rest: str
) -> None:
    message = refusal(f"postgresql://u:{password.format(character)}{rest}")
    assert "percent-encoded" in message


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://u:hush@db/x?pool_size=5", "`pool_size` is no parameter"),
        ("postgresql://u:hush@db/x?sslMode=require", "is no parameter"),
        ("postgresql://u:hush@db/x?pool_size", "is no parameter"),
        ("postgresql://db/x?password=a&hush=b", "percent-encode &"),
        ("postgresql://db/x?port=hush", "port: set it to a number"),
        ("postgresql://db/x?port=70000", "port: set it to a number"),
        ("postgresql://u:hush@db:hush/x", "percent-encoded"),
        ("postgresql://u:hush@db:0/x", "percent-encoded"),
        ("postgresql://u:hush@h1:5432,h2:x/x", "percent-encoded"),
        ("postgresql://u:hush%FF@db/x", "percent-encoded"),
        ("postgresql://u:hush%00@db/x", "percent-encoded"),
        ("postgresql://u:hush\udcff@db/x", "percent-encoded"),
        ("postgresql://u:hush@db/x?application_name=%FF", "percent-encoded"),
        ("mysql://u:hush@db/x", "postgresql://user:password@host/database"),
    ],
)
def test_an_unusable_url_is_refused_with_the_remedy(url: str, words: str) -> None:
    assert words in refusal(url)


def refusal(url: str) -> str:
    with pytest.raises(SettingError) as caught:
        Config.from_mapping(GIVEN | {"DATABASE_URL": url})
    message = str(caught.value)
    assert message.startswith("DATABASE_URL: ")
    assert "\n" not in message
    assert "hush" not in message
    assert "12" not in message
    return message
