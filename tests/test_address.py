"""Multiserver addresses: the vectors, the hardened rows, random values, the cost of long text."""

from __future__ import annotations

import base64
import contextlib
import copy
import pickle
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.address import _ADDRESS_PATTERN as ADDRESS_PATTERN
from covey.address import MAX_ADDRESS, MAX_ALTERNATIVE, Address, Step, decode_key, encode_key
from covey.address import _parse_cached as parse_cached
from covey.errors import AddressError
from covey.legacy_address import from_legacy, from_parts, is_address, parse_invite
from covey.peer_type import peer_type
from tests.vectors_path import load_vectors

CASES = load_vectors("multiserver-address")["cases"]
KEY = bytes(range(32))
K = base64.b64encode(KEY).decode()
PLAIN = "".join(chr(code) for code in range(0x22, 0x7E) if chr(code) not in ":;")
NAMES = st.from_regex("[a-z][a-z0-9-]+", fullmatch=True)
DATA = st.text(PLAIN + "!~:;")
STEPS = st.builds(Step, NAMES, st.lists(DATA, max_size=4).map(tuple))
ADDRESSES = st.lists(
    st.lists(STEPS, min_size=1, max_size=3).map(tuple), min_size=1, max_size=3
).map(tuple)

each_case = pytest.mark.parametrize("case", [pytest.param(c, id=c["description"]) for c in CASES])
each_valid_case = pytest.mark.parametrize(
    "case", [pytest.param(c, id=c["description"]) for c in CASES if c["valid"]]
)


@each_case
def test_valid(case: dict[str, Any]) -> None:
    assert Address.check(case["input"]) == case["valid"]
    if not case["valid"]:
        with pytest.raises(AddressError):
            Address.parse(case["input"])


@each_valid_case
def test_decoded_and_canonical(case: dict[str, Any]) -> None:
    address = Address.parse(case["input"])
    assert [
        [{"name": step.name, "data": list(step.data)} for step in steps]
        for steps in address.alternatives
    ] == case["decoded"]
    assert str(address) == str(Address.of(address.alternatives)) == case["canonical"]


@each_valid_case
def test_key(case: dict[str, Any]) -> None:
    key = Address.parse(case["input"]).key
    assert (None if key is None else f"@{encode_key(key)}.ed25519") == case["key"]


@each_valid_case
def test_type(case: dict[str, Any]) -> None:
    assert Address.parse(case["input"]).type == case["type"]


@each_valid_case
def test_dialling_does_what_the_reference_does_or_refuses(case: dict[str, Any]) -> None:
    """covey dials the reference's target, less what it hardens: bad ports and careless keys."""
    reference = case["reference_net_shs"]
    try:
        chosen = Address.parse(case["input"]).for_dialling(["net"], ["shs"])
    except AddressError:
        if reference is not None and "error" not in reference:
            fields = reference["address"].partition("~")
            port = fields[0].rpartition(":")[2]
            hardened_port = not (port.isdecimal() and 1 <= int(port) <= 65535)
            key_text = fields[2].removeprefix("shs:").partition(":")[0]
            assert hardened_port or decode_key(key_text) is None
        return
    assert reference is not None
    assert "error" not in reference
    assert chosen.text == reference["address"]
    assert chosen.host == reference["host"].removeprefix("[").removesuffix("]")
    assert chosen.port == reference["port"]
    assert chosen.key == bytes.fromhex(reference["key"])
    handshake = chosen.handshake
    assert handshake is not None
    seed = handshake.data[1] if len(handshake.data) > 1 else None
    wanted = reference["seed"] and base64.b64encode(bytes.fromhex(reference["seed"])).decode()
    assert seed == wanted


@each_valid_case
def test_is_address_as_ssb_ref_has_it(case: dict[str, Any]) -> None:
    assert is_address(case["input"]) == case["ssb_ref_is_address"]


@pytest.mark.parametrize("value", [None, True, False, 1, b"net:h:1", ["net:h:1"], object()])
def test_what_is_not_text_is_a_type_error_although_the_reference_takes_some(value: Any) -> None:
    for call in (Address.check, Address.parse, is_address):
        with pytest.raises(TypeError):
            call(value)


