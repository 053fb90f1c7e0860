"""What breaks the rules of TCP, HTTP/2 and gRPC, at every server."""

import contextlib
import time

from attack import ALL, EXTENSION, HANGS_UP, NOISE, REFUSES, attack, framed, raw, started
from wire import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    PUSH,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Connection,
    frame,
    grpc_headers,
    grpc_message,
    header_block,
)

# What is not HTTP/2 -----------------------------------------------------------------------------------

raw("64 KiB of random bytes", NOISE.randbytes(65_536), *HANGS_UP)
raw("64 KiB of zeros", bytes(65_536), *HANGS_UP)
raw("an HTTP/1.1 GET", b"GET / HTTP/1.1\r\nHost: afdg.test\r\n\r\n", *HANGS_UP)
raw(
    "an HTTP/1.1 POST of a gRPC type, chunked without end",
    b"POST /afdg.v1.Grid/Call HTTP/1.1\r\nHost: afdg.test\r\nContent-Type: application/grpc\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\nx",
    *HANGS_UP,
)
raw("an HTTP/1.1 request line of 1 MB", b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n", *HANGS_UP)
raw("a TLS ClientHello", bytes.fromhex("16030100c8010000c40303") + NOISE.randbytes(192), *HANGS_UP)


@attack("half a preface, then hung up", ALL, "gone")
def _(target):
    connection = Connection(target.address).send(PREFACE[:11])
    connection.close()
    return "gone"


@attack("one byte every 20 ms, never a whole preface", ALL, "silent", *HANGS_UP)
def _(target):
    with Connection(target.address) as connection:
        for byte in PREFACE[:-2]:
            connection.send(bytes([byte]))
            time.sleep(0.02)
        target.check()
        return connection.answer(seconds=0.5)


@attack("a preface cut into single bytes, then a call", ALL, "grpc-status")
def _(target):
    with Connection(target.address) as connection:
        for byte in PREFACE + frame(SETTINGS):
            connection.send(bytes([byte]))
        return connection.request(1, grpc_headers("/x.Y/Z"), grpc_message(b"")).answer()


# HTTP/2 that breaks its rules -------------------------------------------------------------------------

raw("frames of random bytes", started(NOISE.randbytes(8_192)), *HANGS_UP)
raw("a frame without SETTINGS before it", PREFACE + frame(PING, payload=bytes(8)), "silent", *HANGS_UP)
raw("a frame that says it has 16 MiB", started(frame(DATA, stream=1, length=0xFFFFFF)), *HANGS_UP)
raw("HEADERS of 32 KiB in one frame", started(frame(HEADERS, END_HEADERS, 1, bytes(32_768))), *HANGS_UP)
raw("SETTINGS of five bytes", PREFACE + frame(SETTINGS, payload=bytes(5)), *HANGS_UP)
raw(
    "SETTINGS with a window of 2^32-1",
    PREFACE + frame(SETTINGS, payload=b"\x00\x04\xff\xff\xff\xff"),
    *HANGS_UP,
)
raw(
    "SETTINGS with frames of one byte",
    PREFACE + frame(SETTINGS, payload=b"\x00\x05\x00\x00\x00\x01"),
    *HANGS_UP,
)
raw("WINDOW_UPDATE of nothing", started(frame(WINDOW_UPDATE, payload=bytes(4))), *HANGS_UP)
raw(
    "WINDOW_UPDATE past the largest window",
    started(frame(WINDOW_UPDATE, payload=b"\x7f\xff\xff\xff") * 2),
    *HANGS_UP,
)
raw("HEADERS on stream 0", started(frame(HEADERS, END_HEADERS | END_STREAM, 0, b"\x82")), *HANGS_UP)
raw("HEADERS on a server's stream", started(frame(HEADERS, END_HEADERS | END_STREAM, 2, b"\x82")), *HANGS_UP)
raw("CONTINUATION of nothing", started(frame(CONTINUATION, END_HEADERS, 1, b"\x82")), *HANGS_UP)
raw(
    "headers that do not decode",
    started(frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xff" * 64)),
    *HANGS_UP,
)
raw("DATA on a stream that is not open", started(frame(DATA, END_STREAM, 5, b"x")), *HANGS_UP)
raw(
    "RST_STREAM of a stream that is not open",
    started(frame(RST_STREAM, stream=7, payload=bytes(4))),
    *HANGS_UP,
)
raw("PUSH_PROMISE from a client", started(frame(PUSH, END_HEADERS, 1, bytes(4))), *HANGS_UP)
raw("PING of seven bytes", started(frame(PING, payload=bytes(7))), *HANGS_UP)
raw(
    "a stream that depends on itself",
    started(frame(PRIORITY, stream=1, payload=b"\x00\x00\x00\x01\x00")),
    "silent",
    *HANGS_UP,
)
raw(
    "headers without a path",
    started(frame(HEADERS, END_HEADERS | END_STREAM, 1, header_block([(":method", "POST")]))),
    *HANGS_UP,
)
raw(
    "a header name in capitals",
    started(frame(HEADERS, END_HEADERS | END_STREAM, 1, header_block(grpc_headers("/x.Y/Z", ("Evil", "1"))))),
    *HANGS_UP,
)
raw(
    "a header value with NUL and line breaks",
    started(
        frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            1,
            header_block(grpc_headers("/x.Y/Z", ("afdg-key", b"a\x00b\r\nc: d"))),
        )
    ),
    *HANGS_UP,
)


@attack("CONTINUATION frames without end", ALL, *HANGS_UP)
def _(target):
    with Connection(target.address) as connection:
        connection.start().send(frame(HEADERS, 0, 1, header_block(grpc_headers("/x.Y/Z"))))
        part = frame(CONTINUATION, 0, 1, header_block([("x", "y" * 64)]))
        for _ in range(100):
            connection.send(part * 100)
            if connection.refused_to_read:
                break
        return connection.answer()


def flood(name, one, count, *expected):
    @attack(name, ALL, *expected)
    def _(target):
        with Connection(target.address) as connection:
            connection.start()
            for _ in range(count // 100):
                connection.send(one * 100)
                if connection.refused_to_read:
                    break
            target.check()
            return connection.answer(seconds=1)


flood("10,000 PINGs", frame(PING, payload=bytes(8)), 10_000, "silent", *HANGS_UP)
flood("10,000 SETTINGS", frame(SETTINGS), 10_000, "silent", *HANGS_UP)
flood("10,000 frames of an unknown kind", frame(0x7F, 0xFF, 1, bytes(16)), 10_000, "silent", *HANGS_UP)


@attack("10,000 streams, each reset at once", ALL, "silent", *HANGS_UP)
def _(target):
    block = header_block(grpc_headers("/x.Y/Z"))
    with Connection(target.address) as connection:
        connection.start()
        for start in range(1, 20_001, 200):
            connection.send(
                b"".join(
                    frame(HEADERS, END_HEADERS, stream, block)
                    + frame(RST_STREAM, stream=stream, payload=b"\0\0\0\x08")
                    for stream in range(start, start + 200, 2)
                )
            )
            if connection.refused_to_read:
                break
        target.check()
        return connection.answer(seconds=1)


@attack("2,000 streams opened and left open", ALL, "silent", *REFUSES)
def _(target):
    block = header_block(grpc_headers(target.path))
    with Connection(target.address) as connection:
        connection.start()
        connection.send(b"".join(frame(HEADERS, END_HEADERS, stream, block) for stream in range(1, 4_001, 2)))
        target.check()
        return connection.answer(seconds=1)


@attack("10,000 empty DATA frames", ALL, "silent", *REFUSES)
def _(target):
    with Connection(target.address) as connection:
        connection.start().request(1, grpc_headers(target.path), end=False)
        for _ in range(100):
            connection.send(frame(DATA, 0, 1) * 100)
        target.check()
        return connection.answer(seconds=1)


@attack("a reader that never reads", ALL, "silent", *REFUSES, "grpc-status")
def _(target):
    with Connection(target.address, receive_buffer=4_096) as connection:
        # An initial window of 0: nothing that is answered may be sent.
        connection.start(settings=b"\x00\x04\x00\x00\x00\x00")
        for stream in range(1, 401, 2):
            connection.request(stream, grpc_headers(target.path), grpc_message(target.body))
        target.check()
        return connection.answer(seconds=1)


@attack("200 connections that say nothing", ALL, "gone")
def _(target):
    with contextlib.ExitStack() as open_ones:
        for _ in range(200):
            open_ones.enter_context(Connection(target.address))
        target.check()
    return "gone"


@attack("200 connections in the middle of a call", ALL, "gone")
def _(target):
    with contextlib.ExitStack() as open_ones:
        for _ in range(200):
            connection = open_ones.enter_context(Connection(target.address))
            connection.start().request(1, grpc_headers(target.path), grpc_message(b"", length=100), end=False)
        target.check()
    return "gone"


@attack("10,000 connections, each hung up at once", ALL, "gone")
def _(target):
    for _ in range(10_000):
        Connection(target.address).reset()
    return "gone"


@attack("1,000 calls, each connection reset before the answer", ALL, "gone")
def _(target):
    request = started() + frame(HEADERS, END_HEADERS, 1, header_block(grpc_headers(target.path)))
    request += frame(DATA, END_STREAM, 1, grpc_message(target.body))
    for _ in range(1_000):
        Connection(target.address).send(request).reset()
    return "gone"


# gRPC that breaks its rules ---------------------------------------------------------------------------


framed("a message that says it has 4 GiB", grpc_message(b"x" * 10, length=0xFFFFFFFF), *REFUSES)
framed(
    "a message of 1 GiB that never comes",
    grpc_message(b"x", length=1 << 30),
    "silent",
    *REFUSES,
    seconds=1,
    end=False,
)
framed("three bytes of a message's header", b"\x00\x00\x00", *REFUSES)
framed("a message shorter than it says", grpc_message(b"x", length=100), *REFUSES)
framed("a compressed message without an encoding", grpc_message(b"x", compressed=1), *REFUSES)
framed("a message with the flag 7", grpc_message(b"x", compressed=7), *REFUSES)
framed("two messages for a call of one", grpc_message(b"") * 2, *REFUSES)
framed("no message at all", b"", *REFUSES)


@attack("an encoding that nobody has", ALL, *REFUSES)
def _(target):
    headers = grpc_headers(target.path, ("grpc-encoding", "zebra"))
    with Connection(target.address) as connection:
        return connection.start().request(1, headers, grpc_message(b"x", compressed=1)).answer()


@attack("no content type", ALL, *REFUSES)
def _(target):
    with Connection(target.address) as connection:
        return (
            connection.start()
            .request(1, grpc_headers(target.path, content_type=None), grpc_message(b""))
            .answer()
        )


@attack("a web page's content type", ALL, *REFUSES)
def _(target):
    with Connection(target.address) as connection:
        return (
            connection.start()
            .request(1, grpc_headers(target.path, content_type="text/html"), b"<p>")
            .answer()
        )


@attack("GET instead of POST", ALL, *REFUSES)
def _(target):
    with Connection(target.address) as connection:
        return connection.start().request(1, grpc_headers(target.path, method="GET")).answer()


for odd in (
    "/",
    "//",
    "*",
    "/x",
    "/x.Y/",
    "//Z",
    "/x.Y/Z/../Z",
    "/%00/%00",
    "/x.Y/" + "Z" * 8_000,
    "/counter.v1.Counter",
):
    shown = odd if len(odd) < 40 else f"{odd[:10]}... of {len(odd)} bytes"
    framed(f"the path {shown}", grpc_message(b""), *REFUSES, path=odd)


@attack("1 MB of headers", ALL, *REFUSES)
def _(target):
    headers = grpc_headers(target.path, *((f"x-{i}", "y" * 1_000) for i in range(1_000)))
    with Connection(target.address) as connection:
        return connection.start().request(1, headers, grpc_message(b"")).answer()


for timeout in ("abc", "-5S", "5", "", "0n", "1n", "99999999999999999999S", "9" * 10_000 + "m", "5 S", "٣S"):
    shown = timeout if len(timeout) < 40 else f"of {len(timeout)} digits"

    @attack(
        f"grpc-timeout '{shown}'", EXTENSION, "grpc-status 0", "grpc-status 3", "grpc-status 4", *HANGS_UP
    )
    def _(target, timeout=timeout):
        headers = grpc_headers(target.path, ("grpc-timeout", timeout))
        with Connection(target.address) as connection:
            return connection.start().request(1, headers, grpc_message(target.body)).answer()
