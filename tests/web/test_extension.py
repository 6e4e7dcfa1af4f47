"""`Auth(app)` in an application of somebody else's: sessions, guards, and its own error pages."""

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import flask
import pytest
from flask import Flask, abort, request, session
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue
from flask_session.base import ServerSideSession, ServerSideSessionInterface

from authapp import (
    Auth,
    Config,
    create_app,
    current_user,
    dev,
    login_required,
    permission_required,
    roles_required,
)
from authapp.errors import InvalidCredentials, SettingError, StoreUnavailable
from authapp.sessions.store import SessionStore
from authapp.web.session.auth_session import auth_session
from tests.support.databases import add_migrated_database
from tests.support.people import grant_role, revoke_role
from tests.web.conftest import Settings
from tests.web.support import (
    COOKIE,
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    Stores,
    browser,
    cookies_of,
    program,
    services_of,
    sign_up,
    token_of,
)

View = Callable[[], ResponseReturnValue]


@pytest.fixture
def notes(settings: Settings, stores: Stores) -> Iterator[Flask]:
    """An application that embeds ours, in the way its documentation shows."""
    app = Flask("notes")
    app.config.update(settings)
    auth = Auth(app)

    @app.post("/log-in")
    def log_in() -> ResponseReturnValue:
        live = auth.log_in(
            request.form["email"], request.form["password"], remember="remember" in request.form
        )
        return str(live.record.id)

    @app.post("/log-out")
    def log_out() -> ResponseReturnValue:
        auth.log_out()
        return "", 204

    @app.post("/session")
    def change() -> ResponseReturnValue:
        for key in request.json.get("remove", []):
            session.pop(key, None)
        session.update(request.json.get("set", {}))
        return dict(session)

    @app.get("/session")
    def read() -> ResponseReturnValue:
        return dict(session)

    @app.post("/nested")
    def nested() -> ResponseReturnValue:
        session["list"].append("more")
        session.modified = True
        return dict(session)

    @app.get("/sid")
    def sid() -> ResponseReturnValue:
        assert isinstance(session, ServerSideSession)
        return {"sid": session.sid}

    @app.post("/regenerate")
    def regenerate() -> ResponseReturnValue:
        interface: Any = app.session_interface
        interface.regenerate(flask.globals.session)
        return dict(session)

    @app.get("/who")
    def who() -> ResponseReturnValue:
        return {"in": current_user.is_authenticated, "email": current_user.email}

    @app.get("/notes")
    @login_required
    def read_notes() -> ResponseReturnValue:
        return "notes"

    @app.get("/reports")
    @roles_required("admin", "auditor")
    def reports() -> ResponseReturnValue:
        return "reports"

    @app.get("/people")
    @permission_required("users:read")
    def people() -> ResponseReturnValue:
        return "people"

    yield app
    services_of(app).database._session.kw["bind"].dispose()


@pytest.fixture
def visitor(notes: Flask) -> FlaskClient:
    return browser(notes)


@pytest.fixture
def ada(notes: Flask, visitor: FlaskClient) -> FlaskClient:
    """Ada's browser, logged in."""
    sign_up(notes)
    assert log_in(visitor).status_code == 200
    return visitor


def log_in(client: FlaskClient, password: str = PASSWORD, **more: str) -> Any:
    return client.post("/log-in", data={"email": EMAIL, "password": password, **more})


def put(client: FlaskClient, **values: object) -> Any:
    return client.post("/session", json={"set": values}).get_json()


# -- flask.session ---------------------------------------------------------------------------------


def test_it_is_a_flask_session_backend(notes: Flask) -> None:
    assert isinstance(notes.session_interface, ServerSideSessionInterface)
    with notes.test_request_context():
        assert isinstance(auth_session(), ServerSideSession)


def test_what_a_signed_in_person_puts_in_stays(ada: FlaskClient, stores: Stores) -> None:
    put(ada, x=1, y={"deep": [1, "ü", None]})
    assert ada.get("/session").get_json() == {"x": 1, "y": {"deep": [1, "ü", None]}}
    put(ada, x=2)
    ada.post("/session", json={"remove": ["y", "never there"]})
    assert ada.get("/session").get_json() == {"x": 2}
    stores.redis.flushall()
    assert ada.get("/session").get_json() == {"x": 2}


