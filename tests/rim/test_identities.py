"""Labels, prefixes and addresses become identities."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from l7proxy.identities import IdentityError, IdentityTable
from policies.identity import FIRST_CIDR, FIRST_ENDPOINT


@pytest.fixture
def table() -> IdentityTable:
    table = IdentityTable()
    table.add("api", {"app": "api"}, addresses=["10.77.0.3", "fd77::3"], named_ports={"HTTP": 8080}, interface="v0")
    return table


def test_an_endpoint_has_its_labels_with_source_and_namespace(table: IdentityTable) -> None:
    identity = table.by_name("api").identity
    assert identity.label_list() == ["k8s:app=api", "k8s:io.kubernetes.pod.namespace=default"]
    assert identity.number == FIRST_ENDPOINT
    assert identity.named_ports == {"http": 8080}


def test_equal_labels_share_a_number_and_other_named_ports_do_not(table: IdentityTable) -> None:
    same = table.add("api2", {"app": "api"}, named_ports={"http": 8080}, interface="v1")
    other = table.add("api3", {"app": "api"}, named_ports={"http": 9090}, interface="v2")
    assert same.identity.number == table.by_name("api").identity.number
    assert other.identity.number != same.identity.number
    assert len({same.id, other.id, table.by_name("api").id}) == 3


def test_a_number_is_given_up_with_its_labels_and_not_at_once_somebody_elses(table: IdentityTable) -> None:
    number = table.by_name("api").identity.number
    table.add("api2", {"app": "api"}, named_ports={"http": 8080}, interface="v1")
    table.remove("api")
    assert number in table.numbers
    table.remove("api2")
    assert number not in table.numbers
    assert table.intern({"app": "new"}).number != number


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.77.0.3", "k8s:app=api"),
        ("fd77::3", "k8s:app=api"),
        ("127.8.0.1", "reserved:host"),
        ("::1", "reserved:host"),
        ("192.0.2.2", "reserved:host"),
        ("10.1.2.3", "cidr:10.1.0.0/16"),
        ("10.2.2.3", "cidr:10.0.0.0/8"),
        ("198.51.100.1", "reserved:world"),
        ("2001:db8::1", "reserved:world"),
    ],
)
def test_the_longest_prefix_says_who_an_address_is(table: IdentityTable, address: str, expected: str) -> None:
    table.set_prefixes([ip_network("10.0.0.0/8"), ip_network("10.1.0.0/16")])
    table.set_host_addresses(["192.0.2.2"])
    assert expected in table.by_address(address).label_list()


def test_prefixes_keep_their_numbers_while_named(table: IdentityTable) -> None:
    ten, one = ip_network("10.0.0.0/8"), ip_network("192.0.2.0/24")
    table.set_prefixes([ten])
    number = table.by_address("10.0.0.1").number
    assert number >= FIRST_CIDR
    table.set_prefixes([one, ten])
    assert table.by_address("10.0.0.1").number == number
    table.set_prefixes([one])
    assert table.by_address("10.0.0.1").reserved == "world"
    assert number not in table.numbers


def test_a_host_service_does_not_take_the_hosts_address(table: IdentityTable) -> None:
    table.add("batch", {"app": "batch"}, addresses=["127.0.0.1"], cgroup="batch.service")
    assert table.by_address("127.0.0.1").reserved == "host"


def test_unknown_and_doubled_names_are_errors(table: IdentityTable) -> None:
    with pytest.raises(IdentityError, match="already there"):
        table.add("api", {"app": "x"})
    with pytest.raises(IdentityError, match=r"no endpoint is named 'nope' \(known: api\)"):
        table.by_name("nope")
    with pytest.raises(IdentityError, match="no endpoint"):
        table.remove("nope")
    with pytest.raises(IdentityError, match="no entity"):
        table.entity("nope")


def test_all_numbers_can_be_used_and_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("l7proxy.identities.FIRST_CIDR", FIRST_ENDPOINT + 3)
    table = IdentityTable()
    for name in "abc":
        table.add(name, {"app": name})
    with pytest.raises(IdentityError, match="all 3 identity numbers"):
        table.add("d", {"app": "d"})
    table.remove("b")
    assert table.add("e", {"app": "e"}).identity.number == FIRST_ENDPOINT + 1
