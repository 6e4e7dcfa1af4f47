"""The report of the benchmark; `make bench` makes the measurements."""

import json
import os
import sys
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar
from xml.etree import ElementTree

import pytest

from benchmarks import __main__ as benchmark
from benchmarks import report, servers
from benchmarks.acts import LOG_INS, LOG_OUTS, Acts
from benchmarks.contest import Contest
from benchmarks.report import Measured, Result, Sample
from benchmarks.servers import Answer, BenchmarkError


def measured(name: str, *per_second: float, cpu_us: float = 100) -> Measured:
    return Measured(name, "<does>", tuple(Sample(one, 1, 2, cpu_us) for one in per_second))


RESULT = Result(
    "2 cores",
    [
        measured("bare WSGI", 1000, 500, 2000),
        measured("bare Flask", 500, 250, 1000, cpu_us=200),
        measured("authapp & more", 400, 250, 900, cpu_us=250),
    ],
)


def test_ratios_are_of_one_round() -> None:
    """The machine may have been half as fast in the next."""
    assert RESULT.speed("authapp & more", "bare Flask") == (0.9, 0.8, 1.0)
    assert RESULT.thrift("authapp & more", "bare Flask") == 0.8
    assert "0.90 (0.80-1.00)" in report.table(RESULT)


def test_what_is_worth_comparing_is_compared_where_both_were_measured() -> None:
    contests = [*RESULT.contests, measured("authapp /api/v1/me", 400, 200, 900, cpu_us=250)]
    lines = report.table(Result("2 cores", contests)).splitlines()
    (line,) = [one for one in lines if " / " in one and "authapp" in one]
    assert line.split() == ["authapp", "/api/v1/me", "/", "bare", "Flask", *RATIOS]


RATIOS = ["0.80", "(0.80-0.90)", "0.80"]


def test_the_memory_of_a_worker_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WORKS]
    with servers.serving(command, os.environ, tmp_path / "log", pinned=False) as server:
        assert 64 < server.worker_megabytes() < 128
    assert "worker" not in report.table(RESULT)
    told = report.table(replace(RESULT, memory={"authapp": 92.4})).splitlines()
    assert "PSS" in told[-2]
    assert told[-1].split() == ["authapp", "92"]


# a server whose worker holds 64 MB; its parent, which listens, does not
_WORKS = """
import os, socket, time
ready, held = os.pipe(), os.pipe()
if os.fork() == 0:
    os.close(held[1])
    memory = b"x" * (64 << 20)
    os.write(ready[1], b"x")
    os.read(held[0], 1)  # until its parent is gone
    os._exit(0)
os.read(ready[0], 1)
listening = socket.create_server(("127.0.0.1", PORT))
time.sleep(60)
"""


def test_the_picture_shows_each_and_needs_nothing_else() -> None:
    root = ElementTree.fromstring(report.picture(RESULT))
    text = " ".join(root.itertext())
    for one in RESULT.contests:
        assert one.name in text
    assert not [e for e in root.iter() if e.tag.endswith(("script", "image", "style"))]
    json.dumps(asdict(RESULT))


def test_without_a_load_generator_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BenchmarkError, match="apt-get install wrk"):
        benchmark.main([])


def test_an_answer_that_is_not_the_expected_one_is_not_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(servers.Server, "ask", lambda *_args: Answer(200, "", b"{}"))
    server = servers.Server(None, 1, None)  # type: ignore[arg-type]  # neither is looked at
    Contest("right", "", server, "/").check()
    for wrong in (Contest("a", "", server, "/", 401), Contest("b", "", server, "/", 200, b"Ada")):
        with pytest.raises(BenchmarkError):
            wrong.check()


class Peer(BaseHTTPRequestHandler):
    """Gives a cookie for a log-in, and takes each once for a log-out."""

    given: ClassVar[list[str]] = []
    taken: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        cookie = self.headers.get("Cookie", "")
        known = cookie in self.given and cookie not in self.taken
        self.send_response(200 if known or not cookie else 401)
        if cookie:
            self.taken.append(cookie)
        else:
            assert json.loads(sent or "{}").keys() <= {"email", "password"}
            self.given.append(f"session={len(self.given)}")
            self.send_header("Set-Cookie", f"{self.given[-1]}; HttpOnly")
        self.send_header("Content-Length", "0")
        self.end_headers()


def test_each_log_in_is_logged_out_and_each_log_out_ends_another_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(servers.Server, "cpu_seconds", lambda _self: 0.0)
    with ThreadingHTTPServer(("127.0.0.1", 0), Peer) as listening:
        Thread(target=listening.serve_forever, daemon=True).start()
        server = servers.Server(None, listening.server_port, None)  # type: ignore[arg-type]
        log_in = Acts("in", "", server, "/login", after="/logout")
        log_out = Acts("out", "", server, "/logout", before="/login")
        for act, number in ((log_in, LOG_INS), (log_out, LOG_OUTS)):
            Peer.given.clear()
            Peer.taken.clear()
            act.check()
            assert act.load(2).per_second > 0
            assert len(Peer.given) == 1 + 2 * number
            assert sorted(Peer.taken) == sorted(Peer.given)
        with pytest.raises(BenchmarkError, match="answered 200"):
            replace(log_out, status=204).check()
        listening.shutdown()


def test_peers_are_served_as_we_are() -> None:
    options = servers.gunicorn_options()
    assert options[options.index("--worker-class") + 1] == "gthread"
    assert options[options.index("--threads") + 1] == "40"
