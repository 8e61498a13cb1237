"""The DHCPv6 client (RFC 8415) by itself: what it says when."""

from __future__ import annotations

import itertools

import pytest
from scapy.layers.dhcp6 import (
    DHCP6_Advertise,
    DHCP6_Decline,
    DHCP6_InfoRequest,
    DHCP6_Rebind,
    DHCP6_Release,
    DHCP6_Renew,
    DHCP6_Request,
    DHCP6_Solicit,
    DHCP6OptClientId,
    DHCP6OptDNSDomains,
    DHCP6OptDNSServers,
    DHCP6OptElapsedTime,
    DHCP6OptIA_NA,
    DHCP6OptIAAddress,
    DHCP6OptOptReq,
    DHCP6OptPref,
    DHCP6OptRapidCommit,
    DHCP6OptServerId,
    DHCP6OptStatusCode,
)
from scapy.packet import Raw

from libos.net.config.dhcp6 import NEVER, Bind, Client, Inform, State, Unbind
from libos.rand import Rng

from .dhcp6 import ADDRESS, DUID, MAC, OTHER, SECOND, START, Network, gaps, ia

# --- getting addresses ---


def test_solicit() -> None:
    """RFC 8415 18.2.1, 21"""
    solicit = Network().sent(DHCP6_Solicit)
    assert solicit[DHCP6OptElapsedTime].elapsedtime == 0
    assert solicit[DHCP6OptIA_NA].iaid == 1
    assert DHCP6OptRapidCommit in solicit
    assert {23, 24, 82} <= set(solicit[DHCP6OptOptReq].reqopts)
    assert DHCP6OptServerId not in solicit
    assert solicit[DHCP6OptClientId].duid.lladdr == MAC


def test_the_first_solicit_is_delayed_by_chance() -> None:
    """RFC 8415 18.2.1, SOL_MAX_DELAY: 0-1 s"""
    deadlines = set()
    for seed in range(8):
        client = Client(Rng(seed), duid=DUID)
        assert client.start(START, stateful=True) == []
        deadlines.add(client.deadline)
    assert len(deadlines) == 8
    assert all(START <= deadline < START + SECOND for deadline in deadlines)


def test_solicit_advertise_request_reply() -> None:
    """RFC 8415 18.2.9, 18.2.2, 18.2.10.1: for one whole second all servers may advertise; the highest preference."""
    net = Network()
    solicit = net.sent(DHCP6_Solicit)
    net.answer(solicit, DHCP6OptPref(prefval=1), ia("2001:db8::1"), kind=DHCP6_Advertise, server=OTHER)
    net.answer(solicit, DHCP6OptPref(prefval=2), ia(), kind=DHCP6_Advertise)
    net.answer(solicit, ia("2001:db8::2"), kind=DHCP6_Advertise, server=OTHER)
    net.at(0.99)
    assert net.actions == []
    net.at(1.2)
    request = net.sent(DHCP6_Request)
    assert request[DHCP6OptServerId].duid.lladdr == "02:00:00:00:00:01"
    assert request[DHCP6OptIAAddress].addr == ADDRESS
    assert request.trid != solicit.trid
    net.answer(
        request, ia(), DHCP6OptDNSServers(dnsservers=["2001:db8::53"]), DHCP6OptDNSDomains(dnsdomains=["example.org."])
    )
    (bind,) = net.actions
    lease = bind.lease
    assert [a.address for a in lease.addresses] == [ADDRESS]
    assert lease.addresses[0].preferred_until == net.now + 1000 * SECOND
    assert lease.addresses[0].valid_until == lease.until == net.now + 2000 * SECOND
    assert (lease.dns, lease.search) == (("2001:db8::53",), ("example.org",))
    assert net.client.state is State.CHECKING


def test_the_highest_preference_is_taken_at_once() -> None:
    """RFC 8415 18.2.9"""
    net = Network()
    net.answer(net.sent(DHCP6_Solicit), DHCP6OptPref(prefval=255), ia(), kind=DHCP6_Advertise)
    net.sent(DHCP6_Request)


