"""Who may sign a log, and the key that follows from it (`hypercore.md` sections 2 and 3).

Source: hypercore 11.37.1, `lib/verifier.js` and the manifest in `lib/messages.js`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from covey.errors import DecodeError, EncodeError, UsageError, VerifyError
from covey.feed.hashes import HASH_SIZE
from covey.keys import KEY_SIZE, namespace
from covey.wire.encoding import Codec, Reader, buffer, encode, encode_uint, fixed32, uint

DEFAULT_NAMESPACE = namespace("hypercore", 4)
"""The namespace of a signer that names none."""
MAX_VERSION = 3
"""Manifests of later versions are refused, as the reference does."""
MAX_SIGNERS = 1024
"""Signers of one log: each may cost an Ed25519 verification for every new head."""
MAX_LINKED = 1024
"""Keys of other logs in one manifest."""

_MANIFEST = namespace("hypercore", 3)
_PATCH, _PROLOGUE, _LINKED, _USER_DATA = 1, 2, 4, 8
_STATIC, _SINGLE, _MULTI = 0, 1, 2  # the types of version 0
_SIGNER_SIZE = 1 + 32 + KEY_SIZE


def _check_size(value: bytes, size: int, what: str) -> None:
    if not isinstance(value, bytes) or len(value) != size:
        raise UsageError(f"{what} is {size} bytes, not {value!r}")


@dataclass(frozen=True, slots=True)
class Signer:
    """One who may sign: an Ed25519 public key and the 32-byte namespace of its signatures."""

    public_key: bytes
    namespace: bytes = DEFAULT_NAMESPACE

    def __post_init__(self) -> None:
        """`UsageError` when a part does not have 32 bytes."""
        _check_size(self.public_key, KEY_SIZE, "the public key of a signer")
        _check_size(self.namespace, 32, "the namespace of a signer")


@dataclass(frozen=True, slots=True)
class Prologue:
    """The first `length` blocks of a log, fixed by their tree hash before anyone signs."""

    hash: bytes
    length: int

    def __post_init__(self) -> None:
        """`UsageError` when the hash does not have 32 bytes or the length is negative."""
        _check_size(self.hash, HASH_SIZE, "the hash of a prologue")
        if self.length < 0:
            raise UsageError(f"the length of a prologue is 0 or more, not {self.length}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """Who may sign a log; its hash is the key of the log.

    `quorum` signatures are needed; None stands for more than half of the signers and is replaced
    by that number. `allow_patch` lets signers be ahead of one another. `linked` (keys of other
    logs, None when there are none) and `user_data` need version 2 or 3.

    A manifest that was read from the wire may break the rules of the constructor: whether it
    belongs to a key is for `check_manifest`, and what cannot be satisfied never verifies.
    """

    version: int = 1
    quorum: int | None = None
    signers: tuple[Signer, ...] = ()
    allow_patch: bool = False
    prologue: Prologue | None = None
    linked: tuple[bytes, ...] | None = None
    user_data: bytes | None = None

    def __post_init__(self) -> None:
        """`UsageError` for a manifest that cannot be written, or that nobody could satisfy."""
        object.__setattr__(self, "signers", tuple(self.signers))
        object.__setattr__(self, "linked", tuple(self.linked or ()) or None)
        if self.quorum is None:
            count = len(self.signers)
            object.__setattr__(self, "quorum", count // 2 + 1 if count else 0)
        self._check_signers()
        self._check_version()

    def _check_signers(self) -> None:
        if not 0 <= self.required <= len(self.signers) <= MAX_SIGNERS:
            raise UsageError(
                f"{len(self.signers)} signers cannot give {self.required} signatures, "
                f"or are more than {MAX_SIGNERS}"
            )
        for key in self.linked or ():
            _check_size(key, KEY_SIZE, "a linked key")
        if self.linked is not None and len(self.linked) > MAX_LINKED:
            raise UsageError(f"a manifest links at most {MAX_LINKED} logs, not {len(self.linked)}")

    def _check_version(self) -> None:
        if self.version not in range(MAX_VERSION + 1):
            raise UsageError(f"manifests have version 0 to {MAX_VERSION}, not {self.version}")
        if self.version < 2 and (self.linked is not None or self.user_data is not None):
            raise UsageError("linked keys and user data need a manifest of version 2")
        prologue = self.prologue
        if self.version == 0 and prologue is not None and (self.signers or prologue.length):
            raise UsageError("a manifest of version 0 has a prologue of length 0, or signers")

    @property
    def required(self) -> int:
        """`quorum` as a number: signatures that a head needs."""
        return self.quorum or 0

    @property
    def key(self) -> bytes:
        """The 32-byte key of the log; computed anew at each call (a compat log has another)."""
        return blake2b(_MANIFEST + encode(manifest_codec, self), digest_size=32).digest()


def default_manifest(public_key: bytes, *, version: int = 1) -> Manifest:
    """The manifest of a log that has one signer. `UsageError` when the key is not 32 bytes."""
    return Manifest(version=version, signers=(Signer(public_key),))


def is_compat(manifest: Manifest | None, key: bytes) -> bool:
    """Whether the log `key` is named by the public key of its only signer, as logs once were.

    True also without a manifest: nothing else can be known then.
    """
    if manifest is None:
        return True
    return len(manifest.signers) == 1 and manifest.signers[0].public_key == key


def check_manifest(manifest: Manifest, key: bytes) -> None:
    """`VerifyError` unless `manifest` is that of the log `key`: by its hash, or compat."""
    if not is_compat(manifest, key) and manifest.key != key:
        raise VerifyError(f"the manifest is that of another log, not of {key.hex()}")


def _from_wire(**fields: Any) -> Manifest:
    """A manifest as it was received: the rules for new ones are not those for existing ones."""
    manifest = object.__new__(Manifest)
    for name, value in fields.items():
        object.__setattr__(manifest, name, value)
    return manifest


def _read_count(reader: Reader, size: int, most: int, what: str) -> int:
    count = reader.take_count(size)
    if count > most:
        raise DecodeError(f"{count} {what} in a manifest, at most {most} are read")
    return count


def _read_zero(reader: Reader, what: str) -> None:
    number = uint.decode_from(reader)
    if number != 0:
        raise DecodeError(f"unknown {what} in a manifest: {number}")


def _read_signer(reader: Reader) -> Signer:
    _read_zero(reader, "kind of signature")
    own_namespace = fixed32.decode_from(reader)
    return Signer(bytes(fixed32.decode_from(reader)), bytes(own_namespace))


def _read_signers(reader: Reader) -> tuple[Signer, ...]:
    count = _read_count(reader, _SIGNER_SIZE, MAX_SIGNERS, "signers")
    return tuple([_read_signer(reader) for _ in range(count)])


def _read_linked(reader: Reader) -> tuple[bytes, ...]:
    count = _read_count(reader, KEY_SIZE, MAX_LINKED, "linked keys")
    return tuple([bytes(fixed32.decode_from(reader)) for _ in range(count)])


def _read_prologue(reader: Reader) -> Prologue:
    return Prologue(bytes(fixed32.decode_from(reader)), uint.decode_from(reader))


def _write_signer(out: bytearray, signer: Signer) -> None:
    out += b"\0" + signer.namespace + signer.public_key


def _write_signers(out: bytearray, signers: Sequence[Signer]) -> None:
    out += encode_uint(len(signers))
    for signer in signers:
        _write_signer(out, signer)


def _write_oldest(out: bytearray, manifest: Manifest) -> None:
    """Version 0, after its version number."""
    out += b"\0"  # blake2b
    if manifest.prologue is not None and not manifest.signers:
        out += bytes([_STATIC]) + manifest.prologue.hash
    elif manifest.required == 1 and len(manifest.signers) == 1 and not manifest.allow_patch:
        out += bytes([_SINGLE])
        _write_signer(out, manifest.signers[0])
    else:
        out += bytes([_MULTI, manifest.allow_patch]) + encode_uint(manifest.required)
        _write_signers(out, manifest.signers)


def _read_oldest(reader: Reader) -> Manifest:
    """Version 0, after its version number."""
    _read_zero(reader, "hash")
    kind = uint.decode_from(reader)
    fields: dict[str, Any] = {"allow_patch": False, "prologue": None, "signers": (), "quorum": 0}
    if kind == _STATIC:
        fields["prologue"] = Prologue(bytes(fixed32.decode_from(reader)), 0)
    elif kind == _SINGLE:
        fields |= {"quorum": 1, "signers": (_read_signer(reader),)}
    elif kind == _MULTI:
        fields["allow_patch"] = uint.decode_from(reader) & _PATCH != 0
        fields["quorum"] = uint.decode_from(reader)
        fields["signers"] = _read_signers(reader)
    else:
        raise DecodeError(f"unknown type of a manifest: {kind}")
    return _from_wire(version=0, linked=None, user_data=None, **fields)


class ManifestCodec(Codec[Manifest]):
    """A manifest on the wire, versions 0 to 3. What is written for it gives the key its hash."""

    __slots__ = ()
    minimum = 4

    def encode_into(self, out: bytearray, value: Manifest) -> None:
        """Append the manifest; `EncodeError` when it is none."""
        if not isinstance(value, Manifest):
            raise EncodeError(f"a manifest is wanted, not {type(value).__name__}")
        out += encode_uint(value.version)
        if value.version == 0:
            _write_oldest(out, value)
            return
        flags = _PATCH if value.allow_patch else 0
        flags |= _PROLOGUE if value.prologue is not None else 0
        flags |= _LINKED if value.linked is not None else 0
        flags |= _USER_DATA if value.user_data is not None else 0
        out += bytes([flags, 0]) + encode_uint(value.required)  # 0: blake2b
        _write_signers(out, value.signers)
        if value.prologue is not None:
            out += value.prologue.hash + encode_uint(value.prologue.length)
        if value.linked is not None:
            out += encode_uint(len(value.linked)) + b"".join(value.linked)
        if value.user_data is not None:
            buffer.encode_into(out, value.user_data)

    def decode_from(self, reader: Reader) -> Manifest:
        """Take one; `DecodeError` for unknown versions, hashes and signatures, and too many."""
        version = uint.decode_from(reader)
        if version == 0:
            return _read_oldest(reader)
        if version > MAX_VERSION:
            raise DecodeError(f"unknown version of a manifest: {version}")
        flags = uint.decode_from(reader)
        _read_zero(reader, "hash")
        return _from_wire(
            version=version,
            allow_patch=flags & _PATCH != 0,
            quorum=uint.decode_from(reader),
            signers=_read_signers(reader),
            prologue=_read_prologue(reader) if flags & _PROLOGUE else None,
            # What is empty keeps its flag when written again: the hash depends on it.
            linked=_read_linked(reader) if flags & _LINKED else None,
            user_data=bytes(buffer.decode_from(reader)) if flags & _USER_DATA else None,
        )


manifest_codec = ManifestCodec()
