"""deploy/kubernetes/ and Traefik's labels name what is there. No cluster runs in the tests."""

import inspect
import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from authapp.config import Config
from authapp.web import health
from tests.deploy.files import DEPLOY, compose, dockerfile, read_env
from tests.deploy.guarding import APP, AUTH
from tests.deploy.servers import make_secrets, needs_redis
from tests.web.forward_auth import NAMES

SETTINGS = {field.name for field in fields(Config)}


def documents(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        json.dumps(list(YAML(typ="safe").load_all(DEPLOY / name)))
    )
    return found


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = (one for one in documents("kubernetes/authapp.yaml") if one["kind"] == kind)
    return found


def container(kind: str) -> dict[str, Any]:
    (found,) = of_kind(kind)["spec"]["template"]["spec"]["containers"]
    return dict(found)


def routes(host: str) -> list[dict[str, Any]]:
    (found,) = (
        one["spec"]["rules"]
        for one in documents("kubernetes/gateway.yaml")
        if one["spec"]["hostnames"] == [host]
    )
    return list(found)


def test_every_setting_exists_and_the_secrets_are_the_rest(tmp_path: Path) -> None:
    needs_redis()  # openssl, too
    settings = of_kind("ConfigMap")["data"]
    assert set(settings) <= SETTINGS
    secrets = read_env(make_secrets(tmp_path, AUTH) / "authapp.env")
    assert not set(secrets) & set(settings)
    Config.from_mapping({**secrets, **settings})
    for kind in ("Deployment", "Job"):
        sources = [next(iter(one.values()))["name"] for one in container(kind)["envFrom"]]
        assert sources == ["authapp", "authapp"], "the map and the secret"


def test_the_migration_and_the_image_are_those_of_compose() -> None:
    services = compose()["services"]
    assert container("Job")["command"] == services["migrate"]["command"]
    image = services["web-1"]["image"].replace("${AUTHAPP_VERSION:-", "").rstrip("}")
    assert container("Job")["image"] == container("Deployment")["image"] == image
    (user,) = (arguments for name, arguments in dockerfile() if name == "USER")
    assert int(user.split(":")[0]), "a number, which runAsNonRoot can check"


def test_the_probes_ask_for_what_is_there() -> None:
    named = container("Deployment")
    paths = set(re.findall(r'@health.get\("([^"]+)"\)', inspect.getsource(health)))
    probes = {name: one["httpGet"] for name, one in named.items() if name.endswith("Probe")}
    assert {one["path"] for one in probes.values()} <= paths
    assert probes["livenessProbe"]["path"] == "/healthz", "a store that is down restarts nothing"
    assert probes["readinessProbe"]["path"] == "/readyz"
    (port,) = named["ports"]
    assert {one["port"] for one in probes.values()} == {port["name"]}
    assert str(port["containerPort"]) == of_kind("ConfigMap")["data"]["PORT"]
    (exposed,) = of_kind("Service")["spec"]["ports"]
    assert exposed["targetPort"] == port["name"]
    labels = of_kind("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert of_kind("Service")["spec"]["selector"] == labels


def test_the_gateway_asks_as_envoy_does() -> None:
    leaving, rule = routes(APP)
    assert leaving["matches"] == [{"path": {"type": "Exact", "value": "/forward-auth/logout"}}]
    assert [one["name"] for one in leaving["backendRefs"]] == ["authapp"]
    assert "ExternalAuth" not in str(leaving)
    (asking,) = (one["externalAuth"] for one in rule["filters"] if one["type"] == "ExternalAuth")
    (exposed,) = of_kind("Service")["spec"]["ports"]
    assert asking["backendRef"] == {"name": "authapp", "port": exposed["port"]}
    (envoy,) = documents("envoy/envoy.yaml")
    text = json.dumps(envoy)
    assert f'"path_prefix": "{asking["http"]["path"]}"' in text
    for name in (*asking["http"]["allowedHeaders"], *NAMES):
        assert f'"exact": "{name.lower()}"' in text, name
    assert asking["http"]["allowedResponseHeaders"] == list(NAMES)
    closed, _ = routes(AUTH)
    paths = [one["path"]["value"] for one in closed["matches"]]
    assert paths == ["/metrics", "/readyz", "/forward-auth"]
    assert "backendRefs" not in closed


@pytest.mark.parametrize("name", ["traefik/compose.labels.yaml"])
def test_the_compose_file_is_what_the_specification_allows(name: str) -> None:
    program = Path(sys.executable).with_name("check-jsonschema")
    checked = subprocess.run(
        [program, "--builtin-schema", "vendor.compose-spec", DEPLOY / name],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stdout