def test_over_long_text_is_refused_before_it_is_looked_at() -> None:
    fits = "net:" + "a" * (MAX_ALTERNATIVE - 4)
    assert Address.parse(fits).text == fits
    assert not Address.check(fits + "a")
    several = ";".join([fits] * 3)
    assert len(Address.parse(several).alternatives) == 3
    assert not Address.check(several + ";" + fits)
    assert not Address.check("ab;" * (MAX_ADDRESS // 3) + "abc")
    assert Address.check("ab;" * (MAX_ADDRESS // 3 - 1) + "abc")
    with pytest.raises(AddressError, match=str(MAX_ADDRESS)) as caught:
        Address.parse("x" * 5_000_000)
    assert len(str(caught.value)) < 200


def test_escaped_separators_do_not_shorten_an_alternative() -> None:
    assert not Address.check("ab:" + "!;" * (MAX_ALTERNATIVE // 2))


HOSTILE: list[Callable[[int], str]] = [
    lambda n: "net:" + "a" * n,
    lambda n: "a" * n + "!",
    lambda n: "ab" + ":" * n,
    lambda n: "ab:" + "!!" * (n // 2),
    lambda n: "ab:" + "!" * (n | 1),
    lambda n: "ab~" * (n // 3) + "ab",
    lambda n: "ab;" * (n // 3),
    lambda n: "ab:c" * (n // 4) + " ",
    lambda n: "a-" * (n // 2) + "_",
    lambda n: "ab:!;" * (n // 5) + "\n",
]


def calls_of(work: Callable[[], object]) -> int:
    """How many functions, of Python and of C, `work` calls."""
    count = 0

    def note(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("make", HOSTILE, ids=range(len(HOSTILE)))
def test_the_steps_grow_with_the_length_and_not_faster(
    make: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the length bounds off, 64 times the text takes not more than 64 times the calls."""
    for name in ("MAX_ADDRESS", "MAX_ALTERNATIVE"):
        monkeypatch.setattr(f"covey.address.{name}", 1 << 40)

    def steps(size: int) -> int:
        text = make(size)

        def parse() -> None:
            with contextlib.suppress(AddressError):
                _ = Address(text).alternatives

        return calls_of(parse)

    few = steps(2_000)
    assert few > 0
    assert steps(128_000) <= 64 * few


def test_the_pattern_never_goes_back_over_what_it_has_taken() -> None:
    """One call can still be slow: every repetition is possessive, so each character is read once.

    What may follow a repetition begins otherwise than what is repeated, so nothing is lost by it.
    """
    pattern = re.sub(r"\[[^]]*\]|\(\?:|\\.", "x", ADDRESS_PATTERN.pattern)
    assert "++" in pattern
    assert "*+" in pattern
    assert not re.search(r"[*+?}]", pattern.replace("++", "").replace("*+", ""))


@settings(max_examples=200, deadline=None)
@given(alternatives=ADDRESSES)
def test_any_list_of_names_and_data_survives_the_text(
    alternatives: tuple[tuple[Step, ...], ...],
) -> None:
    address = Address.of(alternatives)
    assert Address.check(str(address))
    assert Address.parse(str(address)).alternatives == alternatives


@settings(max_examples=300, deadline=None)
@given(text=st.text(PLAIN + "!~:; é\n\x00\x7f", max_size=30) | st.text("ab1-:;~!", max_size=12))
def test_random_text_parses_to_itself_or_is_refused(text: str) -> None:
    if not Address.check(text):
        with pytest.raises(AddressError):
            Address.parse(text)
        return
    address = Address.parse(text)
    assert str(address) == str(Address.of(address.alternatives)) == text
    assert address.type in {None, "lan", "internet", "bt", "dht", "tunnel"}
    _ = address.key, address.host, address.port, address.handshake


@settings(max_examples=100, deadline=None)
@given(
    host=st.ip_addresses().map(str) | st.sampled_from(["fe80::1%eth0", "[::1]", "::ffff:1.2.3.4"]),
    port=st.integers(1, 65535),
    key=st.none() | st.binary(min_size=32, max_size=32),
)
def test_hosts_and_ports_parse_back(host: str, port: int, key: bytes | None) -> None:
    address = Address.parse(str(Address.net(host, port, key=key)))
    assert address.host == host.strip("[]")
    assert (address.port, address.key) == (port, key)
    assert address.handshake == Step("noise", () if key is None else (encode_key(key),))


@pytest.mark.parametrize(
    ("host", "port", "handshake", "key"),
    [
        ("", 1, "noise", None),
        ("h", 0, "noise", None),
        ("h", 65536, "noise", None),
        ("my host", 1, "noise", None),
        ("hé", 1, "noise", None),
        ("h", 1, "Noise", None),
        ("h", 1, "plain", KEY),
        ("h", 1, None, KEY),
        ("h", 1, "noise", KEY[1:]),
        ("h" * MAX_ALTERNATIVE, 1, "noise", None),
    ],
)
def test_net_refuses_what_has_no_text(
    host: str, port: int, handshake: str | None, key: bytes | None
) -> None:
    with pytest.raises(AddressError):
        Address.net(host, port, handshake, key)


def test_separators_in_a_host_name_are_escaped() -> None:
    address = Address.net("a;b~c!d", 1, "plain")
    assert str(address) == "net:a!;b!~c!!d:1~plain"
    assert address.host == "a;b~c!d"


def test_the_parts_of_an_address_over_noise() -> None:
    address = Address.parse(f"net:10.0.0.2:3282~noise:{K}")
    assert address.transport == Step("net", ("10.0.0.2", "3282"))
    assert address.handshake == Step("noise", (K,))
    assert (address.host, address.port, address.key, address.type) == ("10.0.0.2", 3282, KEY, "lan")
    utp = Address.parse("utp:10.0.0.2:3282~noise")
    assert (utp.host, utp.port, utp.key) == ("10.0.0.2", 3282, None)
    other = Address.parse("unix:/run/s~noauth")
    assert (other.host, other.port, other.key, other.type) == (None, None, None, None)
    assert Address.parse("bt:65D900DDB353").handshake is None


def test_shs_goes_before_noise_and_only_a_canonical_key_counts() -> None:
    other = encode_key(bytes(32))
    assert Address.parse(f"net:h:1~noise:{other};net:h:1~shs:{K}").key == KEY
    assert Address.parse(f"net:h:1~noise:{K}").key == KEY
    for text in (K[:-1], K.replace("8=", "9="), f"{K}=", f"@{K}.ed25519", "", K.replace("A", "-")):
        assert Address.parse(f"net:h:1~noise:{text}").key is None
    assert Address.parse(f"net:h:1~plain:{K}").key is None


def test_with_key_pins_the_first_alternative() -> None:
    address = Address.parse("net:h:1~noise")
    assert str(address.with_key(KEY)) == f"net:h:1~noise:{K}"
    assert address.with_key(KEY).with_key(KEY) == address.with_key(KEY)
    several = Address.parse(f"net:h:1~shs:{encode_key(bytes(32))}:seed;net:h:2~noise")
    assert str(several.with_key(KEY)) == f"net:h:1~shs:{K}:seed"
    for text in ("net:h:1", "net:h:1~plain", "unix:/a~noauth"):
        with pytest.raises(AddressError, match="carries a key"):
            Address.parse(text).with_key(KEY)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("net:10.0.0.4:8008~shs", "shs needs a key"),
        (f"net:10.0.0.4:8008~shs:{K}~gzip", "unsupported transform gzip"),
        ("net:10.0.0.4:8008~noise~gzip", "unsupported transform gzip"),
        (f"net:10.0.0.4:8008;net:10.0.0.4:8009~shs:{K}", "no handshake"),
        ("net:10.0.0.4:0~noise", "cannot be dialled"),
        ("net:10.0.0.4:08~noise", "cannot be dialled"),
        ("net:10.0.0.4~noise", "cannot be dialled"),
        ("net:10.0.0.4:80~noise:AAAA", "cannot be dialled"),
        ("net:10.0.0.4:80~noise:", "cannot be dialled"),
        (f"net:10.0.0.4:80~shs:{K}:AAAA", "cannot be dialled"),
        ("ws://h:1~noise", "cannot be dialled"),
        ("net:10.0.0.4:80~gzip~noise", "cannot be dialled"),
    ],
)
def test_what_cannot_be_dialled_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(AddressError, match=reason):
        Address.parse(text).for_dialling({"net"}, {"noise", "shs", "plain"})


def test_only_the_first_understood_alternative_is_dialled() -> None:
    address = Address.parse("ws://h:1~noise;net:h:http~noise;net:h:2~plain;net:h:3~noise")
    assert str(address.for_dialling({"net"}, {"noise", "plain"})) == "net:h:2~plain"
    assert str(address.for_dialling({"net"}, {"noise"})) == "net:h:3~noise"
    single = Address.parse("net:h:3~noise")
    assert single.for_dialling({"net"}, {"noise"}) is single


def test_addresses_are_values() -> None:
    first, second = Address.parse("net:h:1~noise"), Address("net:h:1~noise")
    assert first == second
    assert hash(first) == hash(second)
    assert {first: 1}[second] == 1
    assert first != Address.parse("net:H:1~noise")
    assert first != "net:h:1~noise"
    assert repr(first) == "Address('net:h:1~noise')"
    assert pickle.loads(pickle.dumps(first)) == first
    assert copy.deepcopy(first) == first
    for name in ("text", "other"):
        with pytest.raises(AttributeError):
            setattr(first, name, "x")
    with pytest.raises(AttributeError):
        del first.text


def test_making_an_address_twice_is_cheap_and_the_cache_is_bounded() -> None:
    assert Address.parse("net:h:1~noise") is Address.parse("net:h:1~noise")
    assert parse_cached.cache_info().maxsize is not None
    long = "net:" + "a" * 400
    before = parse_cached.cache_info().currsize
    assert Address.parse(long) == Address.parse(long)
    assert parse_cached.cache_info().currsize == before


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("fe80::1", "lan"),
        ("febf::1", "lan"),
        ("fec0::1", "internet"),
        ("fdff::1", "lan"),
        ("fe00::1", "internet"),
        ("::", "lan"),
        ("::2", "internet"),
        ("[::1]", "lan"),
        ("::ffff:192.168.0.1", "lan"),
        ("::ffff:c0a8:1", "lan"),
        ("::ffff:8.8.8.8", "internet"),
        ("::10.0.0.1", "internet"),
        ("172.15.255.255", "internet"),
        ("a.localhost", "lan"),
        ("LOCALHOST", "lan"),
        ("notlocalhost", "internet"),
        ("local", "internet"),
        ("127.1", "internet"),
        ("", "internet"),
    ],
)
def test_near_and_far_hosts(host: str, expected: str) -> None:
    assert peer_type(host) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"pub.example.com:8008:@{K}.ed25519", f"net:pub.example.com:8008~shs:{K}"),
        (f"10.0.0.1:1:@{K}.ed25519", f"net:10.0.0.1:1~shs:{K}"),
        (f"fe80::1:1:@{K}.ed25519", f"net:fe80::1:1~shs:{K}"),
        (f"abc.onion:1:@{K}.ed25519", f"onion:abc.onion:1~shs:{K}"),
        (f"ws://h:1:@{K}.ed25519", f"ws://h:1~shs:{K}"),
        (f"wss://h:1:@{K}.ed25519", f"wss://h:1~shs:{K}"),
    ],
)
def test_legacy_addresses_are_converted(text: str, expected: str) -> None:
    assert str(from_legacy(text)) == expected
    assert is_address(text)


@pytest.mark.parametrize(
    "text",
    [
        f"@{K}.ed25519",
        f"h:0:@{K}.ed25519",
        f"h:65536:@{K}.ed25519",
        f"h:1:@{K[:-2]}.ed25519",
        f"h:1:@{K.replace('8=', '9=')}.ed25519",
        f"my host:1:@{K}.ed25519",
        f"http://h:1:@{K}.ed25519",
        f"h:1:@{K}.ed25519~seed",
        "h:1",
        "",
        "a:" * 100_000,
    ],
)
def test_what_is_no_legacy_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        from_legacy(text)
    assert not is_address(text)


def test_an_address_in_parts() -> None:
    for key in (K, f"@{K}.ed25519"):
        parts = {"host": "h", "port": 8008, "key": key}
        assert str(from_parts(parts)) == f"net:h:8008~shs:{K}"
    for wrong in ({}, {"host": "h", "port": "1", "key": K}, {"host": "h", "port": 1, "key": "x"}):
        with pytest.raises(AddressError):
            from_parts(wrong)


def test_invites_of_both_kinds_and_their_redirect() -> None:
    seed = bytes(32)
    for text in (f"net:h:1~shs:{K}:{encode_key(seed)}", f"h:1:@{K}.ed25519~{encode_key(seed)}"):
        invite = parse_invite(text)
        assert (str(invite.address), invite.seed, invite.redirect) == (
            f"net:h:1~shs:{K}",
            seed,
            None,
        )
        assert parse_invite(text + "#https://example.com").redirect == "https://example.com"
        assert encode_key(seed) not in repr(invite)
        assert repr(seed) not in repr(invite)


@pytest.mark.parametrize(
    "text",
    [
        f"net:h:1~shs:{K}",
        f"net:h:1~shs:{K}:AAAA",
        f"net:h:1~noise:{K}:{K}",
        f"net:h:1~shs:AAAA:{K}",
        f"h:1:@{K}.ed25519",
        f"h:1:@{K}.ed25519~AAAA",
        "nothing",
        "",
    ],
)
def test_what_is_no_invite_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_invite(text)
    assert K not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("host", "port"), [("h", 1.5), ("h", True), ("h", "1"), ("h", None), (b"h", 1), (None, 1)]
)
def test_net_takes_a_text_and_a_whole_number(host: Any, port: Any) -> None:
    with pytest.raises(TypeError, match="a host is a str and a port an int"):
        Address.net(host, port)