def test_a_nested_change_is_saved_once_it_is_marked(ada: FlaskClient) -> None:
    put(ada, list=["one"])
    ada.post("/nested")
    assert ada.get("/session").get_json() == {"list": ["one", "more"]}


def test_data_belongs_to_one_session(ada: FlaskClient, notes: Flask) -> None:
    put(ada, x=1)
    other = browser(notes)
    log_in(other)
    assert other.get("/session").get_json() == {}
    log_in(ada)
    assert ada.get("/session").get_json() == {}, "a new log-in starts anew"


def test_reading_writes_nothing(ada: FlaskClient, stores: Stores) -> None:
    put(ada, x=1)
    ada.get("/session")
    with stores.counted() as cost:
        ada.get("/session")
        ada.get("/who")
    assert (cost.redis, cost.sql) == (2, [])


def test_sid_is_the_public_id_and_no_token(ada: FlaskClient, stores: Stores, notes: Flask) -> None:
    [(row_id,)] = stores.sql("SELECT id FROM sessions")
    assert ada.get("/sid").get_json() == {"sid": str(row_id)}
    assert token_of(ada) != str(row_id)
    assert program(notes).get("/sid").get_json() == {"sid": None}


def test_regenerate_brings_a_new_token_with_the_same_data(ada: FlaskClient, notes: Flask) -> None:
    put(ada, x=1)
    old = token_of(ada)
    assert ada.post("/regenerate").get_json() == {"x": 1}
    assert token_of(ada) != old
    assert ada.get("/session").get_json() == {"x": 1}
    gone = program(notes).get("/notes", headers={"Cookie": f"{COOKIE}={old}"})
    assert gone.status_code == 401


def test_regenerate_without_a_session_is_nothing(visitor: FlaskClient) -> None:
    answer = visitor.post("/regenerate")
    assert answer.status_code == 200
    assert not cookies_of(answer)


class Planted:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_pickle_planted_in_redis_is_never_run(
    ada: FlaskClient, stores: Stores, tmp_path: Path
) -> None:
    put(ada, x=1)
    ada.get("/session")
    bomb = pickle.dumps(Planted(tmp_path / "ran"))
    copies = [key for key in stores.all_keys() if key.startswith(b"sess:")]
    assert copies
    for key in copies:
        stores.redis.hset(key.decode(), "v", cast(str, bomb))
    for prefix in ("session:", "sess:", ""):  # where Flask-Session itself would look
        stores.redis.set(f"{prefix}{token_of(ada)}", bomb)
    assert ada.get("/session").get_json() == {"x": 1}
    assert not (tmp_path / "ran").exists()

    pickle.loads(bomb)
    assert (tmp_path / "ran").exists(), "the control: it does run where pickle is read"


# -- who -------------------------------------------------------------------------------------------


def test_current_user_is_the_person_or_nobody(ada: FlaskClient, notes: Flask) -> None:
    assert ada.get("/who").get_json() == {"in": True, "email": EMAIL}
    assert program(notes).get("/who").get_json() == {"in": False, "email": ""}


def test_log_out_ends_it(ada: FlaskClient, notes: Flask) -> None:
    token = token_of(ada)
    [cleared] = cookies_of(ada.post("/log-out"))
    assert cleared.value == ""
    assert "secure" in cleared.attributes
    gone = program(notes).get("/notes", headers={"Cookie": f"{COOKIE}={token}"})
    assert gone.status_code == 401
    assert not cookies_of(program(notes).post("/log-out")), "nothing to end, nothing to clear"


def test_login_required(ada: FlaskClient, notes: Flask) -> None:
    assert ada.get("/notes").status_code == 200
    assert program(notes).get("/notes").status_code == 401, "it has no log-in page to lead to"


@pytest.mark.parametrize(
    ("roles", "status"), [(["user"], 403), ([], 403), (["admin"], 200), (["admin", "user"], 200)]
)
def test_roles_required_asks_for_any_of_them(
    notes: Flask, visitor: FlaskClient, roles: list[str], status: int
) -> None:
    sign_up(notes, roles=roles)
    assert visitor.get("/reports").status_code == 401
    log_in(visitor)
    assert visitor.get("/reports").status_code == status


