"""Key pairs: values of hypercore-crypto, files that nobody else can read, secrets that stay."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from covey.errors import KeyFileError, UsageError
from covey.keys import KeyPair, discovery_key, namespace, verify

SEED = b"\x31" * 32
PUBLIC = "48075a597e721a156e2e0799de5cc0c5324dc6e7eaf1cdd46250868ec53215dd"
posix = pytest.mark.skipif(os.name != "posix", reason="files have no mode here")


@pytest.mark.parametrize(
    ("seed", "public_key"),
    [
        (b"\x31" * 32, PUBLIC),
        (b"\x32" * 32, "5e212c0980e4b39fc09721134aa02109374edfd260c0d3d03cb501c8d65457a9"),
    ],
)
def test_key_pair_from_a_seed_is_what_node_makes(seed: bytes, public_key: str) -> None:
    pair = KeyPair.from_seed(seed)
    assert pair.public_key.hex() == public_key
    assert pair.secret_key == seed + bytes.fromhex(public_key)


@pytest.mark.parametrize(
    ("public_key", "expected"),
    [
        (PUBLIC, "d1d939389136338d1a0f2d90774d3c64ae42bf1e28b8c042176a35059fcd1ad2"),
        (
            "5e212c0980e4b39fc09721134aa02109374edfd260c0d3d03cb501c8d65457a9",
            "4a7bcae09972163ec2ce4fbb349d7408b7321c56d990f7187b3276d49e19e0aa",
        ),
        (
            "966b8cba146ed72dd266dfb34cdd5f804e288dcb8ed2dde777180977a49881b5",
            "f7494cbb0bb0fd101766c17a165313cd6a2a9dd59aa80be84b8d33e1d118b670",
        ),
    ],
)
def test_discovery_key_is_what_node_makes(public_key: str, expected: str) -> None:
    assert discovery_key(bytes.fromhex(public_key)).hex() == expected


@pytest.mark.parametrize(
    ("name", "index", "expected"),
    [
        ("hypercore", 0, "9fac70b50ca14efc4e91c833b204e75b8b5aad8b5881bfc0adb5ef38a3275b9c"),
        ("hypercore", 1, "51812a2a359b50369536775df89e18e47740f3db72ac0ae70b29594c194dc316"),
        ("hypercore", 2, "0438492d02970cc13528ac0262bca0074e0926260256865accc0bf15bd79127d"),
        ("hypercore", 3, "e64b7108eacce47cfc61ac850568f55f8b15b82ec5ed78c4ec597b036e2a1498"),
        ("corestore", 0, "ac5c4cbfb1064776404637a280c71fac823281d351ebeced03151743270def29"),
    ],
)
def test_namespace_is_what_node_makes(name: str, index: int, expected: str) -> None:
    assert namespace(name, index).hex() == expected


def test_signature_is_verified_and_nothing_else_is() -> None:
    pair = KeyPair.from_seed(SEED)
    signature = pair.sign(b"message")
    assert len(signature) == 64
    assert verify(b"message", signature, pair.public_key)
    assert not verify(b"other", signature, pair.public_key)
    assert not verify(b"message", signature[:-1] + b"\0", pair.public_key)
    assert not verify(b"message", signature, KeyPair.generate().public_key)
    assert not verify(b"message", signature[:-1], pair.public_key)
    assert not verify(b"message", signature, pair.public_key[:-1])


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_seed_of_another_size_is_refused_without_telling_it(size: int) -> None:
    with pytest.raises(UsageError, match=f"not {size}") as caught:
        KeyPair.from_seed(b"s" * size)
    assert "sss" not in str(caught.value)


def test_a_saved_pair_comes_back(tmp_path: Path) -> None:
    pair = KeyPair.generate()
    pair.save(tmp_path / "key")
    assert KeyPair.load(tmp_path / "key").secret_key == pair.secret_key
    assert (tmp_path / "key").read_text() == pair.seed.hex() + "\n"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


@posix
def test_the_file_is_for_its_owner_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        KeyPair.load_or_create(tmp_path / "folder" / "key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "folder" / "key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o700


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666])
def test_a_file_open_to_others_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "key"
    KeyPair.from_seed(SEED).save(file)
    file.chmod(mode)
    for load in (KeyPair.load, KeyPair.load_or_create):
        with pytest.raises(KeyFileError, match="chmod 600") as caught:
            load(file)
        assert SEED.hex() not in str(caught.value)
    file.chmod(0o600)
    assert KeyPair.load(file) == KeyPair.from_seed(SEED)


@posix
def test_modes_stricter_than_0600_are_fine(tmp_path: Path) -> None:
    KeyPair.from_seed(SEED).save(tmp_path / "key")
    (tmp_path / "key").chmod(0o400)
    assert KeyPair.load(tmp_path / "key").seed == SEED


@pytest.mark.parametrize(
    "content",
    [
        b"",
        SEED,
        SEED.hex().encode(),
        SEED.hex().encode() + b"\r\n",
        SEED.hex().encode() + b"\n\n",
        SEED.hex().encode()[:-2] + b"\n",
        b"zz" * 32 + b"\n",
        b"31 " * 21 + b"3\n",
        b"\xff" * 65,
        bytes(1 << 20),
    ],
    ids=range(10),
)
def test_what_is_not_a_key_file_is_refused_without_quoting_it(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(KeyFileError, match="not a key file") as caught:
        KeyPair.load(file)
    assert "3131" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert file.read_bytes() == content


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="no key file"):
        KeyPair.load(tmp_path / "key")


def test_a_folder_is_no_key_file(tmp_path: Path) -> None:
    for load in (KeyPair.load, KeyPair.load_or_create):
        with pytest.raises(KeyFileError):
            load(tmp_path)


@posix
def test_a_pipe_is_no_key_file_and_nobody_waits_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key", 0o600)
    with pytest.raises(KeyFileError, match="not even a file"):
        KeyPair.load(tmp_path / "key")


def test_an_existing_key_is_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "key"
    first = KeyPair.generate()
    first.save(file)
    with pytest.raises(KeyFileError, match="never overwritten"):
        KeyPair.generate().save(file)
    assert KeyPair.load(file) == first
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


@posix
def test_a_dangling_link_is_not_followed_to_make_a_key_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyFileError):
        KeyPair.load_or_create(tmp_path / "key")
    assert not (tmp_path / "elsewhere").exists()


def test_saving_where_nothing_can_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot write"):
        KeyPair.generate().save(tmp_path / "missing" / "key")


def test_a_failed_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(KeyFileError, match="No space left"):
        KeyPair.generate().save(tmp_path / "key")
    assert list(tmp_path.iterdir()) == []


def test_load_or_create_keeps_the_key(tmp_path: Path) -> None:
    first = KeyPair.load_or_create(tmp_path / "a" / "b" / "key")
    assert KeyPair.load_or_create(tmp_path / "a" / "b" / "key").secret_key == first.secret_key


def test_threads_that_race_get_the_same_key(tmp_path: Path) -> None:
    for attempt in range(20):
        file = tmp_path / f"key{attempt}"
        with ThreadPoolExecutor(8) as pool:
            pairs = list(pool.map(lambda _, file=file: KeyPair.load_or_create(file), range(8)))
        assert len({pair.secret_key for pair in pairs}) == 1


def test_processes_that_race_get_the_same_key(tmp_path: Path) -> None:
    code = (
        "import sys; from covey.keys import KeyPair; sys.stdout.write('r'); sys.stdout.flush();"
        "sys.stdin.read(); print(KeyPair.load_or_create(sys.argv[1]).public_key.hex())"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "key")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.read(1) == "r"
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    outputs = {process.communicate(timeout=30)[0] for process in processes}
    assert outputs == {KeyPair.load(tmp_path / "key").public_key.hex() + "\n"}


def test_the_loser_of_a_race_takes_the_winners_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, winner = tmp_path / "key", KeyPair.generate()
    real_link = os.link

    def link_after_the_winner(draft: Path, name: Path) -> None:
        monkeypatch.setattr(os, "link", real_link)
        winner.save(file)
        real_link(draft, name)

    monkeypatch.setattr(os, "link", link_after_the_winner)
    assert KeyPair.load_or_create(file).secret_key == winner.secret_key
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_the_secret_shows_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    pair = KeyPair.from_seed(b"topsecret-topsecret-topsecret-!!")
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("covey.test").warning("%s %r", pair, pair)
    shown = f"{pair} {pair!r} {[pair]} {caplog.text}"
    assert "topsecret" not in shown
    assert pair.seed.hex() not in shown
    assert repr(pair.public_key) in shown


def test_a_pair_is_never_pickled() -> None:
    pair = KeyPair.generate()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="secret"):
            pickle.dumps(pair, protocol)
    assert copy.copy(pair) is pair
    assert copy.deepcopy([pair]) == [pair]


def test_pairs_compare_and_hash_by_the_public_half() -> None:
    pair = KeyPair.from_seed(SEED)
    assert {pair, KeyPair.from_seed(SEED)} == {pair}
    assert pair == KeyPair(pair.public_key, b"x" * 32)
    assert pair != KeyPair.generate()
