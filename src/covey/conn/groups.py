"""Members by group name, the least recently used of a group first."""

from __future__ import annotations

from collections import OrderedDict


class Groups:
    """Sets of texts by name, each in order of last use; every step costs the same at any size.

    Most groups have one member: that one is kept without a table of its own.
    """

    __slots__ = ("_groups",)

    def __init__(self) -> None:
        self._groups: dict[str, str | OrderedDict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def add(self, name: str, member: str) -> None:
        """Put a new member into the group `name`, as the most recently used."""
        group = self._groups.get(name)
        if group is None:
            self._groups[name] = member
        elif isinstance(group, str):
            self._groups[name] = OrderedDict.fromkeys((group, member))
        else:
            group[member] = None

    def touch(self, name: str, member: str) -> None:
        """Mark a member as the most recently used."""
        group = self._groups[name]
        if not isinstance(group, str):
            group.move_to_end(member)

    def remove(self, name: str, member: str) -> None:
        """Take a member out; an empty group is gone."""
        group = self._groups[name]
        if isinstance(group, str):
            del self._groups[name]
            return
        del group[member]
        if not group:
            del self._groups[name]

    def oldest_if_full(self, name: str, limit: int) -> str | None:
        """The least recently used member when the group holds `limit` or more."""
        group = self._groups.get(name)
        if group is None:
            return None
        if isinstance(group, str):
            return group if limit <= 1 else None
        return next(iter(group)) if len(group) >= limit else None

    def clear(self) -> None:
        """Forget everything."""
        self._groups.clear()