@pytest.mark.parametrize(
    ("roles", "status"), [(["user"], 403), ([], 403), (["admin"], 200), (["user", "admin"], 200)]
)
def test_permission_required_asks_what_the_roles_allow(
    notes: Flask, visitor: FlaskClient, roles: list[str], status: int
) -> None:
    sign_up(notes, "root@example.org", roles=["admin"])
    sign_up(notes, roles=roles)
    assert visitor.get("/people").status_code == 401
    log_in(visitor)
    assert visitor.get("/people").status_code == status
    grant_role(services_of(notes), EMAIL, "admin")
    assert visitor.get("/people").status_code == 200
    revoke_role(services_of(notes), EMAIL, "admin")
    assert visitor.get("/people").status_code == 403


def test_a_role_granted_or_taken_counts_at_the_next_request(ada: FlaskClient, notes: Flask) -> None:
    sign_up(notes, "root@example.org", roles=["admin"])  # the last administrator can't go
    assert ada.get("/reports").status_code == 403
    grant_role(services_of(notes), EMAIL, "admin")
    assert ada.get("/reports").status_code == 200
    revoke_role(services_of(notes), EMAIL, "admin")
    assert ada.get("/reports").status_code == 403


def test_roles_required_without_a_role_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one role"):
        roles_required()


def test_remember_sets_how_long_the_browser_keeps_it(notes: Flask, visitor: FlaskClient) -> None:
    sign_up(notes)
    [plain, _device] = cookies_of(log_in(visitor))
    [kept, _device] = cookies_of(log_in(visitor, remember="y"))
    assert "max-age" not in plain.attributes
    assert kept.attributes["max-age"] == "2592000"


# -- errors ----------------------------------------------------------------------------------------


def test_without_pages_of_its_own_errors_are_plain_answers(notes: Flask) -> None:
    sign_up(notes)
    visitor = browser(notes)
    assert log_in(visitor, "not the password").status_code == 401
    assert visitor.post("/log-in", data={"email": "no email", "password": "x"}).status_code == 400
    for _ in range(10):
        last = log_in(visitor, "not the password")
    assert last.status_code == 429
    assert int(last.headers["Retry-After"]) > 0
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert visitor.post("/log-out", headers=foreign).status_code == 403


def test_it_may_handle_our_errors_by_type(notes: Flask, visitor: FlaskClient) -> None:
    notes.register_error_handler(InvalidCredentials, lambda _error: ("who are you?", 418))
    assert log_in(visitor).status_code == 418


def test_its_own_error_pages_are_used(
    notes: Flask, visitor: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for status in (401, 403, 404, 503):
        notes.register_error_handler(status, lambda error: (f"ours {error.code}", error.code))
    notes.add_url_rule("/abort", view_func=lambda: abort(403))
    assert visitor.get("/notes").get_data(as_text=True) == "ours 401"
    assert visitor.get("/abort").get_data(as_text=True) == "ours 403"
    assert visitor.get("/nothing").get_data(as_text=True) == "ours 404"
    sign_up(notes)
    log_in(visitor)
    assert visitor.get("/reports").get_data(as_text=True) == "ours 403"
    acts: dict[str, Callable[[], Any]] = {
        "patch": lambda: visitor.post("/session", json={"set": {"x": 1}}),
        "find": lambda: visitor.get("/reports"),
    }
    for method, act in acts.items():
        monkeypatch.setattr(services_of(notes).sessions, method, away)
        answer = act()
        assert (answer.status_code, answer.get_data(as_text=True)) == (503, "ours 503")


def test_a_change_that_can_not_be_saved_is_503(
    ada: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SessionStore, "patch", away)
    answer = ada.post("/session", json={"set": {"x": 1}})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "2"
    assert not cookies_of(answer)
    assert ada.get("/session").get_json() == {}


def away(*_args: object) -> None:
    raise StoreUnavailable("postgres")


def test_a_store_that_can_not_be_asked_is_503(
    ada: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services_of(ada.application).sessions, "find", away)
    for path in ("/notes", "/reports", "/session", "/who", "/sid"):
        answer = ada.get(path)
        assert answer.status_code == 503, path
        assert answer.headers["Retry-After"] == "2"
        assert not cookies_of(answer)


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL", "SECRET_KEY", "PASSWORD_PEPPER"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_setting_is_named_with_its_remedy(
    settings: Settings, name: str, value: object
) -> None:
    app = Flask("notes")
    app.config.update({**settings, name: value})
    with pytest.raises(SettingError, match=f"^{name} is missing: set it to [^\n]+$"):
        Auth(app)


