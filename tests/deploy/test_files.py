"""The files of deploy/ say what is so: every path, setting, port and account they name is there."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from authapp.config import Config
from tests.deploy.conftest import HOST
from tests.deploy.files import DEPLOY, ROOT, compose, copied_by_dockerfile, dockerfile, read_env
from tests.deploy.servers import make_secrets, needs_redis
from tests.support.instances import SERVERS

SETTINGS = {field.name for field in fields(Config)}
SERVICES: dict[str, dict[str, Any]] = compose()["services"]
INSTANCES = ("web-1", "web-2")
COMMAND = ["gunicorn", "wsgi:app"]
WITH_GRANIAN = ["python", *SERVERS["granian"][1:]]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs_redis()
    return make_secrets(tmp_path_factory.mktemp("files"), HOST)


def test_compose_is_what_the_specification_allows() -> None:
    checked = subprocess.run(
        [
            *(Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema"),
            "vendor.compose-spec",
            *DEPLOY.glob("compose*.yaml"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stdout


def test_every_file_that_compose_mounts_is_there(secrets: Path) -> None:
    made = {f"./secrets/{path.name}" for path in secrets.iterdir()}
    declared = set(compose()["volumes"])
    for name, service in SERVICES.items():
        for source, *_ in (volume.split(":") for volume in service.get("volumes", ())):
            there = source in made | declared or (DEPLOY / source).exists()
            assert there, f"{name}: {source}"
        assert f"./{service.get('env_file', 'secrets/authapp.env')}" in made, name


def test_every_setting_exists() -> None:
    for name in (*INSTANCES, "migrate"):
        assert set(SERVICES[name]["environment"]) <= SETTINGS
    for line in _unit("authapp.service", "Environment"):
        names = {word.partition("=")[0] for word in line.split()}
        assert names <= SETTINGS | {"PYTHONDONTWRITEBYTECODE"}
    values = dict(arguments.split("=", 1) for arguments in _words_of("ENV"))
    assert set(values) <= SETTINGS | {"PATH", "PYTHONDONTWRITEBYTECODE"}


def test_the_secrets_make_settings(secrets: Path) -> None:
    config = Config.from_mapping(read_env(secrets / "authapp.env"))
    service = SERVICES["web-1"]
    assert "@postgres:5432/" in config.DATABASE_URL
    assert "@redis:6379/" in config.REDIS_URL or "@localhost:6379/" in config.REDIS_URL
    ca = re.findall(r"ssl_ca_certs=(.*)", config.REDIS_URL)
    assert f"./secrets/redis-ca.crt:{ca[0]}:ro" in service["volumes"]
    for path in secrets.iterdir():
        assert path.read_text().count("#000000") == 0, f"{path.name}: an example's password"
    assert secrets.stat().st_mode & 0o077 == 0


def test_secrets_are_not_made_twice(secrets: Path) -> None:
    again = subprocess.run(
        [DEPLOY / "make-secrets", secrets], capture_output=True, text=True, check=False, timeout=60
    )
    assert again.returncode == 1
    assert "not made twice" in again.stderr


def test_no_two_deployments_share_a_secret(secrets: Path, tmp_path: Path) -> None:
    others = make_secrets(tmp_path, HOST)
    for name in ("authapp.env", "postgres.env"):
        values = read_env(secrets / name)
        assert all(values[key] != other for key, other in read_env(others / name).items())


def test_secrets_get_neither_into_the_image_nor_into_the_repository() -> None:
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"
    assert "deploy/secrets/" in _lines(ROOT / ".gitignore")


def test_instances_wait_for_the_migration_and_it_for_postgres() -> None:
    migrate = SERVICES["migrate"]
    assert migrate["command"] == ["flask", "--app", "wsgi", "auth", "db", "upgrade"]
    assert migrate["restart"] == "no"
    assert migrate["depends_on"]["postgres"] == {"condition": "service_healthy"}
    for name in INSTANCES:
        waits = SERVICES[name]["depends_on"]
        assert waits["migrate"] == {"condition": "service_completed_successfully"}


def test_only_the_proxy_is_reached_from_outside() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["proxy"]
    assert compose()["networks"]["back"]["internal"] is True
    for store in ("postgres", "redis"):
        assert SERVICES[store]["networks"] == ["back"]
    assert SERVICES["proxy"]["networks"] == ["front"]


def test_the_proxy_and_compose_mean_the_same_places() -> None:
    nginx = (DEPLOY / "nginx/nginx.conf").read_text()
    port = dict(word.split("=", 1) for word in _words_of("ENV"))["PORT"]
    named = re.findall(r"server (\S+) resolve", (DEPLOY / "nginx/docker.conf").read_text())
    assert named == [f"{name}:{port}" for name in INSTANCES]
    assert _words_of("EXPOSE") == [port]
    for published in SERVICES["proxy"]["ports"]:
        for place in ("", "[::]:"):
            assert f"listen {place}{published.split(':')[1]}" in nginx
    mounted = {volume.split(":")[1] for volume in SERVICES["proxy"]["volumes"]}
    assert set(re.findall(r"/etc/nginx/tls\S+(?=;)", nginx)) <= mounted
    (companions,) = re.findall(r"include (\S+)/\*\.conf;", nginx)
    assert f"{companions}/upstream.conf" in mounted
    assert f"server_name {HOST};" in nginx
    assert f"https://{HOST}/" in " ".join(SERVICES["proxy"]["healthcheck"]["test"])


def test_redis_and_compose_mean_the_same_places() -> None:
    conf = (DEPLOY / "redis.conf").read_text()
    mounted = {volume.split(":")[1] for volume in SERVICES["redis"]["volumes"]}
    assert set(re.findall(r"/etc/redis/\S+", conf)) == mounted - {"/etc/redis/redis.conf"}
    assert f"dir {SERVICES['redis']['tmpfs']}\n" in conf


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_container_can_do_little(name: str) -> None:
    service = SERVICES[name]
    assert "no-new-privileges:true" in service["security_opt"]
    if name != "postgres":  # it changes its account itself, and its data is on a volume
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]


def test_what_has_no_shell_command_of_ours_is_pinned() -> None:
    images = [service["image"] for service in SERVICES.values()]
    images += [arguments.split()[0] for name, arguments in dockerfile() if name == "FROM"]
    for image in images:
        assert re.search(r":(\d|\$\{AUTHAPP_VERSION)", image), image
    assert SERVICES["web-1"]["image"] == f"authapp:${{AUTHAPP_VERSION:-{VERSION}}}"


def test_the_dockerfile_copies_what_is_there_and_not_ignored() -> None:
    kept = {line[1:] for line in _lines(ROOT / ".dockerignore") if line.startswith("!")}
    copied = [word for name, words in dockerfile() if name == "COPY" for word in words.split()[:-1]]
    from_here = {word for word in copied if not word.startswith(("--", "/"))}
    assert set(copied_by_dockerfile()) <= from_here == kept
    assert all((ROOT / path).exists() for path in from_here)


def test_the_image_runs_the_documented_command_as_nobody_special() -> None:
    instructions = [name for name, _ in dockerfile()]
    last = dict(dockerfile()[instructions.index("FROM", 1) :])
    uid = last["USER"].split(":")[0]
    assert int(uid) >= 10_000
    assert instructions.index("USER") > max(
        n for n, name in enumerate(instructions) if name in {"COPY", "RUN"}
    ), "what the image holds must not be the application's to change"
    assert json.loads(last["CMD"]) == COMMAND
    assert "\ngunicorn wsgi:app\n" in (ROOT / "README.md").read_text()
    assert "/healthz" in last["HEALTHCHECK"]
    for name in INSTANCES:
        assert "command" not in SERVICES[name]


def test_the_health_check_of_the_image_works(tmp_path: Path) -> None:
    """As it is written; nothing listens, so it must say so."""
    (check,) = (a for name, a in dockerfile() if name == "HEALTHCHECK")
    command = json.loads(check.partition("CMD ")[2])
    asked = subprocess.run(
        [sys.executable, *command[1:]],
        env={"PORT": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert asked.returncode == 1
    assert "Connection refused" in asked.stderr


def test_with_granian_the_instances_run_it() -> None:
    added = compose("compose.granian.yaml")["services"]
    assert added == {name: {"command": WITH_GRANIAN} for name in INSTANCES}


def test_systemd_accepts_the_unit_with_either_server(tmp_path: Path) -> None:
    (start,) = _unit("authapp.service", "ExecStart")
    nothing, other = _unit("authapp-granian.conf", "ExecStart")
    assert start.split("/")[-1].split() == COMMAND
    assert (nothing, other.split("/")[-1].split()) == ("", WITH_GRANIAN)
    assert _unit("authapp-granian.conf", "Type") == ["exec"]
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("NO systemd-analyze, so nothing checks the unit: apt-get install systemd")
    unit, more = tmp_path / "authapp.service", tmp_path / "authapp.service.d/granian.conf"
    unit.write_text((DEPLOY / unit.name).read_text().replace(start.split()[0], "/bin/true"))
    _assert_accepted(program, unit)
    more.parent.mkdir()
    text = (DEPLOY / "authapp-granian.conf").read_text()
    more.write_text(text.replace(other.split()[0], "/bin/true"))  # it is not where they expect it
    _assert_accepted(program, unit)


def _assert_accepted(program: str, unit: Path) -> None:
    checked = subprocess.run(
        [program, "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def _unit(file: str, name: str) -> list[str]:
    return re.findall(rf"(?m)^{name}=(.*)$", (DEPLOY / file).read_text())


def _words_of(instruction: str) -> list[str]:
    return [word for name, words in dockerfile() if name == instruction for word in words.split()]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()
