"""Key pairs and their files, discovery keys, namespaces, signatures (hypercore-crypto 3.7).

A key file holds the 32-byte seed as 64 lower-case hex digits and a newline, nothing else. Its mode
is 0600 (not looked at on Windows, where files have no such mode).
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Self

import nacl.bindings
import nacl.exceptions

from covey.errors import KeyFileError, UsageError

SEED_SIZE = 32
KEY_SIZE = 32

_FILE_SIZE = 2 * SEED_SIZE + 1
_FILE_PATTERN = re.compile(rb"[0-9a-fA-F]{64}\n")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_HAS_MODES = os.name == "posix"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An Ed25519 key pair. `repr` and comparison never show the secret half.

    `public_key` is the 32-byte point, `seed` the 32 secret bytes it comes from, `secret_key` the
    64 bytes `seed || public_key` that libsodium and the Node packages call by that name.
    """

    public_key: bytes
    seed: bytes = field(repr=False, compare=False)

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """The pair that belongs to 32 secret bytes; `UsageError` for another size."""
        if len(seed) != SEED_SIZE:
            raise UsageError(f"a key pair comes from {SEED_SIZE} bytes, not {len(seed)}")
        public_key, _ = nacl.bindings.crypto_sign_seed_keypair(bytes(seed))
        return cls(public_key, bytes(seed))

    @classmethod
    def generate(cls) -> Self:
        """A new random pair."""
        return cls.from_seed(os.urandom(SEED_SIZE))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The pair whose seed is in the file at `path`.

        Raises `KeyFileError` when the file is missing, is not a key file, or can be read or written
        by anyone but its owner.
        """
        file = Path(path)
        return cls.from_seed(_read_seed(file))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the seed to a new file of mode 0600 at `path`, complete or not at all.

        An existing file is never replaced: `KeyFileError`, also when the folder cannot be written.
        """
        file = Path(path)
        try:
            _create(file, self.seed)
        except FileExistsError as error:
            raise KeyFileError(f"{file} exists already; a key is never overwritten") from error
        except OSError as error:
            raise KeyFileError(f"cannot write the key file {file}: {error.strerror}") from error

    @classmethod
    def load_or_create(cls, path: str | os.PathLike[str]) -> Self:
        """The pair in the file at `path`; a new one is made and saved when there is no file.

        Processes that race all get the same pair. Missing folders are made, for the owner only.
        Raises `KeyFileError` as `load` and `save` do.
        """
        file = Path(path)
        if not os.path.lexists(file):
            pair = cls.generate()
            try:
                file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _create(file, pair.seed)
            except FileExistsError:
                pass  # another process was first: its key is the one
            except OSError as error:
                raise KeyFileError(f"cannot write the key file {file}: {error.strerror}") from error
            else:
                return pair
        return cls.load(file)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a key pair is not pickled: its secret stays in this process")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    @property
    def secret_key(self) -> bytes:
        """The 64 bytes `seed || public_key`."""
        return self.seed + self.public_key

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `message`."""
        return nacl.bindings.crypto_sign(message, self.secret_key)[:64]


def verify(message: bytes, signature: bytes, public_key: bytes) -> bool:
    """Whether `signature` is `public_key`'s over `message`."""
    if len(signature) != 64 or len(public_key) != KEY_SIZE:
        return False
    try:
        nacl.bindings.crypto_sign_open(signature + message, public_key)
    except nacl.exceptions.BadSignatureError:
        return False
    return True


def discovery_key(public_key: bytes) -> bytes:
    """The 32 bytes under which a log is found without telling its key."""
    return hashlib.blake2b(b"hypercore", digest_size=32, key=public_key).digest()


def namespace(name: str, index: int) -> bytes:
    """BLAKE2b-256 of (BLAKE2b-256 of `name`, then the byte `index`): a 32-byte domain separator."""
    inner = hashlib.blake2b(name.encode(), digest_size=32).digest()
    return hashlib.blake2b(inner + bytes([index]), digest_size=32).digest()


def _read_seed(file: Path) -> bytes:
    """The seed in `file`; what is checked is what was opened, whatever the name points to later."""
    # A pipe of that name must not make us wait for a writer.
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(file, flags)
    except FileNotFoundError as error:
        raise KeyFileError(f"there is no key file {file}") from error
    except OSError as error:
        raise KeyFileError(f"cannot read the key file {file}: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileError(f"{file} is not a key file, not even a file")
        if _HAS_MODES and status.st_mode & _OTHERS:
            raise KeyFileError(
                f"the key file {file} is open to others (mode {stat.S_IMODE(status.st_mode):04o}); "
                f"run: chmod 600 {file}, and make a new key if others may have read it"
            )
        text = os.read(descriptor, _FILE_SIZE + 1)
    finally:
        os.close(descriptor)
    if _FILE_PATTERN.fullmatch(text) is None:
        raise KeyFileError(
            f"{file} is not a key file: {2 * SEED_SIZE} hex digits and a newline are expected"
        )
    return bytes.fromhex(text[:-1].decode("ascii"))


def _create(file: Path, seed: bytes) -> None:
    """Make `file` with all of its content at once; `FileExistsError` when it is there already."""
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)  # 0600, O_EXCL
    draft = Path(name)
    try:
        with open(descriptor, "wb") as opened:  # noqa: PTH123
            opened.write(seed.hex().encode("ascii") + b"\n")
            opened.flush()
            os.fsync(descriptor)
        if _HAS_MODES:
            os.link(draft, file)  # unlike a rename it fails when the name is taken
        else:
            os.rename(draft, file)  # noqa: PTH104 (on Windows this fails when the name is taken)
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(file.parent)


def _sync_folder(folder: Path) -> None:
    if not _HAS_MODES:
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
