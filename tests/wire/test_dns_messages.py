from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from covey.errors import DecodeError, EncodeError
from covey.wire.dns_messages import (
    MAX_RECORDS,
    TYPE_A,
    TYPE_SRV,
    TYPE_TXT,
    Message,
    Question,
    Record,
    Service,
    decode_message,
    encode_message,
    type_name,
)
from tests.vectors_path import load_vectors
from tests.wire.dns_cases import message_of

VECTORS = load_vectors("dns-discovery")
HEADER = bytes.fromhex("000780000000000000000000")
NAME = b"\x01x\x00"


def named(case: dict[str, Any]) -> str:
    return str(case.get("name") or case["description"])


def with_counts(questions: int = 0, answers: int = 0) -> bytes:
    return HEADER[:4] + questions.to_bytes(2, "big") + answers.to_bytes(2, "big") + bytes(4)


def record(
    record_type: int, data: bytes, *, length: int | None = None, name: bytes = NAME
) -> bytes:
    size = len(data) if length is None else length
    kind = record_type.to_bytes(2, "big") + b"\0\1" + bytes(4)
    return name + kind + size.to_bytes(2, "big") + data


@pytest.mark.parametrize("case", VECTORS["messages"], ids=named)
def test_messages_of_the_vectors_decode(case: dict[str, Any]) -> None:
    assert decode_message(bytes.fromhex(case["hex"])) == message_of(case["message"])


@pytest.mark.parametrize(
    "case", [case for case in VECTORS["messages"] if not case.get("decode_only")], ids=named
)
def test_messages_of_the_vectors_encode_to_the_byte(case: dict[str, Any]) -> None:
    assert encode_message(message_of(case["message"])).hex() == case["hex"]


@pytest.mark.parametrize("case", VECTORS["malformed"], ids=named)
def test_malformed_messages_of_the_vectors(case: dict[str, Any]) -> None:
    reference = case["reference"]
    data = bytes.fromhex(case["hex"])
    # Stricter than the reference in one thing: record data beyond the end refuses it all.
    if not reference["decodes"] or overruns(data):
        with pytest.raises(DecodeError):
            decode_message(data)
        return
    message = decode_message(data)
    assert message.response == (reference["type"] == "response")
    for section in ("questions", "answers", "additionals"):
        assert len(getattr(message, section)) == reference[section]


def overruns(data: bytes) -> bool:
    """Whether the message decodes once the datagram is long enough for its record data."""
    try:
        decode_message(data)
    except DecodeError as error:
        return "beyond the end" in str(error)
    return False


@pytest.mark.parametrize("case", VECTORS["odd_decode"], ids=named)
def test_odd_messages_of_the_vectors(case: dict[str, Any]) -> None:
    reference = case["reference"]
    if not reference["ok"]:
        with pytest.raises(DecodeError):
            decode_message(bytes.fromhex(case["hex"]))
        return
    message = decode_message(bytes.fromhex(case["hex"]))
    assert message.response == (reference["type"] == "response")
    assert [
        {
            "type": type_name(answer.type),
            "name": answer.name,
            "ttl": answer.ttl,
            "strings": [string.hex() for string in answer.data]
            if isinstance(answer.data, tuple)
            else None,
        }
        for answer in message.answers
    ] == reference["answers"]


@pytest.mark.parametrize("step", VECTORS["dialogue"]["steps"], ids=named)
def test_recorded_datagrams_decode_and_encode_to_the_same_bytes(step: dict[str, Any]) -> None:
    recorded = [step["send_hex"]] if step.get("reply_hex") else []
    recorded += [step["reply_hex"]] if step.get("reply_hex") else []
    recorded += ["0000" + push["message_without_id_hex"] for push in step.get("push", [])]
    for datagram in recorded:
        assert encode_message(decode_message(bytes.fromhex(datagram))).hex() == datagram
    if not step.get("reply_hex"):
        with pytest.raises(DecodeError):
            decode_message(bytes.fromhex(step["send_hex"]))


def test_every_prefix_of_a_message_is_refused() -> None:
    for case in VECTORS["messages"]:
        data = bytes.fromhex(case["hex"])
        for size in range(len(data)):
            with pytest.raises(DecodeError):
                decode_message(data[:size])


