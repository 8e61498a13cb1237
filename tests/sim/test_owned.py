"""What a program sees is its machine's: it differs between machines, repeats by seed, and is put back afterwards."""

from __future__ import annotations

import contextlib
import copy
import datetime
import logging
import os
import pickle
import platform
import random
import secrets
import signal
import socket
import ssl
import sys
import tempfile
import threading
import time
import types
import uuid
from collections.abc import Callable
from random import Random, shuffle
from random import random as taken_before
from time import monotonic as monotonic_before
from typing import Any

import pytest

from libos.errors import EscapeError, WorldError
from libos.sim.owned import Ownership, owned

from .fake import START, FakeOwner, world

S = 1_000_000_000


def shuffled() -> list[int]:
    numbers = list(range(30))
    shuffle(numbers)
    return numbers


CLOCKS: list[Callable[[], Any]] = [
    time.time, time.time_ns, time.monotonic, time.monotonic_ns, time.perf_counter, time.perf_counter_ns,
    time.process_time, time.process_time_ns, time.thread_time, time.thread_time_ns, time.localtime, time.gmtime,
    time.ctime, time.asctime,
]  # fmt: skip


@pytest.mark.parametrize("name", [clock.__name__ for clock in CLOCKS])
def test_each_clock_is_the_machines(name: str) -> None:
    before = vars(time)[name]
    with world() as fake:
        with fake(fake.alpha):
            first = vars(time)[name]()
            assert vars(time)[name]() == first  # nothing moves it but its machine
            fake.alpha.advance(5 * S)
            assert vars(time)[name]() != first
        with fake(fake.beta):
            assert vars(time)[name]() != first
        outside = vars(time)[name]()
        assert type(outside) is type(first)
        assert outside != first
    assert vars(time)[name] is before


def test_clocks_agree() -> None:
    with world() as fake, fake(fake.alpha):
        assert time.monotonic_ns() == time.perf_counter_ns() == time.clock_gettime_ns(time.CLOCK_BOOTTIME) == 100 * S
        assert time.monotonic() == time.clock_gettime(time.CLOCK_MONOTONIC) == time.process_time() == 100.0
        assert time.time_ns() == time.clock_gettime_ns(time.CLOCK_REALTIME) == START + 100 * S
        assert time.time() == (START + 100 * S) / 1e9
        assert time.gmtime() == time.localtime() == time.gmtime(START // S + 100)
        assert time.strftime("%H:%M:%S") == "22:15:00"
        assert time.ctime() == time.asctime() == "Tue Nov 14 22:15:00 2023"
        with pytest.raises(OSError, match="Invalid argument"):
            time.clock_gettime(12345)


def test_a_time_that_is_given_is_taken() -> None:
    with world() as fake, fake(fake.alpha):
        assert time.gmtime(0).tm_year == 1970
        assert time.localtime(86400).tm_mday == 2
        assert time.strftime("%Y", time.gmtime(0)) == "1970"


def test_datetime() -> None:
    utc = datetime.UTC
    east = datetime.timezone(datetime.timedelta(hours=5))
    with world() as fake:
        fake.alpha.advance(123_456_789)
        with fake(fake.alpha):
            now = datetime.datetime.now(utc)
            assert now.isoformat() == "2023-11-14T22:15:00.123456+00:00"
            assert datetime.datetime.now(tz=east) == now
            assert datetime.datetime.now().isoformat() == "2023-11-14T22:15:00.123456"
            assert datetime.datetime.now().astimezone() == now  # the zone is UTC
            assert datetime.datetime.utcnow() == now.replace(tzinfo=None)
            assert abs(datetime.datetime.today() - datetime.datetime.utcnow()) <= datetime.timedelta(microseconds=1)
            assert datetime.date.today() == datetime.date(2023, 11, 14)
            # It is the same type as ever, to whoever looks closely.
            assert type(now) is datetime.datetime
            assert pickle.loads(pickle.dumps(now)) == copy.deepcopy(now) == now

            class Stamp(datetime.datetime):
                pass

            assert type(Stamp.now(utc)) is Stamp
            with pytest.raises(TypeError):
                datetime.datetime.now("UTC")  # type: ignore[arg-type]
        assert datetime.datetime.now(utc) > now
    assert datetime.datetime.now(utc) > now
    assert isinstance(vars(datetime.datetime)["now"], types.ClassMethodDescriptorType)


def test_the_zone_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "XYZ-5")
    time.tzset()
    try:
        with world() as fake, fake(fake.alpha):
            assert time.tzname[0] == "UTC"
        assert time.localtime(0).tm_hour == 5
        assert os.environ["TZ"] == "XYZ-5"
    finally:
        monkeypatch.undo()
        time.tzset()


