from __future__ import annotations

from typing import Any

import pytest

from covey.errors import UsageError
from covey.keys import discovery_key, namespace
from covey.store.derivation import (
    ROOT_NAMESPACE,
    core_key_of,
    key_pair_of,
    namespace_of,
    seed_of,
)
from tests.vectors_path import load_vectors

VECTORS = load_vectors("corestore-keys")


def namespace_at(path: list[str]) -> bytes:
    found = ROOT_NAMESPACE
    for name in path:
        found = namespace_of(found, name)
    return found


def test_the_domain_of_seeds() -> None:
    assert namespace("corestore", 0).hex() == VECTORS["NS"]


@pytest.mark.parametrize("case", VECTORS["cases"])
def test_names_give_the_keys_of_the_original(case: dict[str, Any]) -> None:
    primary_key = bytes.fromhex(case["primaryKey"])
    parent = namespace_at(case["namespacePath"])
    assert parent.hex() == case["namespace"]
    seed = seed_of(primary_key, parent, case["name"])
    pair = key_pair_of(primary_key, parent, case["name"])
    key = core_key_of(pair.public_key)
    assert (seed.hex(), pair.seed) == (case["secretSeed"], seed)
    assert pair.public_key.hex() == case["publicKey"]
    assert key.hex() == case["coreKey"]
    if case["discoveryKey"] is not None:
        assert discovery_key(key).hex() == case["discoveryKey"]


def test_the_version_of_the_manifest_is_in_the_key_and_not_in_the_pair() -> None:
    pair = key_pair_of(bytes(32), ROOT_NAMESPACE, "a")
    assert len({core_key_of(pair.public_key, version=version) for version in range(4)}) >= 3
    assert core_key_of(pair.public_key) == core_key_of(pair.public_key, version=1)


def test_names_are_not_normalised() -> None:
    composed, decomposed = "\u00e9", "e\u0301"
    assert seed_of(bytes(32), ROOT_NAMESPACE, composed) != seed_of(
        bytes(32), ROOT_NAMESPACE, decomposed
    )


@pytest.mark.parametrize("name", ["\ud800", b"bytes", None], ids=repr)
def test_a_name_is_text(name: str) -> None:
    with pytest.raises(UsageError):
        namespace_of(ROOT_NAMESPACE, name)
    with pytest.raises(UsageError):
        seed_of(bytes(32), ROOT_NAMESPACE, name)


def test_keys_of_a_wrong_size_are_refused_and_not_shown() -> None:
    secret = b"secret" * 5
    with pytest.raises(UsageError) as caught:
        seed_of(secret, ROOT_NAMESPACE, "a")
    assert "secret" not in str(caught.value)
    with pytest.raises(UsageError):
        seed_of(bytes(32), b"", "a")
    with pytest.raises(UsageError):
        namespace_of(bytes(31), "a")
    with pytest.raises(UsageError):
        core_key_of(bytes(31))