def test_after_the_first_wait_the_first_is_taken() -> None:
    """RFC 8415 18.2.1"""
    net = Network()
    net.sent(DHCP6_Solicit)
    net.next()
    net.answer(net.sent(DHCP6_Solicit), ia(), kind=DHCP6_Advertise)
    net.sent(DHCP6_Request)


def test_rapid_commit() -> None:
    """RFC 8415 18.2.1: two messages; a reply without the option is none."""
    net = Network()
    solicit = net.sent(DHCP6_Solicit)
    net.answer(solicit, ia())
    assert net.actions == []
    net.answer(solicit, ia(), DHCP6OptRapidCommit())
    assert isinstance(net.actions.pop(), Bind)


def test_retransmission() -> None:
    """RFC 8415 15: doubled each time, a tenth more or less of what it was; around SOL_MAX_RT for ever."""
    waits = gaps(Network(), DHCP6_Solicit, 20)
    assert 1 <= waits[0] <= 1.1
    for before, after in itertools.pairwise(waits):
        assert min(1.9 * before, 3240) <= after <= min(2.1 * before, 3960)
    assert 3240 <= waits[-1] <= 3960


def test_elapsed_time_is_since_the_first() -> None:
    """RFC 8415 21.9: hundredths of a second"""
    net = Network()
    net.sent(DHCP6_Solicit)
    net.next()
    again = net.sent(DHCP6_Solicit)
    assert again[DHCP6OptElapsedTime].elapsedtime == (net.now - START) * 100 // SECOND > 0


def test_sol_max_rt_of_a_server() -> None:
    """RFC 8415 21.24: 60 to 86400 s, even of an advertisement that offers nothing."""
    net = Network()
    solicit = net.sent(DHCP6_Solicit)
    net.answer(solicit, DHCP6OptStatusCode(statuscode=2), Raw(b"\0\x52\0\4\0\0\0\x3c"), kind=DHCP6_Advertise)
    net.next()
    waits = gaps(net, DHCP6_Solicit, 12)
    assert 54 <= waits[-1] <= 66


def test_a_request_without_an_answer_begins_anew() -> None:
    """RFC 8415 7.6, 18.2.2: REQ_MAX_RC 10"""
    net = Network()
    net.answer(net.sent(DHCP6_Solicit), DHCP6OptPref(prefval=255), ia(), kind=DHCP6_Advertise)
    waits = gaps(net, DHCP6_Request, 10)
    assert 0.9 <= waits[0] <= 1.1
    assert waits[-1] <= 33
    net.sent(DHCP6_Solicit)


@pytest.mark.parametrize("status", [2, 4])
def test_a_request_that_is_refused_begins_anew(status: int) -> None:
    """RFC 8415 18.2.10.1: NoAddrsAvail, NotOnLink"""
    net = Network()
    net.answer(net.sent(DHCP6_Solicit), DHCP6OptPref(prefval=255), ia(), kind=DHCP6_Advertise)
    net.answer(net.sent(DHCP6_Request), ia(status=status))
    assert net.actions == []
    net.next().sent(DHCP6_Solicit)


# --- keeping them ---


def test_renew() -> None:
    """RFC 8415 18.2.4: at T1, to the server that gave them, with what we have."""
    net = Network().bound(t1=300, t2=400)
    net.at(299)
    assert net.actions == []
    net.at(301)
    renew = net.sent(DHCP6_Renew)
    assert renew[DHCP6OptServerId].duid.lladdr == "02:00:00:00:00:01"
    assert renew[DHCP6OptIAAddress].addr == ADDRESS
    net.answer(renew, ia(t1=300, t2=400))
    assert isinstance(net.actions.pop(), Bind)
    assert net.client.state is State.BOUND
    assert net.client.deadline == net.now + 300 * SECOND


def test_t1_and_t2_of_our_own() -> None:
    """RFC 8415 14.2, 21.4: 0 leaves them to us: 0.5 and 0.8 of the shortest preferred lifetime."""
    net = Network().bound(preferred=1000)
    lease = net.client.lease
    assert lease is not None
    assert (lease.renew_at - net.now, lease.rebind_at - net.now) == (500 * SECOND, 800 * SECOND)


