"""Candidates and connections: the staging pool and the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from covey._lazy import lazy_names

if TYPE_CHECKING:
    from covey.conn.hub import Hub
    from covey.conn.hub_entry import HubEntry
    from covey.conn.hub_events import (
        Connected,
        Connecting,
        ConnectingFailed,
        Disconnected,
        Disconnecting,
        DisconnectingFailed,
        EntryState,
        HubEvent,
        SessionEnd,
        SessionStart,
        Via,
    )
    from covey.conn.sessions import Dialler, HubSession, Link, TieBreak, keep_smaller_dialler
    from covey.conn.staging import (
        Staged,
        StagedEntry,
        Staging,
        StagingEvent,
        Unstaged,
        UnstageReason,
    )
    from covey.conn.story import Failure, History, Story, StoryLine

_HOMES: Final = {
    "covey.conn.hub": ("Hub",),
    "covey.conn.hub_entry": ("HubEntry",),
    "covey.conn.hub_events": (
        "Connected",
        "Connecting",
        "ConnectingFailed",
        "Disconnected",
        "Disconnecting",
        "DisconnectingFailed",
        "HubEvent",
        "SessionEnd",
        "SessionStart",
        "EntryState",
        "Via",
    ),
    "covey.conn.sessions": (
        "Dialler",
        "Link",
        "HubSession",
        "TieBreak",
        "keep_smaller_dialler",
    ),
    "covey.conn.staging": (
        "Staged",
        "StagedEntry",
        "Staging",
        "StagingEvent",
        "UnstageReason",
        "Unstaged",
    ),
    "covey.conn.story": (
        "Failure",
        "History",
        "Story",
        "StoryLine",
    ),
}

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = [
    "Connected",
    "Connecting",
    "ConnectingFailed",
    "Dialler",
    "Disconnected",
    "Disconnecting",
    "DisconnectingFailed",
    "EntryState",
    "Failure",
    "History",
    "Hub",
    "HubEntry",
    "HubEvent",
    "HubSession",
    "Link",
    "SessionEnd",
    "SessionStart",
    "Staged",
    "StagedEntry",
    "Staging",
    "StagingEvent",
    "Story",
    "StoryLine",
    "TieBreak",
    "UnstageReason",
    "Unstaged",
    "Via",
    "keep_smaller_dialler",
]
