"""Calls that gRPC carries and the grid has to refuse: of clients, of strangers and of broken peers."""

from attack import EXTENSION, INVALID, NOISE, STRANGER, TOO_LARGE, UNKNOWN, attack, call
from wire import Connection, grpc_headers, grpc_message, protobuf

# Calls that gRPC carries and the grid has to refuse ---------------------------------------------------

call("an unknown type", "/no.such.Type/Do", protobuf((1, "a")), *UNKNOWN)
call("an unknown method", "/counter.v1.Counter/Nope", protobuf((1, "a")), "UNIMPLEMENTED UNKNOWN_METHOD")
call("a type of 10 kB", f"/{'a' * 5_000}.{'B' * 5_000}/Do", b"", *UNKNOWN, *INVALID, "RESOURCE_EXHAUSTED")
call("no key", "/counter.v1.Counter/Get", b"", "INVALID_ARGUMENT KEY_MISSING")
call("an empty key", "/counter.v1.Counter/Get", b"\x0a\x00", "INVALID_ARGUMENT KEY_MISSING")
call(
    "a key of 10 kB", "/counter.v1.Counter/Get", protobuf((1, "k" * 10_000)), "INVALID_ARGUMENT KEY_MALFORMED"
)
call(
    "a key with control characters",
    "/counter.v1.Counter/Get",
    protobuf((1, "a\n\0b")),
    "INVALID_ARGUMENT KEY_MALFORMED",
)
call("a key that is no UTF-8", "/counter.v1.Counter/Get", protobuf((1, b"\xff\xfe")), *INVALID)
call("a key field that is a number", "/counter.v1.Counter/Get", protobuf((1, 7)), *INVALID)
call(
    "a key of 10 kB in the metadata",
    "/counter.v1.Counter/Get",
    b"",
    *INVALID,
    "RESOURCE_EXHAUSTED",
    metadata=(("afdg-key", "k" * 10_000),),
)
call("a request of random bytes", "/counter.v1.Counter/Add", lambda: NOISE.randbytes(1_000), *INVALID)
call("a request that ends in a field", "/counter.v1.Counter/Add", b"\x0a\x64abc", *INVALID)
call("a request of 100,000 groups in each other", "/counter.v1.Counter/Add", b"\x0b" * 100_000, *INVALID)
call("a request with field number 0", "/counter.v1.Counter/Add", b"\x00\x01", *INVALID)
call("a length of 2^64-1", "/counter.v1.Counter/Add", b"\x0a" + b"\xff" * 9 + b"\x01", *INVALID)
call(
    "a request of 5 MiB",
    "/counter.v1.Counter/Add",
    lambda: protobuf((1, "a"), (9, bytes(5 << 20))),
    *TOO_LARGE,
)
call(
    "a request of 64 MiB",
    "/counter.v1.Counter/Add",
    lambda: protobuf((1, "a"), (9, bytes(64 << 20))),
    *TOO_LARGE,
)

for name, value in (
    ("afdg-idempotency-key", "k" * 257),
    ("afdg-idempotency-key", ""),
    ("afdg-mode", "shout"),
    ("afdg-delay", "-5s"),
    ("afdg-max-staleness", "yesterday"),
    ("traceparent", "00-zz-zz-zz"),
):
    shown = value if len(value) < 40 else f"{len(value)} bytes"
    # A header that is not acted on yet may be left unread, or refused as not supported.
    call(
        f"{name}: {shown or 'empty'}",
        "/counter.v1.Counter/Get",
        protobuf((1, "hostile")),
        *(INVALID if len(value) > 200 else (*INVALID, "UNIMPLEMENTED UNKNOWN_METHOD", "OK")),
        metadata=((name, value),),
    )