DRAWS: dict[str, Callable[[], Any]] = {
    "random": lambda: random.random(),
    "random, taken by name before": lambda: taken_before(),
    "shuffle": shuffled,
    "getrandbits": lambda: random.getrandbits(64),
    "gauss": lambda: random.gauss(0, 1),
    "sample": lambda: random.sample(range(1000), 5),
    "randbytes": lambda: random.randbytes(8),
    "getstate": lambda: random.getstate(),
    "Random": lambda: random.Random().random(),
    "Random, taken by name before": lambda: Random().random(),
    "Random, seeded again": lambda: (lambda one: (one.seed(), one.random()))(random.Random(1)),
    "SystemRandom": lambda: random.SystemRandom().random(),
    "secrets.token_bytes": lambda: secrets.token_bytes(),
    "secrets.token_hex": lambda: secrets.token_hex(4),
    "secrets.choice": lambda: [secrets.choice("abcdefgh") for _ in range(20)],
    "secrets.randbelow": lambda: secrets.randbelow(1 << 60),
    "os.urandom": lambda: os.urandom(16),
    "os.getrandom": lambda: os.getrandom(16, flags=os.GRND_NONBLOCK),
    "uuid1": lambda: uuid.uuid1(),
    "uuid4": lambda: uuid.uuid4(),
    "getnode": lambda: uuid.getnode(),
    "ssl.RAND_bytes": lambda: ssl.RAND_bytes(16),
    "tempfile": lambda: next(tempfile._get_candidate_names()),  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("name", DRAWS)
def test_each_draw_is_the_machines(name: str) -> None:
    draw = DRAWS[name]

    def run(seed: int) -> tuple[list[Any], list[Any]]:
        with world(seed) as fake:
            with fake(fake.alpha):
                alpha = [draw()]
            with fake(fake.beta):
                beta = [draw()]
            draw()  # the host's, and nobody's business
            with fake(fake.alpha):
                alpha.append(draw())
            with fake(fake.beta):
                beta.append(draw())
        return alpha, beta

    first = run(1)
    assert run(1) == first
    assert first[0] != first[1]
    assert run(7) != first
    assert name == "getnode" or first[0][0] != first[0][1] or name == "getstate"


ARGUMENTS = ((), (10,), (0.25, 0.75), (5, 500), ([*range(100)],), ([*range(100)], 5))


def test_no_function_of_the_module_random_is_forgotten() -> None:
    names = [name for name in random.__all__ if name[0].islower() and name not in ("seed", "setstate", "getstate")]
    assert len(names) > 18
    for name in names:
        first, again = random.Random(1), random.Random(1)
        arguments = next(each for each in ARGUMENTS if not isinstance(attempt(getattr(first, name), each), TypeError))
        expected = attempt(getattr(again, name), arguments)
        with world() as fake, fake(fake.alpha):
            random.seed(1)
            assert attempt(vars(random)[name], arguments) == expected, name


def attempt(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    arguments = copy.deepcopy(arguments)
    try:
        return function(*arguments), arguments
    except (TypeError, IndexError, DeprecationWarning) as error:
        return TypeError(error)


def test_draws_are_counted() -> None:
    with world() as fake:
        random.random()
        os.urandom(1)
        assert fake.ownership.draws == 0
        with fake(fake.alpha):
            for draw in (random.random, random.Random, uuid.uuid4, secrets.token_bytes, random.SystemRandom().random):
                before = fake.ownership.draws
                draw()
                assert fake.ownership.draws == before + 1


def test_a_machine_seeds_for_itself() -> None:
    with world() as fake:
        with fake(fake.alpha):
            random.seed(5)
            ours = [random.random(), random.gauss(0, 1)]
            state = random.getstate()
        with fake(fake.beta):
            random.seed(5)
            assert [random.random(), random.gauss(0, 1)] == ours
            random.random()
        with fake(fake.alpha):
            assert random.getstate() == state
            following = random.random()
            random.setstate(state)
            assert random.random() == following
        host = random.getstate()
    assert random.getstate() == host


def test_the_hosts_randomness_is_not_touched() -> None:
    random.seed(1)
    first = random.random()
    random.seed(1)
    with world() as fake, fake(fake.alpha):
        random.seed(2)
        random.random()
    assert random.random() == first


def test_names_of_temporary_files_do_not_follow_from_the_run_before() -> None:
    def names() -> list[str]:
        with world() as fake, fake(fake.alpha):
            return [os.path.basename(tempfile.mktemp(dir="/nowhere")) for _ in range(3)]

    assert names() == names()


def test_uuids_by_time_are_unique_while_the_clock_stands() -> None:
    with world() as fake, fake(fake.alpha):
        made = [uuid.uuid1() for _ in range(3)]
        assert made[0].time < made[1].time < made[2].time
        assert made[0].node == uuid.getnode()
        assert made[0].node >> 40 & 1
    assert uuid.uuid1().node != made[0].node


def test_identity() -> None:
    host = os.getpid(), socket.gethostname(), os.uname(), os.cpu_count()
    with world() as fake:
        with fake(fake.alpha):
            assert (os.getpid(), os.getppid(), os.cpu_count(), os.sched_getaffinity(0)) == (100, 1, 1, {0})
            assert socket.gethostname() == os.uname().nodename == platform.node() == "alpha"
            assert os.getloadavg() == (0.0, 0.0, 0.0)
            assert sys.version_info < (3, 13) or vars(os)["process_cpu_count"]() == 1
            assert os.times().user == os.times().elapsed == 100.0
        with fake(fake.beta):
            assert (os.getpid(), socket.gethostname()) == (200, "beta")
        assert (os.getpid(), socket.gethostname(), os.uname(), os.cpu_count()) == host
    assert (os.getpid(), socket.gethostname(), os.uname(), os.cpu_count()) == host


def test_a_log_record_holds_nothing_of_the_host() -> None:
    with world() as fake, fake(fake.alpha):
        record = logging.makeLogRecord({})
        assert (record.process, record.created) == (100, (START + 100 * S) / 1e9)
        assert record.relativeCreated == pytest.approx(record.created * 1000)


def test_environment() -> None:
    environ = os.environ
    before = dict(os.environ)
    with world() as fake:
        with fake(fake.alpha):
            assert dict(os.environ) == {"HOST": "alpha"}
            assert len(os.environ) == 1
            assert (os.getenv("HOST"), os.getenv("PATH"), "PATH" in environ) == ("alpha", None, False)
            assert os.environb[b"HOST"] == b"alpha"
            os.environ["NEW"] = "é"
            os.putenv("PUT", "1")  # as ever: the environment of the process, which os.environ does not see
            assert environ["NEW"] == "é"
            with pytest.raises(KeyError):
                os.environ["NOT_THERE"]
        with fake(fake.beta):
            assert dict(environ) == {"HOST": "beta"}
            del os.environ["HOST"]
            assert not os.environ
        assert fake.alpha.environ == {"HOST": "alpha", "NEW": "é"}
        os.environ["LIBOS_TEST"] = "host"
        with fake(fake.beta):
            os.environ["LIBOS_TEST"] = "beta"
            del os.environ["LIBOS_TEST"]
        assert os.system("test $LIBOS_TEST = host") == 0
        assert os.environ.pop("LIBOS_TEST") == "host"
    assert environ is os.environ
    assert dict(os.environ) == before
    assert type(vars(os.environ)["_data"]) is dict
    assert os.system("test -z $NEW$PUT && test -n $PATH") == 0


def test_signal_handlers() -> None:
    host = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    def handler(signum: int, frame: object) -> None:
        raise AssertionError

    with world() as fake:
        with fake(fake.alpha):
            assert signal.signal(signal.SIGTERM, handler) is signal.SIG_DFL
            assert signal.getsignal(signal.SIGTERM) is handler
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            # The process's own would not take these.
            assert signal.set_wakeup_fd(1 << 20) == -1
            signal.siginterrupt(signal.SIGKILL, False)
            with pytest.raises(TypeError):
                signal.signal(signal.SIGTERM, "no handler")  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="out of range"):
                signal.signal(1000, handler)
            with pytest.raises(OSError, match="Invalid argument"):
                signal.signal(signal.SIGKILL, handler)
        with fake(fake.beta):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == host
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == host


# --- what is refused -------------------------------------------------------------------------------------------------

ESCAPES = [
    "time.sleep(0)", "time.sleep(1)", "time.clock_settime(0, 0)", "socket.socket(socket.AF_UNIX)",
    "socket.socket(fileno=0)", "socket.socket()", "socket.socketpair()", "socket.fromfd(0, 2, 1)",
    "socket.create_connection(('localhost', 1))", "socket.create_server(('localhost', 1))",
    "socket.getaddrinfo('localhost', 1)", "socket.gethostbyname('localhost')", "socket.gethostbyaddr('::1')",
    "socket.gethostbyname_ex('a')",
    "socket.getnameinfo(('::1', 1), 0)", "subprocess.Popen(['true'])", "subprocess.run(['true'])",
    "subprocess.check_output('true', shell=True)", "os.fork()", "os.forkpty()", "os.system('true')",
    "os.popen('true')", "os.execv('/bin/true', ['true'])", "os.execlp('true', 'true')",
    "os.posix_spawn('/bin/true', ['true'], {})", "os.spawnl(os.P_WAIT, '/bin/true', 'true')", "os.wait()",
    "os.waitpid(-1, 0)", "os.kill(os.getpid(), 0)", "os.killpg(0, 0)", "os.pipe()", "os.eventfd(0)", "os.abort()",
    "multiprocessing.Process(target=print).start()", "concurrent.futures.ProcessPoolExecutor()", "signal.alarm(1)",
    "signal.setitimer(signal.ITIMER_REAL, 1)", "signal.pause()", "signal.raise_signal(2)", "signal.sigwait([2])",
    "select.select([], [], [])", "select.poll()", "select.epoll()", "selectors.DefaultSelector()",
    "_thread.start_new_thread(print, ())", "input()",
]  # fmt: skip
BY_ANOTHER_NAME = {
    "subprocess.run": "subprocess.Popen", "subprocess.check_output": "subprocess.Popen", "os.execlp": "os.execv",
    "os.spawnl": "os.spawnv", "multiprocessing.Process": "multiprocessing.Process.start",
    "concurrent.futures.ProcessPoolExecutor": "ProcessPoolExecutor", "input": "builtins.input",
    "selectors.DefaultSelector": "a selector of the module selectors",
    "socket.gethostbyname": "socket.getaddrinfo",
}  # fmt: skip


@pytest.mark.parametrize("source", ESCAPES)
def test_each_escape_raises_and_names_the_call(source: str) -> None:
    import _thread
    import concurrent.futures
    import multiprocessing
    import select
    import selectors
    import subprocess

    names = {**globals(), **locals()}
    called = source.partition("(")[0]
    with world() as fake, fake(fake.alpha), pytest.raises(EscapeError) as caught:
        eval(source, names)
    assert caught.value.call.startswith(BY_ANOTHER_NAME.get(called, called))
    assert called.rpartition(".")[2].startswith("_") or caught.value.instead
    assert str(caught.value).startswith(f"{caught.value.call} would leave the simulation: ")
    assert isinstance(caught.value, WorldError)
    del _thread, concurrent, multiprocessing, select, selectors, subprocess


def test_the_host_may_do_all_that() -> None:
    import select
    import subprocess

    with world() as fake:
        time.sleep(0)
        assert select.select([], [], [], 0) == ([], [], [])
        assert subprocess.run(["true"], check=True).returncode == 0
        for sock in socket.socketpair():
            sock.close()
        with fake(fake.alpha), fake.ownership.outside():
            assert os.getpid() != 100
            for sock in socket.socketpair():
                sock.close()


def test_a_world_may_offer_to_sleep() -> None:
    with world() as fake:
        fake.alpha.sleep = fake.alpha.advance  # type: ignore[assignment]
        with fake(fake.alpha):
            time.sleep(2.5)
            assert time.monotonic() == 102.5
            with pytest.raises(ValueError, match="non-negative"):
                time.sleep(-1)


def test_other_threads_are_in_no_machine() -> None:
    seen: list[object] = []

    def look() -> None:
        seen.extend((os.getpid(), time.time_ns() > START + 1000 * S, "PATH" in os.environ))
        time.sleep(0)

    thread = threading.Thread(target=look)
    with world() as fake:
        original = thread.start
        with fake(fake.alpha):
            with fake.ownership.outside():
                original()
            while len(seen) < 3:
                pass
        thread.join()
    assert seen == [os.getpid(), True, True]


# --- installing it, and taking it away -------------------------------------------------------------------------------


def everything() -> dict[tuple[str, str], int]:
    """What every name of every module is, and the attributes of the classes that are changed."""
    found = {}
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith("hypothesis."):
            continue  # it notes when the collector ran
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if (module_name, name) != ("time", "tzname"):  # made anew by tzset()
                found[module_name, name] = id(value)
    for cls in (random.Random, threading.Thread, datetime.datetime):
        for name, value in vars(cls).items():
            found[cls.__qualname__, name] = id(value)
    return found


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_all_is_put_back(error: type[BaseException] | None) -> None:
    with world():
        pass  # modules that this imports are there from now on
    before = everything()
    with pytest.raises(error) if error else contextlib.nullcontext(), world() as fake, fake(fake.alpha):
        random.random()
        if error:
            raise error
    after = everything()
    assert {key for key in before | after if before.get(key) != after.get(key)} == set()


def test_all_is_put_back_when_it_cannot_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    with world():
        pass

    def fail(*_: object) -> None:
        raise OSError("no")

    monkeypatch.setattr("libos.sim.refused.own", fail)
    before = everything()
    with pytest.raises(OSError, match="no"), world():
        pass
    after = everything()
    assert {key for key in before | after if before.get(key) != after.get(key)} == set()


def test_modules_that_took_a_name_see_the_machine_too() -> None:
    early = types.ModuleType("libos_test_early")
    exec("from time import time; from os import urandom as draw, environ", vars(early))
    late = types.ModuleType("libos_test_late")
    sys.modules[early.__name__] = early
    try:
        with world() as fake, fake(fake.alpha):
            exec("from time import time\nclass K: clock = time\ndef f(clock=time): return clock()", vars(late))
            sys.modules[late.__name__] = late
            assert monotonic_before() == 100.0
            assert early.time() == late.time() == late.K().clock() == late.f() == time.time()
            assert len(early.draw(4)) == 4
        assert early.time is late.time is time.time
        assert early.draw is os.urandom
        assert late.f() == pytest.approx(time.time(), abs=60)
        # What a class or a default argument has kept follows the next world.
        with world() as fake, fake(fake.beta):
            assert late.f() == late.K().clock() == time.time() == (START + 200 * S) / 1e9
    finally:
        sys.modules.pop(early.__name__)
        sys.modules.pop(late.__name__, None)


def test_it_nests() -> None:
    outer, inner = FakeOwner("outer", 1), FakeOwner("inner", 2)
    with owned(Ownership(lambda: outer)):
        with owned(Ownership(lambda: inner)):
            assert os.getpid() == 2
        assert os.getpid() == 1
        with owned(Ownership(lambda: None)):
            assert os.getpid() == 1


def test_it_can_be_put_in_force_again() -> None:
    with world() as fake, fake(fake.alpha):
        whole = [random.random() for _ in range(4)]
    with world() as fake, fake(fake.alpha):
        halves = [random.random() for _ in range(2)]
    with owned(fake.ownership), fake(fake.alpha):
        halves += [random.random() for _ in range(2)]
    assert halves == whole


def test_a_boot_that_is_gone_leaves_nothing() -> None:
    import gc
    import weakref

    with world() as fake:
        boot = FakeOwner("gamma", 300)
        with fake(boot):
            random.random()
            os.urandom(1)
        with fake(fake.alpha):
            random.random()
        gone = weakref.ref(boot)
        del boot
        gc.collect()
        assert gone() is None


def test_looking_at_the_clock_is_cheap(benchmark: Any) -> None:
    with world() as fake, fake(fake.alpha):
        assert benchmark(time.monotonic) == 100.0


def test_what_only_says_that_it_is_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    from libos._native import lib

    assert isinstance(lib, types.ModuleType)
    monkeypatch.setitem(sys.modules, "some.lib", lib)
    with world():
        assert time.monotonic() != 0
