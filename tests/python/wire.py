"""Protobuf and HTTP/2 by hand: just enough to say what no well-behaved library would send."""

import socket
import struct
import time

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
HTTP2_ERRORS = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
]


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def protobuf(*fields):
    """Encodes (number, value) pairs: an int as a varint, text and bytes with their length."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            value = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def grpc_message(body, compressed=0, length=None):
    return struct.pack(">BI", compressed, len(body) if length is None else length) + body


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def header_block(headers):
    """Encodes headers without compression state, so that a block may be sent any number of times."""
    out = b""
    for name, value in headers:
        name = name.encode() if isinstance(name, str) else name
        value = value.encode() if isinstance(value, str) else value
        out += b"\x00" + hpack_length(len(name)) + name + hpack_length(len(value)) + value
    return out


def hpack_length(number):
    if number < 0x7F:
        return bytes([number])
    return b"\x7f" + varint(number - 0x7F)


def grpc_headers(path, *extra, method="POST", content_type="application/grpc"):
    headers = [
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "afdg.test"),
        ("te", "trailers"),
    ]
    if content_type is not None:
        headers.append(("content-type", content_type))
    return [*headers, *extra]


def host_and_port(address):
    host, _, port = address.rpartition(":")
    if host != "localhost" and not host.startswith("127."):
        raise SystemExit(f"{address} is not on this machine: hostile requests go to 127.0.0.1 only")
    return host, int(port)


class Connection:
    """A TCP connection that may speak HTTP/2, well or badly."""

    def __init__(self, address, receive_buffer=None):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(5)
        self.socket.connect(host_and_port(address))
        self.refused_to_read = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def reset(self):
        """Closes with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, data):
        """A server may well hang up in the middle of it; what it answered tells."""
        try:
            self.socket.sendall(data)
        except (TimeoutError, BrokenPipeError, ConnectionResetError):
            self.refused_to_read = True
        return self

    def start(self, settings=b""):
        return self.send(PREFACE + frame(SETTINGS, payload=settings))

    def request(self, stream, headers, body=b"", end=True):
        flags = END_HEADERS if body or not end else END_HEADERS | END_STREAM
        block = header_block(headers)
        first, rest = block[:16_384], block[16_384:]
        self.send(frame(HEADERS, flags if not rest else flags & ~END_HEADERS, stream, first))
        while rest:
            part, rest = rest[:16_384], rest[16_384:]
            self.send(frame(CONTINUATION, 0 if rest else END_HEADERS, stream, part))
        while body:
            part, body = body[:16_384], body[16_384:]
            self.send(frame(DATA, END_STREAM if end and not body else 0, stream, part))
        return self

    def answer(self, seconds=5.0, settle=0.2):
        """What came back, in words. `silent` if nothing but the server's settings did within `seconds`."""
        received, closed, until = b"", False, time.monotonic() + seconds
        while time.monotonic() < until and not closed:
            self.socket.settimeout(max(0.01, min(settle, until - time.monotonic())))
            try:
                part = self.socket.recv(65_536)
                closed = not part
                received += part
            except TimeoutError:
                if describe(received):
                    break
            except (ConnectionResetError, BrokenPipeError):
                closed = True
        words = describe(received)
        if closed:
            words.append("closed")
        return ", ".join(words) or "silent"


def describe(received):
    """The frames that tell something, in words; bytes that are no frames as themselves."""
    if received[:5] == b"HTTP/":
        return [received.split(b"\r\n")[0].decode(errors="replace")]
    words, decoder = [], hpack.Decoder(max_header_list_size=1 << 20)
    while len(received) >= 9:
        length, kind = int.from_bytes(received[:3], "big"), received[3]
        payload, received = received[9 : 9 + length], received[9 + length :]
        if len(payload) < length:
            break
        if kind == HEADERS:
            try:
                headers = dict(decoder.decode(payload))
            except hpack.HPACKError:
                headers = {}
            if "grpc-status" in headers:
                words.append(f"grpc-status {headers['grpc-status']}")
            elif headers.get(":status") != "200":
                words.append(f"HTTP {headers.get(':status')}")
        elif kind == RST_STREAM and len(payload) == 4:
            words.append(f"reset {http2_error(payload)}")
        elif kind == GOAWAY and len(payload) >= 8:
            words.append(f"goaway {http2_error(payload[4:8])}")
    counted = {word: words.count(word) for word in words}
    return [word if count == 1 else f"{word} x{count}" for word, count in counted.items()]


def http2_error(payload):
    number = int.from_bytes(payload, "big")
    return HTTP2_ERRORS[number] if number < len(HTTP2_ERRORS) else str(number)
