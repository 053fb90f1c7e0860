"""What a hostile request is: a function of a target that returns the answer in words. The lists are in
attacks_on_transport.py and attacks_on_services.py.

Servers may hang up on what they can't read, but a request that can be understood as a call gets a
status, and one that reaches the grid's own code a typed one. `expected` names the answers that are in
order: one of them has to occur in what came back.
"""

import dataclasses
import random
from collections.abc import Callable

from wire import ACK, PREFACE, SETTINGS, Connection, frame, grpc_headers

# Random bytes that are the same in every run.
NOISE = random.Random(20)

ALL = ("extension", "catalog", "region-node")
EXTENSION = ("extension",)
SERVERS = ("catalog", "region-node")

# A connection that can't be saved: the server says so, or just closes it.
HANGS_UP = ("goaway", "closed", "reset", "HTTP/1.1 4", "HTTP 4")
# A call that can't be read, refused by the HTTP/2 or gRPC layer. 12 is UNIMPLEMENTED, 13 INTERNAL, 3
# INVALID_ARGUMENT, 8 RESOURCE_EXHAUSTED, 11 OUT_OF_RANGE, 7 PERMISSION_DENIED, 5 NOT_FOUND.
REFUSES = (*HANGS_UP, *(f"grpc-status {code}" for code in (3, 5, 7, 8, 11, 12, 13)))
INVALID = ("INVALID_ARGUMENT KEY_", "INVALID_ARGUMENT REQUEST_MALFORMED", "INVALID_ARGUMENT INVALID_REQUEST")
UNKNOWN = ("NOT_FOUND UNKNOWN_TYPE", "UNIMPLEMENTED")
TOO_LARGE = ("RESOURCE_EXHAUSTED", "OUT_OF_RANGE")
STRANGER = ("PERMISSION_DENIED NOT_A_PEER",)


@dataclasses.dataclass(frozen=True)
class Attack:
    name: str
    roles: tuple[str, ...]
    expected: tuple[str, ...]
    run: Callable


ATTACKS: list[Attack] = []


def attack(name, roles, *expected):
    """Adds a function of a target to the list."""

    def add(run):
        ATTACKS.append(Attack(name, roles, expected, run))
        return run

    return add


def raw(name, data, *expected, roles=ALL):
    """An attack that connects, sends `data` and listens."""

    @attack(name, roles, *expected)
    def _(target):
        with Connection(target.address) as connection:
            return connection.send(data).answer()


def call(name, path, body, *expected, roles=EXTENSION, metadata=()):
    """An attack that is one gRPC call with chosen bytes."""

    @attack(name, roles, *expected)
    def _(target):
        return target.call(path, body() if callable(body) else body, metadata)


def started(*frames):
    return PREFACE + frame(SETTINGS) + frame(SETTINGS, ACK) + b"".join(frames)


def framed(name, body, *expected, headers=None, path=None, roles=ALL, seconds=5.0, end=True):
    """An attack that is one HTTP/2 request with chosen headers and body."""

    @attack(name, roles, *expected)
    def _(target):
        chosen = headers if headers is not None else grpc_headers(path or target.path)
        with Connection(target.address) as connection:
            connection.start().request(1, chosen, body, end=end)
            return connection.answer(seconds=seconds)