def test_rebind() -> None:
    """RFC 8415 18.2.5: at T2, to any server; REN_TIMEOUT and REB_TIMEOUT are 10 s."""
    net = Network().bound(t1=300, t2=400)
    net.at(399)
    assert len(net.actions) >= 3
    while net.actions:
        net.sent(DHCP6_Renew)
    net.at(400)
    rebind = net.sent(DHCP6_Rebind)
    assert DHCP6OptServerId not in rebind
    net.answer(rebind, ia(), server=OTHER)
    assert isinstance(net.actions.pop(), Bind)


def test_a_lease_that_ends() -> None:
    """RFC 8415 18.2.5: all addresses have expired."""
    net = Network().bound(preferred=100, valid=200).at(199.9)
    net.actions.clear()
    net.at(200)
    assert isinstance(net.actions.pop(0), Unbind)
    net.sent(DHCP6_Solicit)
    assert net.client.lease is None


def test_no_binding_is_asked_for_again() -> None:
    """RFC 8415 18.2.10.1: a Request to the server that said so."""
    net = Network().bound(t1=300, t2=400).at(300)
    net.answer(net.sent(DHCP6_Renew), ia(status=3))
    request = net.sent(DHCP6_Request)
    assert request[DHCP6OptIAAddress].addr == ADDRESS
    net.answer(request, ia())
    assert isinstance(net.actions.pop(), Bind)


def test_a_renewal_that_takes_the_address_away() -> None:
    """RFC 8415 18.2.10.1: a valid lifetime of 0"""
    net = Network().bound(t1=300, t2=400).at(300)
    net.answer(net.sent(DHCP6_Renew), ia(preferred=0, valid=0))
    assert isinstance(net.actions.pop(0), Unbind)
    net.sent(DHCP6_Solicit)


def test_for_ever() -> None:
    """RFC 8415 7.7"""
    net = Network().bound(preferred=0xFFFFFFFF, valid=0xFFFFFFFF)
    assert net.client.deadline == NEVER


# --- giving them back ---


def test_decline() -> None:
    """RFC 8415 18.2.8: up to four times, until it is answered; then anew."""
    net = Network().bound()
    net.actions += net.client.declined(net.now)
    decline = net.sent(DHCP6_Decline)
    assert isinstance(net.actions.pop(), Unbind)
    assert decline[DHCP6OptIAAddress].addr == ADDRESS
    assert decline[DHCP6OptServerId].duid.lladdr == "02:00:00:00:00:01"
    for _ in range(3):
        net.next().sent(DHCP6_Decline)
    net.next().sent(DHCP6_Solicit)
    net = Network().bound()
    net.actions += net.client.declined(net.now)[:1]
    net.answer(net.sent(DHCP6_Decline))
    net.sent(DHCP6_Solicit)


def test_release() -> None:
    """RFC 8415 18.2.7"""
    net = Network().bound()
    net.actions += net.client.release(net.now)
    release = net.sent(DHCP6_Release)
    assert release[DHCP6OptIAAddress].addr == ADDRESS
    assert release[DHCP6OptServerId].duid.lladdr == "02:00:00:00:00:01"
    assert isinstance(net.actions.pop(), Unbind)
    assert (net.client.deadline, net.client.release(net.now)) == (NEVER, [])


# --- stateless ---


def test_information() -> None:
    """RFC 8415 18.2.6, 18.2.10.4: no association, no server named."""
    net = Network(stateful=False)
    request = net.sent(DHCP6_InfoRequest)
    assert DHCP6OptIA_NA not in request
    assert {23, 24, 32, 83} <= set(request[DHCP6OptOptReq].reqopts)
    net.answer(request, DHCP6OptDNSServers(dnsservers=["2001:db8::53", "fe80::1"]))
    inform = net.actions.pop()
    assert inform == Inform(("2001:db8::53", "fe80::1"), ())
    assert net.client.deadline == net.now + 86400 * SECOND
    net.next().sent(DHCP6_InfoRequest)


def test_information_is_refreshed() -> None:
    """RFC 8415 21.23: when the server says, but not within 600 s."""
    for said, taken in ((1000, 1000), (5, 600)):
        net = Network(stateful=False)
        net.answer(net.sent(DHCP6_InfoRequest), Raw(b"\0\x20\0\4" + said.to_bytes(4, "big")))
        assert net.client.deadline == net.now + taken * SECOND