GRID = "/afdg.v1.Grid/Call"
call("Grid.Call of random bytes", GRID, lambda: NOISE.randbytes(1_000), "INVALID_ARGUMENT", "INTERNAL")
call("Grid.Call of nobody", GRID, b"", "INVALID_ARGUMENT", "NOT_FOUND")
call("Grid.Call of a text without '/'", GRID, protobuf((1, "x")), *INVALID)
call("Grid.Call of an unknown type", GRID, protobuf((1, "x.Y/k"), (2, "Do")), *UNKNOWN)
call("Grid.Call without a method", GRID, protobuf((1, "counter.v1.Counter/k")), *INVALID, *UNKNOWN)
call(
    "Grid.Call of a method of 1 MB",
    GRID,
    protobuf((1, "counter.v1.Counter/k"), (2, "m" * 1_000_000)),
    *INVALID,
    *UNKNOWN,
)
call(
    "Grid.Call of an agent of 1 MB",
    GRID,
    protobuf((1, "a/" + "k" * 1_000_000), (2, "Get")),
    *INVALID,
    *UNKNOWN,
)
call(
    "Grid.Call with a time limit of 2^64-1 ms",
    GRID,
    protobuf((1, "counter.v1.Counter/hostile"), (2, "Get"), (5, 2**64 - 1)),
    "OK",
    *INVALID,
)
call(
    "Grid.CallMany of 1,001",
    "/afdg.v1.Grid/CallMany",
    protobuf(*[(1, b"")] * 1_001),
    *INVALID,
    "RESOURCE_EXHAUSTED",
)
call("Grid.CallMany of none", "/afdg.v1.Grid/CallMany", b"", "OK", *INVALID)
call("Grid.CallMany of 1,000 to nobody", "/afdg.v1.Grid/CallMany", protobuf(*[(1, b"")] * 1_000), "OK")


@attack(
    "Grid.Pipe of 5,000 calls to nobody, each with the id 7",
    EXTENSION,
    "OK",
    "INVALID_ARGUMENT",
    "RESOURCE_EXHAUSTED",
)
def _(target):
    return target.stream(
        "/afdg.v1.Grid/Pipe", (protobuf((1, 7), (2, protobuf((1, "x")))) for _ in range(5_000))
    )


@attack("Grid.Pipe of random bytes", EXTENSION, "OK", "INVALID_ARGUMENT", "INTERNAL")
def _(target):
    return target.stream("/afdg.v1.Grid/Pipe", (NOISE.randbytes(100) for _ in range(100)))


@attack("Grid.Pipe of 1,000 calls, left in the middle", EXTENSION, "gone")
def _(target):
    one = protobuf((1, 1), (2, protobuf((1, "counter.v1.Counter/hostile"), (2, "Get"))))
    with Connection(target.address) as connection:
        connection.start().request(
            1, grpc_headers("/afdg.v1.Grid/Pipe"), grpc_message(one) * 1_000, end=False
        )
        connection.reset()
    return "gone"


# Admin, reflection and health --------------------------------------------------------------------------

ADMIN = "/afdg.admin.v1."
call("admin: inspect nobody", f"{ADMIN}Agents/InspectAgent", b"", *INVALID)
call(
    "admin: inspect an agent of 1 MB",
    f"{ADMIN}Agents/InspectAgent",
    protobuf((1, "a/" + "k" * 1_000_000)),
    *INVALID,
    "NOT_FOUND",
)
call(
    "admin: a page token of random bytes", f"{ADMIN}Agents/ListAgents", protobuf((2, "not a token")), *INVALID
)
call("admin: a page of 2^32-1", f"{ADMIN}Agents/ListAgents", protobuf((3, 2**32 - 1)), "OK", *INVALID)
call(
    "admin: move a leader without actor and reason",
    f"{ADMIN}Cluster/TransferLeader",
    protobuf((1, 1), (2, 1)),
    *INVALID,
)
call(
    "admin: move the leader of no region to no node",
    f"{ADMIN}Cluster/TransferLeader",
    protobuf((1, 2**64 - 1), (2, 2**64 - 1), (3, "hostile"), (4, "a test")),
    *INVALID,
    "NOT_FOUND",
)
call(
    "admin: random bytes",
    f"{ADMIN}Cluster/GetStatus",
    lambda: NOISE.randbytes(1_000),
    "INVALID_ARGUMENT",
    "INTERNAL",
    "OK",
)

REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
for name, question in (
    ("a file of 1 MB", protobuf((3, "f" * 1_000_000))),
    ("the file /etc/passwd", protobuf((3, "/etc/passwd"))),
    ("a symbol of dots", protobuf((4, "." * 1_000))),
    ("an extension of nothing", protobuf((5, protobuf((1, ""), (2, 2**31))))),
    ("nothing", b""),
    ("random bytes", NOISE.randbytes(300)),
):

    @attack(
        f"reflection: {name}",
        EXTENSION,
        "OK",
        "NOT_FOUND",
        "INVALID_ARGUMENT",
        "UNIMPLEMENTED",
        "INTERNAL",
        # Past the size that a question may have.
        "OUT_OF_RANGE",
    )
    def _(target, question=question):
        return target.stream(REFLECTION, iter([question]))


# Internal services, asked by strangers ------------------------------------------------------------------

INTERNAL = {
    "catalog": (
        "Catalog/RegisterNode",
        "Catalog/Heartbeat",
        "Catalog/Watch",
        "Peer/Exchange",
        "Peer/InstallSnapshot",
    ),
    "region-node": (
        "RegionNode/Forward",
        "RegionNode/ListAgents",
        "RegionNode/InspectAgent",
        "RegionNode/TransferLeader",
        "Peer/Exchange",
        "Peer/InstallSnapshot",
    ),
}
TOKENS = (
    ("without a token", ()),
    ("with an empty token", (("afdg-peer-token", ""),)),
    ("with a wrong token", (("afdg-peer-token", "let-me-in"),)),
    ("with a token of 100 kB", (("afdg-peer-token", "t" * 100_000),)),
    ("with two wrong tokens", (("afdg-peer-token", "a"), ("afdg-peer-token", "b"))),
)

for role, methods in INTERNAL.items():
    for method in methods:
        call(f"{method} without a token", f"/afdg.internal.v1.{method}", b"", *STRANGER, roles=(role,))
    for name, metadata in TOKENS[1:]:
        # Headers of 100 kB may be refused before anybody reads them.
        expected = (
            STRANGER
            if "100 kB" not in name
            else (*STRANGER, "RESOURCE_EXHAUSTED", "UNAVAILABLE", "INTERNAL", "UNKNOWN")
        )
        call(
            f"{methods[0]} {name}",
            f"/afdg.internal.v1.{methods[0]}",
            b"",
            *expected,
            roles=(role,),
            metadata=metadata,
        )
    for method in {
        other for other_role, others in INTERNAL.items() if other_role != role for other in others
    } - set(methods):
        call(
            f"{method}, which it does not serve",
            f"/afdg.internal.v1.{method}",
            b"",
            "UNIMPLEMENTED",
            roles=(role,),
        )

for method in sorted({method for methods in INTERNAL.values() for method in methods}):
    call(f"{method} at an extension", f"/afdg.internal.v1.{method}", b"", *UNKNOWN, *STRANGER)


# Internal services, asked by a peer that is broken: it has the token and talks nonsense -----------------

NONSENSE = (
    ("nothing", b""),
    ("random bytes", NOISE.randbytes(500)),
    ("largest numbers", protobuf(*((number, 2**64 - 1) for number in range(1, 12)))),
    ("texts of 100 kB", protobuf(*((number, "x" * 100_000) for number in range(1, 8)))),
    # A PeerFrame or ForwardFrame with one message for a group or region that does not exist.
    (
        "a frame for nobody",
        protobuf((1, protobuf((1, 1), (2, 10**9), (3, 1), (4, "x.Y"), (5, NOISE.randbytes(64))))),
    ),
    # A PeerFrame with an append of random bytes for each of the first groups.
    (
        "frames of random bytes for real groups",
        protobuf(
            *(
                (1, protobuf((1, group), (2, group), (3, kind), (5, NOISE.randbytes(64))))
                for group in range(20)
                for kind in range(5)
            )
        ),
    ),
)
TYPED = (
    "OK",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "FAILED_PRECONDITION",
    "UNAVAILABLE",
    "INTERNAL",
    "UNKNOWN",
    "DEADLINE_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "ABORTED",
    "CANCELLED",
)

for role, methods in INTERNAL.items():
    for method in methods:
        for name, body in NONSENSE:

            @attack(f"a broken peer: {method} of {name}", (role,), *TYPED)
            def _(target, method=method, body=body):
                if target.peer_token is None:
                    return None
                token = (("afdg-peer-token", target.peer_token),)
                return target.stream(f"/afdg.internal.v1.{method}", iter([body]), token, seconds=1)
