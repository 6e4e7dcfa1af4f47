"""The servers that schedules run on: of the cache alone, and of whole instances."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from authapp import dev
from authapp.cache import versioned_cache
from tests.proofs.model.change_actors import Rig
from tests.proofs.model.stage import Stage
from tests.support.databases import add_migrated_database

numbers = itertools.count()


@contextmanager
def three_servers(folder: Path) -> Iterator[list[str]]:
    """The URLs of three servers: a schedule changes to another up to twice."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                dev.Valkey.start(
                    folder / f"model-{next(numbers)}",
                    stack.enter_context(dev.private_socket_dir()),
                    "tests-only",
                    durable=False,
                )
            ).url
            for _ in range(3)
        ]


@pytest.fixture(scope="module")
def stage(engine_dir: Path) -> Iterator[Stage]:
    with three_servers(engine_dir) as urls, closing(Stage(urls)) as stage:
        stage.load(versioned_cache.LIBRARY)
        yield stage


@pytest.fixture(scope="module")
def rig(engine_dir: Path, postgres: dev.PostgreSQL) -> Iterator[Rig]:
    # more than once, where tests of other files run in between
    database_url = add_migrated_database(postgres.url, "explored")
    with three_servers(engine_dir) as urls, closing(Rig(database_url, urls)) as rig:
        rig.load(versioned_cache.LIBRARY)
        yield rig


@pytest.fixture
def library(stage: Stage) -> Iterator[Callable[[str], None]]:
    """Loads another library than the shipped one, for one test."""
    yield stage.load
    stage.load(versioned_cache.LIBRARY)
