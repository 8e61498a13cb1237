"""Where a world does not do what asyncio does, and why: each row is one test, or one file of tests, in some
worlds.

A row that is not ``skip`` is an expected failure, and a surprise if it passes: then the row goes. ``skip`` is for what
passes at times, takes long, or leaves behind what the checks of other tests would find.
"""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    kinds: str
    test: str
    reason: str
    skip: bool = False


TABLE = (
    Row(
        "uvloop", "test_callbacks.py::test_timers_fire_in_the_order_of_their_times", "counts in milliseconds", skip=True
    ),
    Row("uvloop", "test_callbacks.py::test_a_timer_is_not_early", "counts in milliseconds", skip=True),
    Row("uvloop", "test_callbacks.py::test_the_context_goes_with_the_callback", "counts in milliseconds", skip=True),
    Row("uvloop", "test_callbacks.py::test_a_loop_that_runs_cannot_be_run_closed_or_nested", "says it in other words"),
    Row("uvloop", "test_signals.py::test_closing_removes_the_handlers", "leaves the handler of the signal module"),
    Row(
        "uvloop",
        "test_subprocesses.py::test_closing_the_transport_kills_it",
        "a subprocess that is closed does not say that it is closing",
    ),
    Row(
        "uvloop",
        "test_subprocesses.py::test_closing_its_stdin_early_is_no_error",
        "write() raises if the program was quicker",
        skip=True,
    ),
    Row("uvloop", "test_pipes.py::test_the_order_of_callbacks", "the end of a pipe is told as ENOTSOCK"),
    Row("uvloop", "test_pipes.py::test_a_regular_file_is_no_pipe", "aborts the process", skip=True),
    Row("uvloop", "test_sock.py::test_datagrams", "has no sock_recvfrom"),
    Row("uvloop", "test_sock.py::test_waiting_for_datagrams_is_cancelled_and_loses_nothing", "has no sock_recvfrom"),
    Row("uvloop", "test_sock.py::test_a_blocking_socket_is_refused_in_debug_mode", "has no sock_recvfrom"),
    Row("uvloop", "test_sock.py::test_sendfile", "has no sendfile", skip=True),
    Row("uvloop", "test_unix.py::test_an_abstract_address", "takes its address for a C string"),
    Row("uvloop", "test_unix.py::test_datagrams", "takes UNIX datagram sockets by sock= only"),
    Row("uvloop", "test_pipes.py::test_a_reader_that_goes_ends_the_writer", "calls eof_received of a pipe for writing"),
    Row("uvloop", "test_names.py::test_the_name_of_the_server", "has a resolver that the test cannot tell names"),
    Row("uvloop", "test_connections.py::test_by_name_port_and_family", "as above", skip=True),
    Row("uvloop", "test_connections.py::test_the_next_address_is_tried", "as above", skip=True),
    Row("uvloop", "test_connections.py::test_refused", "as above", skip=True),
    Row("uvloop", "test_connections.py::test_from_an_address_that_is_not_ours", "its close() hangs then", skip=True),
    Row(
        "asyncio io_uring epoll",
        "test_connections.py::test_a_factory_that_raises",
        "asyncio leaves the socket to the collector",
        skip=True,
    ),
    Row(
        "asyncio uvloop",
        "test_servers.py::test_a_factory_that_raises_costs_only_its_connection",
        "asyncio leaves the socket to the collector and tells nobody",
        skip=True,
    ),
    Row("uvloop", "test_servers.py::test_several_hosts", "binds an address as often as it is named", skip=True),
    Row("uvloop", "test_connections.py::test_an_accepted_socket_with_tls", "returns another protocol", skip=True),
    Row("uvloop", "test_transports.py::test_writing_after_close_is_forgotten", "raises", skip=True),
    Row("uvloop", "test_transports.py::test_all_kinds_of_bytes_are_copied", "keeps a bytearray, uncopied", skip=True),
    Row("uvloop", "test_sendfile.py", "has no sendfile", skip=True),
    Row(
        "uvloop",
        "test_protocols.py::test_a_protocol_that_raises_costs_only_its_connection",
        "says it in other words, and goes on reading for no one if connection_made raised",
        skip=True,
    ),
    Row(
        "uvloop",
        "test_protocols.py::test_a_buffered_protocol_that_fails",
        "puts an error of its own in the place of the protocol's",
        skip=True,
    ),
    Row("uvloop", "test_datagrams.py::test_a_port_is_shared_and_a_family_is_enough", "sets SO_REUSEADDR", skip=True),
    Row("asyncio", "test_bad_arguments.py", "is the reference itself", skip=True),
    Row("uvloop", "test_bad_arguments.py", "says it in words of its own", skip=True),
    Row("uvloop", "test_bad_peers.py::test_a_reset_while_much_is_queued", "write() raises then", skip=True),
    Row(
        "asyncio io_uring epoll pair",
        "test_cancellation.py::test_starting_a_server_at_every_await",
        "asyncio leaves the listener to the collector",
        skip=True,
    ),
    Row("uvloop", "test_cancellation.py", "its close() hangs on a handshake that was cancelled", skip=True),
    Row(
        "pair",
        "test_flow_control.py::test_a_reader_that_says_nothing",
        "the reader is a thread on a host socket",
        skip=True,
    ),
)
