from __future__ import annotations

import sys
from typing import Any

import pytest
from nacl import bindings

from covey.errors import ProtocolError
from covey.wire import bulk_cipher, cipher, sodium
from covey.wire.bulk_cipher import BULK_SIZE
from covey.wire.cipher import (
    FRAME_OVERHEAD,
    GROUP_SIZE,
    MAX_MESSAGE,
    FastOpener,
    FastSealer,
    PlainOpener,
    PlainSealer,
)
from tests.vectors_path import load_vectors
from tests.wire.cipher_state import force_state, state_of

CASES: list[dict[str, Any]] = load_vectors("secret-stream")["cases"]
KEY, HEADER = bytes(range(32)), bytes(range(100, 124))

BOUNDARY_SIZES = [
    0, 1, 2, 15, 16, 17, 63, 64, 65, 100, 4095, BULK_SIZE - 1, BULK_SIZE, BULK_SIZE + 1,
    BULK_SIZE + 7, BULK_SIZE + 15, BULK_SIZE + 16, 65535, 65536, 65537, GROUP_SIZE + 5,
]  # fmt: skip


def content(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def reference_frames(messages: list[bytes], tag: int = 0) -> bytes:
    """The same frames by PyNaCl alone."""
    state = bindings.crypto_secretstream_xchacha20poly1305_state()
    bindings.crypto_secretstream_xchacha20poly1305_init_pull(state, HEADER, KEY)
    out = b""
    for message in messages:
        body = bindings.crypto_secretstream_xchacha20poly1305_push(state, message, None, tag)
        out += len(body).to_bytes(3, "little") + body
    return out


def no_openssl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cipher, "bulk_engine", lambda: None)


