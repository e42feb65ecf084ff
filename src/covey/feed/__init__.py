"""Signed logs as pure data: tree, proofs, signatures, messages. No sockets, clocks or files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from covey._lazy import lazy_names

if TYPE_CHECKING:
    from covey.feed.encryption import BlockCipher
    from covey.feed.hashes import Node
    from covey.feed.manifest import (
        Manifest,
        Prologue,
        Signer,
        check_manifest,
        default_manifest,
        manifest_codec,
    )
    from covey.feed.signatures import Authority, Part, signable_length

_HOMES: Final = {
    "covey.feed.encryption": ("BlockCipher",),
    "covey.feed.hashes": ("Node",),
    "covey.feed.manifest": (
        "Manifest",
        "Prologue",
        "Signer",
        "check_manifest",
        "default_manifest",
        "manifest_codec",
    ),
    "covey.feed.signatures": ("Authority", "Part", "signable_length"),
}

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = [
    "Authority",
    "BlockCipher",
    "Manifest",
    "Node",
    "Part",
    "Prologue",
    "Signer",
    "check_manifest",
    "default_manifest",
    "manifest_codec",
    "signable_length",
]
