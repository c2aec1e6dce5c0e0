"""Users of the store: what each role's processes may do there, spelled as rules of an access control list. Pure."""

import hashlib

from meshwright.core.audit import COUNT, LINES, TENANTS
from meshwright.core.role import Role
from meshwright.core.store import MESH, NOUNS, key_patterns, partition_key

ADMIN = "mw-admin"
"""Loads functions, and does what is done by hand; no process of the mesh is it."""
COMMANDS = frozenset(
    """
    fcall function|list ping info select client|setinfo ssubscribe sunsubscribe spublish
    get set del unlink exists incr incrby decrby pexpire pttl time
    hget hset hsetnx hdel hexists hgetall hincrby hkeys hvals hlen hmget
    sadd srem smembers srandmember
    zadd zrem zcard zscore zrange zrangebyscore zrevrange zincrby zpopmin zremrangebyrank zremrangebyscore
    xadd xdel xrange xrevrange
    """.split()  # noqa: SIM905 - reads better than a list of quoted words
)
"""All that processes and the store's functions use: a function runs with the rights of whoever calls it."""
ANY, NUMBERED = "*", "[0-9]*"
"""Partitions: all of them, and those that tasks lie in."""
CATALOG = frozenset(
    {"instances", "leases", "revision", "changes", "wake", "tool", "tools", "hosts", "aliases", "sunsets", "issuer"}
)
"""Nouns of the registry; agents have leases and wakers of their own, in numbered partitions."""
APPENDING: tuple[tuple[str, tuple[str, ...]], ...] = (
    (f"*:{LINES}", ("lindex", "rpush")),
    (f"*:{COUNT}", ("incr",)),
    (TENANTS, ("sadd",)),
)
"""What whoever writes lines of the audit may do there, by names of keys: nothing that deletes or replaces one."""
TRIMMING: tuple[tuple[str, tuple[str, ...]], ...] = (
    (f"*:{LINES}", ("llen", "lrange", "ltrim")),
    (TENANTS, ("fcall", "sscan")),
)
"""What the registry may do there besides, in every partition."""
HOST = frozenset({"ledger", "quota", "seal"})
"""Nouns of whoever hosts tools, agents among them."""
DOOR = frozenset({"apikey", "apikeys", "edge", "revoked"})
"""Nouns of the gateway: API keys, which were revoked, and the public keys by which it signs who is calling."""
HEARD = frozenset({"wake", "tail"})
"""Nouns that are channels as well."""
SHARED = frozenset({"leases", "wake"})
AGENT = NOUNS - CATALOG - DOOR - {"partitions", "audit"}
RIGHTS: dict[Role, tuple[tuple[str, frozenset[str]], ...]] = {
    Role.GATEWAY: ((MESH, DOOR),),
    Role.REGISTRY: ((MESH, CATALOG | {"edge"}),),
    Role.TOOL: ((ANY, HOST),),
    Role.AGENT: ((ANY, AGENT), (NUMBERED, SHARED)),
}
"""Which nouns a role reads and writes, and in which partitions."""
AUDITED: dict[Role, str] = {Role.GATEWAY: MESH, Role.REGISTRY: ANY, Role.TOOL: NUMBERED, Role.AGENT: NUMBERED}
"""In which partitions a role writes lines of the audit."""
READS: dict[Role, tuple[str, ...]] = {
    Role.GATEWAY: ("partitions",),
    Role.REGISTRY: ("partitions", "revoked"),
    Role.TOOL: ("partitions",),
    Role.AGENT: ("partitions", "revoked"),
}
"""Which nouns of the mesh a role only reads; streams of callers from outside end by what was revoked."""

SEES: dict[Role, tuple[str, ...]] = {Role.TOOL: ("task",)}
"""Nouns of which a role only asks whether they are there: a host of tools, for content older than its key."""


def user_of(role: Role) -> str:
    """Names a role's user."""
    return f"mw-{role}"


def rules(role: Role) -> list[str]:
    """Lists what a role's user may do: commands, keys, channels; nothing else."""
    keys = [f"%R~{pattern}" for noun in READS[role] for pattern in key_patterns(MESH, noun)]
    channels: list[str] = []
    for slots, nouns in RIGHTS[role]:
        for noun in sorted(nouns):
            patterns = key_patterns(slots, noun)
            keys += [f"~{pattern}" for pattern in patterns]
            channels += [f"&{pattern}" for pattern in patterns if noun in HEARD]
    return [
        "resetkeys",
        "resetchannels",
        "-@all",
        *(f"+{command}" for command in sorted(COMMANDS)),
        *keys,
        *channels,
        *auditing(role),
        *(f"({' '.join(f'~{pattern}' for pattern in key_patterns(ANY, noun))} +exists)" for noun in SEES.get(role, ())),
    ]


def auditing(role: Role) -> list[str]:
    """Spells what a role's user may do to the audit, apart from what it may do to other keys."""
    granted = (*APPENDING, *(TRIMMING if role is Role.REGISTRY else ()))
    return [
        f"(~{key} {' '.join(f'+{command}' for command in commands)})"
        for name, commands in granted
        for key in [partition_key(AUDITED[role], "audit", name)]
    ]


def acl_lines(passwords: dict[str, str]) -> list[str]:
    """Spells an ACL file: the users whose passwords are given, and nobody else.

    Args:
        passwords: By user name, `ADMIN` among them; only their SHA-256 stands in the lines.
    """
    roles = {user_of(role): role for role in RIGHTS}
    lines = ["user default reset"]
    for user, password in passwords.items():
        granted = rules(roles[user]) if user in roles else ["~*", "&*", "+@all"]
        lines.append(f"user {user} on #{hashlib.sha256(password.encode()).hexdigest()} {' '.join(granted)}")
    return lines
