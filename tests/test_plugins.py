"""The ways in which other software asks for a loop: each of README's lines, as its users would write it.

Every small project here is run by an interpreter of its own, so that nothing of this test session is in it.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # each starts an interpreter, and most a pytest in it

# What each project's tests do: they are on the loop that was asked for, and TCP works there.
BODY = """
import asyncio, functools, os, pytest, libos

NET = os.environ["NET"]

async def check():
    loop = asyncio.get_running_loop()
    assert isinstance(loop, libos.Loop)
    assert loop.machine.config.net == NET

    async def serve(reader, writer):
        writer.write(await reader.readexactly(5))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        writer.write(b"hello")
        assert await reader.read() == b"hello"
        writer.close()
        await writer.wait_closed()
"""

Project = Callable[..., subprocess.CompletedProcess[str]]
nets = pytest.mark.parametrize("net", ["host", "user"])


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Runs ``command`` in a folder with these files; all tests of it must pass."""

    def run(net: str, *command: str, passed: int | None = None, **files: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setenv("NET", net)
        monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:cacheprovider")
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(BODY + text)
        (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        if passed is not None:
            assert re.search(rf"^(=+ )?{passed} passed", done.stdout, re.MULTILINE), done.stdout
        return done

    return run


PYTEST = (sys.executable, "-m", "pytest", "-q")
LIBOS_RUN = (sys.executable, "-m", "libos", "run")


# --- without anybody's help ------------------------------------------------------------------------------------------


@nets
@pytest.mark.parametrize(
    "main",
    [
        "libos.run(check(), net=NET)",
        "libos.install(NET); asyncio.run(check())",
        "asyncio.Runner(loop_factory=functools.partial(libos.new_event_loop, NET)).run(check())",
        "asyncio.set_event_loop_policy(libos.EventLoopPolicy(NET)); asyncio.run(check())",
    ],
)
def test_programs(project: Project, net: str, main: str) -> None:
    project(net, sys.executable, "-W", "ignore", "program.py", program=main)


@nets
@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio.run takes a loop_factory from 3.12 on")
def test_run_of_asyncio(project: Project, net: str) -> None:
    main = "asyncio.run(check(), loop_factory=functools.partial(libos.new_event_loop, NET))"
    project(net, sys.executable, "program.py", program=main)


@nets
@pytest.mark.parametrize("main", ["uvloop.run(check())", "uvloop.install(); asyncio.run(check())"])
def test_programs_for_uvloop(project: Project, net: str, main: str) -> None:
    project(net, *LIBOS_RUN, "--net", net, "program.py", program=f"import uvloop\n{main}")


@nets
def test_unittest(project: Project, net: str) -> None:
    tests = """
import unittest

class Test(unittest.IsolatedAsyncioTestCase):
    loop_factory = staticmethod(functools.partial(libos.new_event_loop, NET))  # Python 3.13

    async def test(self):
        await check()

def setUpModule():
    libos.install(NET)
"""
    project(net, sys.executable, "-W", "ignore", "-m", "unittest", "test_it", test_it=tests)


# --- pytest-asyncio --------------------------------------------------------------------------------------------------


@nets
def test_pytest_asyncio_by_its_hook(project: Project, net: str) -> None:
    pytest.importorskip("pytest_asyncio", minversion="1.4")
    conftest = """
def pytest_asyncio_loop_factories(config, item):
    return {"libos": functools.partial(libos.new_event_loop, NET)}
"""
    tests = """
import pytest_asyncio

@pytest_asyncio.fixture
async def fixture():
    await check()
    yield asyncio.get_running_loop()

@pytest.mark.asyncio
async def test(fixture):
    await check()
    assert asyncio.get_running_loop() is fixture
"""
    project(net, *PYTEST, passed=1, conftest=conftest, test_it=tests)


@nets
@pytest.mark.skipif(sys.version_info >= (3, 16), reason="there are no policies any more")
def test_pytest_asyncio_by_a_policy(project: Project, net: str) -> None:
    pytest.importorskip("pytest_asyncio")
    tests = """
@pytest.fixture(scope="module")
def event_loop_policy():
    return libos.EventLoopPolicy(NET)

@pytest.mark.asyncio
async def test_one():
    await check()

@pytest.mark.asyncio(loop_scope="module")
async def test_another():
    await check()
"""
    project(net, *PYTEST, passed=2, test_it=tests)


@nets
def test_pytest_asyncio_under_libos_run(project: Project, net: str) -> None:
    """Nothing in the project knows of libos."""
    pytest.importorskip("pytest_asyncio")
    tests = """
@pytest.mark.asyncio
async def test():
    await check()
"""
    project(net, *LIBOS_RUN, "--net", net, "-m", "pytest", "-q", passed=1, test_it=tests)


def test_pytest_aiohttp(project: Project) -> None:
    pytest.importorskip("pytest_aiohttp")
    conftest = """
@pytest.fixture(scope="session")
def event_loop_policy():
    return libos.EventLoopPolicy(NET)
"""
    tests = """
from aiohttp import web

async def hello(request):
    await check()
    return web.Response(text="hello")

async def test(aiohttp_client):
    app = web.Application()
    app.router.add_get("/", hello)
    client = await aiohttp_client(app)
    async with client.get("/") as response:
        assert await response.text() == "hello"
"""
    project("host", *PYTEST, "--asyncio-mode=auto", passed=1, conftest=conftest, test_it=tests)


# --- anyio -----------------------------------------------------------------------------------------------------------


@nets
def test_anyio_run(project: Project, net: str) -> None:
    pytest.importorskip("anyio")
    main = """
import anyio
anyio.run(check, backend_options={"loop_factory": functools.partial(libos.new_event_loop, NET)})
"""
    project(net, sys.executable, "program.py", program=main)


@nets
def test_anyio_for_uvloop(project: Project, net: str) -> None:
    pytest.importorskip("anyio")
    main = """
import anyio
anyio.run(check, backend_options={"use_uvloop": True})
"""
    project(net, *LIBOS_RUN, "--net", net, "program.py", program=main)


@nets
def test_anyio_in_pytest(project: Project, net: str) -> None:
    pytest.importorskip("anyio")
    conftest = """
@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": functools.partial(libos.new_event_loop, NET)}
"""
    tests = """
import anyio

@pytest.fixture
async def fixture():
    await check()
    yield

@pytest.mark.anyio
async def test(fixture):
    async with anyio.create_task_group() as group:
        group.start_soon(check)
        group.start_soon(anyio.sleep, 0)
    assert (await anyio.run_process(["echo", "hello"])).stdout == b"hello\\n"
    assert await anyio.to_thread.run_sync(lambda: anyio.from_thread.run(anyio.sleep, 0)) is None
"""
    project(net, *PYTEST, passed=1, conftest=conftest, test_it=tests)


# --- servers ---------------------------------------------------------------------------------------------------------


APP = """
async def app(scope, receive, send):
    await check()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
"""


def test_uvicorn_takes_it_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("uvicorn", minversion="0.36")
    monkeypatch.setenv("NET", "host")
    (tmp_path / "hello.py").write_text(BODY + APP)
    command = [sys.executable, "-m", "uvicorn", "hello:app", "--port", "0", "--loop", "libos:new_event_loop"]
    with subprocess.Popen([*command, "--lifespan", "off"], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        said = ""
        try:
            for line in server.stderr:
                said += line
                if running := re.search(r"running on (http://\S+)", line):
                    with urllib.request.urlopen(running[1], timeout=20) as response:
                        assert response.read() == b"hello"
                    break
        finally:
            server.send_signal(signal.SIGINT)
            said += server.stderr.read()
    assert "running on" in said, said
    assert server.returncode in (0, -signal.SIGINT, 130), said


def test_a_server_that_is_a_coroutine(project: Project) -> None:
    """uvicorn's, here; hypercorn's serve() is one too."""
    pytest.importorskip("uvicorn")
    pytest.importorskip("httpx")
    main = f"""
import uvicorn, httpx
{APP}
async def main():
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="error"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.001)
    host, port = server.servers[0].sockets[0].getsockname()
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://{{host}}:{{port}}/")).text == "hello"
    server.should_exit = True
    await serving

libos.run(main(), net=NET)
"""
    project("user", sys.executable, "program.py", program=main)
    project("host", sys.executable, "program.py", program=main)