def test_a_setting_that_only_the_environment_has_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Flask("notes")
    app.config.update({**settings, "REDIS_URL": ""})
    monkeypatch.setenv("REDIS_URL", settings["REDIS_URL"])
    said = r"^REDIS_URL is missing in app\.config, but the environment has it: give Config"
    with pytest.raises(SettingError, match=said):
        Auth(app)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEY", "short"),
        ("SECRET_KEY", "k" * 32 + ",short"),
        ("PASSWORD_PEPPER", "short"),
        ("DATABASE_URL", "mysql://localhost/x"),
        ("REDIS_URL", "http://localhost"),
        ("BCRYPT_ROUNDS", 3),
        ("BCRYPT_ROUNDS", "many"),
        ("PASSWORD_MIN_LENGTH", 7),
        ("PASSWORD_BLOCKLIST", "/no/such/list"),
        ("SESSION_COOKIE_SECURE", "perhaps"),
        ("LOGIN_LIMIT_PER_ADDRESS", "a lot"),
        ("ALLOWED_REDIRECT_HOSTS", "https://a.example/"),
    ],
)
def test_a_weak_or_unknown_value_is_refused_in_one_line(
    settings: Settings, name: str, value: object
) -> None:
    app = Flask("notes")
    app.config.update({**settings, name: value})
    with pytest.raises(SettingError, match=f"^{name}: [^\n]+$"):
        Auth(app)


def refusals(app: Flask, attempts: int) -> set[int]:
    wrong = {"email": EMAIL, "password": "not the password"}
    client = app.test_client()
    return {client.post("/api/v1/login", json=wrong).status_code for _ in range(attempts)}


