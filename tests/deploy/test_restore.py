"""The commands of docs/production.md to back up and restore, run as they stand there."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from tests.deploy.conftest import ONE_WORKER, Deployment, deployed, migrate
from tests.deploy.files import ROOT, read_env
from tests.deploy.servers import ADMIN_PASSWORD, needs_redis, port_of, postgres_program
from tests.support.instances import serving

IN_POSTGRES = "docker compose exec -T postgres "
ENDS_SESSIONS = ("UPDATE authapp_data.sessions", "SECRET_KEY=")


def guide(heading: str) -> list[list[str]]:
    """The commands under a heading, block by block."""
    text = (ROOT / "docs" / "production.md").read_text()
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [block.splitlines() for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL)]


def run(deployment: Deployment, command: str) -> None:
    """A command of the guide, on processes in place of containers."""
    secrets = deployment.secrets / "authapp.env"
    if command.startswith((IN_POSTGRES, "sed ")):
        program = command.removeprefix(IN_POSTGRES).replace(
            "deploy/secrets/authapp.env", str(secrets)
        )
        environment = {
            "PATH": f"{postgres_program('psql').parent}:{os.environ['PATH']}",
            "PGHOST": "127.0.0.1",
            "PGPORT": str(port_of(deployment.postgres)),
            "PGPASSWORD": ADMIN_PASSWORD,
        }
        subprocess.run(
            ["sh", "-c", program], cwd=deployment.folder, env=environment, check=True, timeout=60
        )
    elif command == "docker compose stop web-1 web-2":
        for instance in deployment.instances:
            instance.process.send_signal(signal.SIGTERM)
            instance.process.wait(20)
    elif command == "docker compose restart redis":
        deployment.redis.server.stop()
        deployment.redis.server.start()
    else:
        assert command.startswith("docker compose up "), f"teach the test to do this: {command}"


@contextmanager
def started_again(deployment: Deployment) -> Iterator[Deployment]:
    """Start the deployment as `docker compose up` does, without the proxy."""
    settings = {**deployment.settings}
    settings["SECRET_KEY"] = read_env(deployment.secrets / "authapp.env")["SECRET_KEY"]
    migrate(settings, deployment.image)
    with ExitStack() as stack:
        instances = tuple(
            stack.enter_context(
                serving("wsgi:app", settings, one.log_path, cwd=deployment.image),
            )
            for one in deployment.instances
        )
        yield replace(deployment, instances=instances)


def test_who_was_logged_out_after_the_backup_stays_out_after_the_restore(
    served_by: str,
    engine_dir: Path,
) -> None:
    needs_redis()
    (backup,), restore = guide("Backup and restore")
    with deployed(engine_dir / "restore", **ONE_WORKER) as deployment:
        who = deployment.somebody()
        stays, leaves = deployment.log_in(who), deployment.log_in(who)
        run(deployment, backup)
        assert deployment.ask("POST", "/api/v1/logout", leaves).status == 204
        assert (deployment.statuses(stays), deployment.statuses(leaves)) == ([200] * 2, [401] * 2)

        for command in restore:
            if not any(part in command for part in ENDS_SESSIONS):
                run(deployment, command)
        with started_again(deployment) as restored:  # what the guide warns of
            assert restored.statuses(leaves) == [200, 200]
            for command in restore:
                run(restored, command)

        with started_again(deployment) as restored:
            assert (restored.statuses(stays), restored.statuses(leaves)) == ([401] * 2, [401] * 2)
            logged_in = restored.ask_each("POST", "/api/v1/login", body=who)
            listed, _ = restored.ask_each("GET", "/api/v1/me/sessions", logged_in[0].token)
            assert len(listed.body["sessions"]) == len(logged_in), "some of before are listed"
