"""The rules for new passwords reach every place where one is chosen, as the operator set them."""

from pathlib import Path

import pytest
from flask import Flask

from tests.web.conftest import MakeApp
from tests.web.support import Page, browser, log_in, program, services_of, sign_up

SHORTEST = "k7Qw9zXpB4"  # ten characters
REFUSED = {
    SHORTEST[1:]: "use at least 10 characters",
    "green lanterns ahoy": "nobody may use here",
    "Nimbus Notes 2024": "it is the name of this service with a few characters added",
    "ada@example.org1": "it is your email with a few characters added",
    "1qaz2wsx3edc4rfv": "it is among the first passwords that attackers try",
    "summer2024summer!": "it is made of common words",
}


@pytest.fixture
def app(make_app: MakeApp, tmp_path: Path) -> Flask:
    own = tmp_path / "refused.txt"
    own.write_text("# ours\nGreen Lanterns Ahoy\n", encoding="utf-8")
    return make_app(
        PASSWORD_MIN_LENGTH="10", PASSWORD_BLOCKLIST=str(own), BRAND_NAME="Nimbus Notes"
    )


@pytest.mark.parametrize("password", REFUSED)
def test_a_bad_one_is_refused_wherever_it_is_chosen(app: Flask, password: str) -> None:
    reason = REFUSED[password]
    client = program(app)
    body = {"email": "ada@example.org", "password": password}
    refused = client.post("/api/v1/signup", json=body)
    assert refused.status_code == 400
    assert reason in refused.get_json()["errors"]["password"]
    page = Page(browser(app).post("/signup", data=body))
    assert reason[3:] in page.text  # which begins with a capital letter there

    sign_up(app, "ada@example.org")
    person = browser(app)
    log_in(person, "ada@example.org")
    change = {"current_password": "seven quiet rivers meet", "new_password": password}
    refused = person.post("/api/v1/me/password", json=change)
    assert reason in refused.get_json()["errors"]["new_password"]
    page = Page(person.post("/account/password", data=change))
    assert reason[3:] in page.text


def test_the_least_length_is_told_and_is_enough(app: Flask) -> None:
    page = Page(browser(app).get("/signup"))
    assert "At least 10 characters." in page.text
    (field,) = [one for one in page.all("input") if one.get("name") == "password"]
    assert field["data-min-length"] == "10"
    schemas = program(app).get("/api/v1/openapi.json").get_json()["components"]["schemas"]
    assert schemas["SignupBody"]["properties"]["password"]["minLength"] == 10
    assert schemas["PasswordBody"]["properties"]["new_password"]["minLength"] == 10
    assert "minLength" not in schemas["LoginBody"]["properties"]["password"]

    services_of(app).registration.sign_up("ada@example.org", SHORTEST)
    assert log_in(browser(app), "ada@example.org", SHORTEST).location == "/"  # it is not short
    body = {"email": "ada@example.org", "password": SHORTEST}
    assert "advice" not in program(app).post("/api/v1/login", json=body).get_json()