def test_bytes_after_the_last_record_are_ignored() -> None:
    for case in VECTORS["messages"]:
        data = bytes.fromhex(case["hex"])
        assert decode_message(data + b"\xff" * 40) == decode_message(data)


def test_a_pointer_forward_is_refused() -> None:
    with pytest.raises(DecodeError, match="does not lead back"):
        decode_message(with_counts(1) + b"\xc0\x10\x00\x10\x00\x01\x01x\x00")


def test_a_pointer_to_itself_is_refused() -> None:
    with pytest.raises(DecodeError, match="does not lead back"):
        decode_message(with_counts(1) + b"\xc0\x0c\x00\x10\x00\x01")


def test_a_name_that_points_into_itself_is_refused() -> None:
    with pytest.raises(DecodeError):
        decode_message(with_counts(1) + b"\x01a\xc0\x0c\x00\x10\x00\x01")


def test_a_chain_of_pointers_cannot_make_a_name_too_long() -> None:
    with pytest.raises(DecodeError, match="255"):
        decode_message(with_counts(0, 2) + _chain())


def _chain() -> bytes:
    """A record whose data is a chain of labels, then one whose name is the end of that chain."""
    blocks = b""
    base = 12 + len(NAME) + 10
    for number in range(5):
        pointer = 0xC000 | base + (number - 1) * 66
        tail = b"\x00\x00" if number == 0 else pointer.to_bytes(2, "big")
        blocks += b"\x3f" + b"a" * 63 + tail
    name = (0xC000 | base + 4 * 66).to_bytes(2, "big")
    return record(0xFF00, blocks) + record(TYPE_TXT, b"", name=name)


@pytest.mark.parametrize(("pointers", "fine"), [(127, True), (128, False)])
def test_more_pointers_than_a_name_can_have_labels_are_refused(pointers: int, fine: bool) -> None:
    base = 12 + len(NAME) + 10
    chain = b"\x00\x00" + b"".join(
        (0xC000 | base + 2 * number).to_bytes(2, "big") for number in range(pointers)
    )
    last = (0xC000 | base + 2 * pointers).to_bytes(2, "big")
    data = with_counts(0, 2) + record(0xFF00, chain) + record(TYPE_TXT, b"", name=last)
    if fine:
        assert decode_message(data).answers[1].name == ""
    else:
        with pytest.raises(DecodeError, match="does not lead back"):
            decode_message(data)


def test_a_reserved_label_kind_is_refused() -> None:
    for kind in (0x40, 0x80, 0xBF):
        with pytest.raises(DecodeError, match="reserved"):
            decode_message(with_counts(1) + bytes([kind]) + b"a" * 200)


def test_a_dot_in_a_label_does_not_pass_for_two_labels() -> None:
    data = with_counts(1) + b"\x03a.b\x01\\\x00\x00\x10\x00\x01"
    assert decode_message(data).questions[0].name == "a\\.b.\\\\"


def test_bytes_that_are_no_text_survive_in_a_name() -> None:
    data = with_counts(1) + b"\x02\xff\xfe\x00\x00\x10\x00\x01"
    assert encode_message(decode_message(data)) == data


@pytest.mark.parametrize(
    ("record_type", "data", "length"),
    [
        (TYPE_TXT, b"\x05abc", None),
        (TYPE_TXT, b"\x01a", 1000),
        (TYPE_TXT, b"\x09a\x01b", 2),
        (TYPE_SRV, b"\0\0\0\0\x1f", None),
        (TYPE_SRV, b"\0\0\0\0\x1f\x90\x01x\x00more", None),
        (TYPE_SRV, b"\0\0\0\0\x1f\x90\x01x\x00", 7),
        (TYPE_A, b"\x7f\0\0", None),
        (TYPE_A, b"\x7f\0\0\1\0", None),
        (0xFF00, b"abc", 4),
    ],
)
def test_record_data_that_does_not_fill_its_length_is_refused(
    record_type: int, data: bytes, length: int | None
) -> None:
    with pytest.raises(DecodeError):
        decode_message(with_counts(0, 1) + record(record_type, data, length=length))