@pytest.fixture(params=["fast with openssl", "fast alone", "plain"])
def engines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    if request.param == "plain":
        return PlainSealer, PlainOpener
    if request.param == "fast alone":
        no_openssl(monkeypatch)
    else:
        assert bulk_cipher.bulk_engine() is not None
    return FastSealer, FastOpener


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case["name"]) for case in CASES if case["kind"] == "secretstream"],
)
@pytest.mark.parametrize("bulk", [False, True], ids=["libsodium", "openssl"])
def test_states_and_ciphertexts_are_the_recorded_ones(
    case: dict[str, Any], bulk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if bulk:
        monkeypatch.setattr(cipher, "BULK_SIZE", 0)
    else:
        no_openssl(monkeypatch)
    key, header = bytes.fromhex(case["key"]), bytes.fromhex(case["header"])
    sealer, opener = FastSealer(key, header), FastOpener(key, header)
    assert state_of(sealer).hex() == case["state_after_init"]
    for step in case["steps"]:
        if "force_state_before" in step:
            for half in (sealer, opener):
                force_state(half, bytes.fromhex(step["force_state_before"]))
        plaintext = bytes.fromhex(step["plaintext"])
        [frame] = sealer.seal([plaintext], tag=step["tag_byte"])
        assert frame[3:].hex() == step["ciphertext"]
        assert state_of(sealer).hex() == step["state_after"]
        messages: list[bytes] = []
        assert opener.open_frames(memoryview(frame), 0, messages) == len(frame)
        assert messages == [plaintext]
        assert state_of(opener).hex() == step["state_after"]


def test_every_engine_makes_libsodiums_bytes(engines: Any) -> None:
    messages = [content(size) for size in BOUNDARY_SIZES]
    frames = b"".join(engines[0](KEY, HEADER).seal(messages))
    assert frames == reference_frames(messages)


def test_every_engine_reads_libsodiums_bytes(engines: Any) -> None:
    messages = [content(size) for size in BOUNDARY_SIZES]
    opened: list[bytes] = []
    frames = memoryview(reference_frames(messages))
    assert engines[1](KEY, HEADER).open_frames(frames, 0, opened) == len(frames)
    assert opened == messages
    assert {type(message) for message in opened} == {bytes}


@pytest.mark.parametrize("tag", [1, 2, 3])
def test_every_engine_follows_a_remote_that_pushes_rekeys_or_ends(engines: Any, tag: int) -> None:
    messages = [content(BULK_SIZE + 3), b"small", content(BULK_SIZE), b"", content(BULK_SIZE)]
    frames = b"".join(engines[0](KEY, HEADER).seal(messages, tag=tag))
    assert frames == reference_frames(messages, tag)
    opened: list[bytes] = []
    engines[1](KEY, HEADER).open_frames(memoryview(frames), 0, opened)
    assert opened == messages


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("size", [0, 5, BULK_SIZE])
def test_any_kind_of_buffer_may_be_sealed(engines: Any, kind: Any, size: int) -> None:
    message = content(size)
    assert engines[0](KEY, HEADER).seal([kind(message)])[0] == reference_frames([message])


def test_a_batch_leaves_in_few_buffers_and_a_buffer_is_bounded() -> None:
    messages = [content(100)] * 10_000
    buffers = FastSealer(KEY, HEADER).seal(messages)
    assert len(buffers) == -(-10_000 * 120 // GROUP_SIZE)
    assert all(len(buffer) <= GROUP_SIZE + 120 for buffer in buffers)
    assert b"".join(buffers) == reference_frames(messages)


def test_a_part_of_a_frame_is_left_for_later(engines: Any) -> None:
    frames = reference_frames([b"one", b"two"])
    for cut in range(23, len(frames)):
        opened: list[bytes] = []
        opener = engines[1](KEY, HEADER)
        assert opener.open_frames(memoryview(frames[:cut]), 0, opened) == 23
        assert opened == [b"one"]
        assert opener.open_frames(memoryview(frames), 23, opened) == len(frames)
        assert opened == [b"one", b"two"]


@pytest.mark.parametrize("size", [3, BULK_SIZE + 3])
@pytest.mark.parametrize("where", [3, 4, -17, -1])
def test_any_changed_byte_fails_and_delivers_nothing(engines: Any, size: int, where: int) -> None:
    frames = bytearray(reference_frames([b"good", content(size)]))
    frames[where if where < 0 else 24 + where] ^= 1
    opened: list[bytes] = []
    with pytest.raises(ProtocolError, match="failed authentication"):
        engines[1](KEY, HEADER).open_frames(memoryview(frames), 0, opened)
    assert opened == [b"good"]


def test_a_length_outside_the_bounds_is_refused_as_soon_as_it_is_there(engines: Any) -> None:
    opener = engines[1](KEY, HEADER)
    with pytest.raises(ProtocolError, match="16 bytes, the least is 17"):
        opener.open_frames(memoryview(b"\x10\0\0"), 0, [])
    with pytest.raises(ProtocolError, match="1001 bytes, the limit is 1000"):
        opener.open_frames(memoryview((1001).to_bytes(3, "little")), 0, [], 1000)


def test_the_largest_message_fits_a_frame(engines: Any) -> None:
    message = bytes(MAX_MESSAGE)
    [frame] = engines[0](KEY, HEADER).seal([message])
    assert len(frame) == MAX_MESSAGE + FRAME_OVERHEAD
    assert frame[:3] == b"\xff\xff\xff"
    opened: list[bytes] = []
    engines[1](KEY, HEADER).open_frames(memoryview(frame), 0, opened)
    assert opened == [message]


def test_keys_and_headers_of_another_size_are_refused() -> None:
    for key, header in ((KEY[:31], HEADER), (KEY, HEADER[:23])):
        with pytest.raises(ValueError, match="secretstream takes"):
            FastSealer(key, header)


def test_old_versions_of_cryptography_work_without_reset_nonce(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = bulk_cipher.bulk_engine()
    assert engine is not None
    real = engine[0]

    class OldContext:
        def __init__(self, context: Any) -> None:
            self.update, self.update_into = context.update, context.update_into

    class OldCipher:
        def __init__(self, algorithm: Any, mode: Any) -> None:
            self._cipher = real(algorithm, mode)

        def encryptor(self) -> OldContext:
            return OldContext(self._cipher.encryptor())

    monkeypatch.setattr(cipher, "bulk_engine", lambda: (OldCipher, *engine[1:]))
    messages = [content(BULK_SIZE), content(BULK_SIZE + 1)]
    frames = b"".join(FastSealer(KEY, HEADER).seal(messages))
    assert frames == reference_frames(messages)


def test_without_cryptography_there_is_no_bulk_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.startswith("cryptography.hazmat.primitives"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert bulk_cipher.bulk_engine.__wrapped__() is None


def test_without_pointers_the_public_bindings_take_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sodium, "lib", None)
    sealer, opener = cipher.make_sealer(KEY, HEADER), cipher.make_opener(KEY, HEADER)
    assert isinstance(sealer, PlainSealer)
    assert isinstance(opener, PlainOpener)
    opened: list[bytes] = []
    for frame in sealer.seal([b"one", content(BULK_SIZE)]):
        opener.open_frames(memoryview(frame), 0, opened)
    assert opened == [b"one", content(BULK_SIZE)]


def test_with_pointers_the_fast_engines_are_chosen() -> None:
    assert isinstance(cipher.make_sealer(KEY, HEADER), FastSealer)
    assert isinstance(cipher.make_opener(KEY, HEADER), FastOpener)