def test_the_names_of_flask_limiter_work(
    settings: Settings, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = {**settings, "LOGIN_LIMIT_PER_ADDRESS": "2 per minute"}
    monkeypatch.setenv("FLASK_RATELIMIT_STORAGE_URI", "memory://")
    monkeypatch.setenv("FLASK_RATELIMIT_STRATEGY", '"fixed-window"')
    app = create_app(Config.from_mapping(limited))
    assert refusals(app, 3) == {401, 429}
    assert not list(stores.redis.scan_iter("rate*"))
    services_of(app).close()
    monkeypatch.delenv("FLASK_RATELIMIT_STORAGE_URI")
    app = create_app(Config.from_mapping(limited))
    assert refusals(app, 3) == {401, 429}
    assert {stores.redis.type(key) for key in stores.redis.scan_iter("rate*")} == {b"string"}
    services_of(app).close()
    monkeypatch.setenv("FLASK_RATELIMIT_ENABLED", "false")
    app = create_app(Config.from_mapping(limited))
    assert refusals(app, 12) == {401}
    services_of(app).close()


def test_settings_may_be_ready_values(settings: Settings, stores: Stores) -> None:
    app = Flask("notes")
    app.config.update(settings)
    app.config.update(
        SECRET_KEY=["n" * 32, settings["SECRET_KEY"]],
        ALLOWED_REDIRECT_HOSTS=("a.example", "b.example"),
        SESSION_IDLE_SECONDS=60,
        SESSION_COOKIE_NAME=f"__Host-{COOKIE}",
    )
    auth = Auth()
    auth.init_app(app)
    assert auth.state(app).services.redirect_hosts == ("a.example", "b.example")
    assert app.config["SECRET_KEY"] == "n" * 32
    assert app.config["SESSION_COOKIE_NAME"] == f"__Host-{COOKIE}"
    assert app.config["SESSION_COOKIE_SECURE"] is True


def test_settings_may_come_beside_the_app(settings: Settings, stores: Stores) -> None:
    app = Flask("notes")
    auth = Auth(app, Config.from_mapping({**settings, "SESSION_COOKIE_SECURE": "off"}))
    assert app.extensions["authapp"] is auth.state(app)
    assert app.config["SESSION_COOKIE_SECURE"] is False


def test_plain_http_is_chosen_in_app_config_by_text(settings: Settings, stores: Stores) -> None:
    """False is what Flask itself fills in, so it can't count as chosen."""
    app = Flask("notes")
    app.config.update(settings, SESSION_COOKIE_SECURE="off")
    Auth(app)
    assert app.config["SESSION_COOKIE_SECURE"] is False


# -- several apps ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def database_of_another(postgres: dev.PostgreSQL) -> str:
    return add_migrated_database(postgres.url, "web_of_another")


def two_apps(settings: Settings, database_of_another: str) -> tuple[Auth, Flask, Flask]:
    """Two apps in one process by one extension: each with a database and secrets of its own."""
    other = {
        "DATABASE_URL": database_of_another,
        "SECRET_KEY": "o" * 32,
        "PASSWORD_PEPPER": "q" * 32,
        "REVALIDATE_SECONDS": 45,
    }
    auth, notes, shop = Auth(), Flask("notes"), Flask("shop")

    def enter() -> str:
        return str(auth.log_in(EMAIL, request.form["password"]).record.user.name)

    def leave() -> str:
        auth.log_out()
        return "out"

    for app, own in ((notes, {}), (shop, other)):
        app.config.update({**settings, **own})
        auth.init_app(app)
        app.add_url_rule("/log-in", view_func=enter, methods=["POST"])
        app.add_url_rule("/log-out", view_func=leave, methods=["POST"])
        app.add_url_rule("/who", view_func=lambda: str(current_user.name or "nobody"))
    return auth, notes, shop


def test_two_apps_of_one_extension_share_nothing(
    settings: Settings, stores: Stores, database_of_another: str
) -> None:
    auth, *apps = two_apps(settings, database_of_another)
    facts = [stores, Stores(database_of_another, settings["REDIS_URL"])]
    facts[1].clear()
    browsers, people = [browser(app) for app in apps], ["Ada of notes", "Ada of shop"]
    try:
        for app, name, password in zip(apps, people, [PASSWORD, OTHER_PASSWORD], strict=True):
            user = services_of(app).registration.sign_up(EMAIL, password, name)
            assert services_of(app).users.get(user.id)
            assert app.extensions["authapp"] is auth.state(app)
        assert services_of(apps[0]) is not services_of(apps[1])
        assert [services_of(app).revalidate_seconds for app in apps] == [60, 45]

        # each log-in is compared with the password of its own app, and begins a session there
        assert browsers[0].post("/log-in", data={"password": OTHER_PASSWORD}).status_code == 401
        assert browsers[1].post("/log-in", data={"password": PASSWORD}).status_code == 401
        begun = "SELECT count(*) FROM sessions WHERE ended_at IS NULL"
        assert browsers[0].post("/log-in", data={"password": PASSWORD}).text == people[0]
        assert [each.sql(begun) for each in facts] == [[(1,)], [(0,)]]
        assert browsers[1].post("/log-in", data={"password": OTHER_PASSWORD}).text == people[1]
        assert [each.sql(begun) for each in facts] == [[(1,)], [(1,)]]

        for mine, other in ((0, 1), (1, 0)):
            assert browsers[mine].get("/who").text == people[mine]
            swapped = {"Cookie": f"{COOKIE}={token_of(browsers[other])}"}
            assert program(apps[mine]).get("/who", headers=swapped).text == "nobody"

        assert browsers[0].post("/log-out").text == "out"
        assert [each.sql(begun) for each in facts] == [[(0,)], [(1,)]]
        assert [client.get("/who").text for client in browsers] == ["nobody", people[1]]
    finally:
        for app in apps:
            services_of(app).close()
        facts[1].close()


def test_an_app_that_was_not_set_up_is_told_so() -> None:
    with pytest.raises(RuntimeError, match=r"^authapp is not set up for this app: call Auth"):
        Auth().state(Flask("notes"))


@pytest.mark.parametrize(("name", "status"), [("RATELIMIT_DEFAULT", 429), ("RATELIMIT_X", 200)])
def test_flask_limiter_s_own_limits_count_where_there_are_some(
    settings: Settings, stores: Stores, name: str, status: int
) -> None:
    app = Flask("limited")
    app.config.update(settings, **{name: "1 per minute"})
    Auth(app)
    app.add_url_rule("/", view_func=lambda: "")
    client = browser(app)
    assert [client.get("/").status_code for _ in range(2)] == [200, status]
    assert len(app.extensions["limiter"]) == 1
    hooks = [*app.before_request_funcs[None], *app.after_request_funcs[None]]
    of_the_limiter = [hook for hook in hooks if "flask_limiter" in repr(hook)]
    assert bool(of_the_limiter) is (status == 429), "nobody pays for limits there are none of"