def test_too_many_records_are_refused_before_they_are_read() -> None:
    one = record(TYPE_TXT, b"")
    assert len(decode_message(with_counts(0, MAX_RECORDS) + one * MAX_RECORDS).answers) == 256
    with pytest.raises(DecodeError, match="at most 256"):
        decode_message(with_counts(0, MAX_RECORDS + 1) + one * (MAX_RECORDS + 1))


def test_many_short_names_that_lead_to_one_long_name_are_refused() -> None:
    long_name = b"\x01a" * 100 + b"\x00"
    first = record(TYPE_TXT, b"", name=long_name)
    again = record(TYPE_TXT, b"", name=b"\xc0\x0c")
    assert len(decode_message(with_counts(0, 20) + first + again * 19).answers) == 20
    with pytest.raises(DecodeError, match="2048 labels"):
        decode_message(with_counts(0, 21) + first + again * 20)


@pytest.mark.parametrize(
    "message",
    [
        Message(id=65536),
        Message(id=-1),
        Message(questions=(Question("a" * 64),)),
        Message(questions=(Question("a..b"),)),
        Message(questions=(Question("a\\.b"),)),
        Message(questions=(Question(".".join(["a" * 63] * 4)),)),
        Message(answers=(Record("x", TYPE_TXT, (b"a" * 256,)),)),
        Message(answers=(Record("x", TYPE_SRV, Service(65536, "1.2.3.4")),)),
        Message(answers=(Record("x", TYPE_A, "999.1.1.1"),)),
        Message(answers=(Record("x", TYPE_A, Service(1, "1.2.3.4")),)),
        Message(answers=(Record("x", TYPE_TXT, (), 1 << 32),)),
    ],
)
def test_what_does_not_fit_is_not_encoded(message: Message) -> None:
    with pytest.raises(EncodeError):
        encode_message(message)


def test_authorities_and_other_types_pass_through() -> None:
    message = Message(
        id=9,
        authorities=(Record("", 0xFF00, b"raw", 7, 3),),
        additionals=(Record("a.b", TYPE_TXT, ()),),
    )
    assert decode_message(encode_message(message)) == message
    assert decode_message(encode_message(replace(message, response=True))).response


def test_an_independent_implementation_reads_what_we_write() -> None:
    import dns.message

    for case in VECTORS["messages"]:
        ours = message_of(case["message"])
        theirs = dns.message.from_wire(encode_message(ours))
        assert theirs.id == ours.id
        assert [q.name.to_text(omit_final_dot=True) for q in theirs.question] == [
            question.name for question in ours.questions
        ]
        assert sum(map(len, theirs.answer)) == len(ours.answers)
        for group, one in zip(theirs.answer, ours.answers, strict=True):
            assert group.name.to_text(omit_final_dot=True) == one.name
            if one.type == TYPE_TXT:
                assert group[0].strings == one.data


def test_we_read_what_an_independent_implementation_writes_compressed() -> None:
    import dns.message
    import dns.rrset

    query = dns.message.make_query("one.two.dns-discovery.local", "TXT")
    theirs = dns.message.make_response(query)
    theirs.id = 77
    for section, host in (
        (theirs.answer, "one.two.dns-discovery.local"),
        (theirs.authority, "two.dns-discovery.local"),
        (theirs.additional, "dns-discovery.local"),
    ):
        section.append(dns.rrset.from_text(f"{host}.", 9, "IN", "TXT", '"a=1" "b"'))
        section.append(dns.rrset.from_text(f"{host}.", 9, "IN", "SRV", f"1 2 3 x.{host}."))
    ours = decode_message(theirs.to_wire())
    assert (ours.id, ours.response, len(ours.questions)) == (77, True, 1)
    for ours_section, host in (
        (ours.answers, "one.two.dns-discovery.local"),
        (ours.authorities, "two.dns-discovery.local"),
        (ours.additionals, "dns-discovery.local"),
    ):
        assert ours_section == (
            Record(host, TYPE_TXT, (b"a=1", b"b"), 9),
            Record(host, TYPE_SRV, Service(3, f"x.{host}", 1, 2), 9),
        )
