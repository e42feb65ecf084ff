from __future__ import annotations

import random

from covey.conn.groups import Groups


def test_the_least_recently_used_comes_first_and_empty_groups_are_gone() -> None:
    groups = Groups()
    groups.add("a", "1")
    groups.touch("a", "1")
    assert groups.oldest_if_full("a", 2) is None
    assert groups.oldest_if_full("a", 1) == "1"
    groups.add("a", "2")
    groups.add("a", "3")
    groups.touch("a", "1")
    assert groups.oldest_if_full("a", 3) == "2"
    assert groups.oldest_if_full("a", 4) is None
    for member in "123":
        groups.remove("a", member)
    assert len(groups) == 0
    assert groups.oldest_if_full("a", 1) is None


def test_random_use_agrees_with_plain_lists() -> None:
    chance = random.Random(1)
    groups, model = Groups(), dict[str, list[str]]()
    for _ in range(5000):
        name, member = chance.choice("ab"), str(chance.randrange(5))
        members = model.setdefault(name, [])
        if member not in members:
            groups.add(name, member)
            members.append(member)
        elif chance.random() < 0.5:
            groups.touch(name, member)
            members.remove(member)
            members.append(member)
        else:
            groups.remove(name, member)
            members.remove(member)
        assert groups.oldest_if_full(name, 1) == (members[0] if members else None)
