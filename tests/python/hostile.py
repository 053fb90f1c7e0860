"""Sends hostile requests to a running grid on this machine. After each, the server has to answer a normal
call on a new connection; at the end its processes have to live and their memory has to be bounded.

    hostile.py --extension 127.0.0.1:7400 --catalog 127.0.0.1:7100 --region-node 127.0.0.1:7300

Every request is bounded in time and count, so the program ends by itself. Exit code 1 if anything failed.
"""

import argparse
import json
import os
import pathlib
import sys
import time

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

import attacks_on_services  # noqa: F401 - adds to ATTACKS
import attacks_on_transport  # noqa: F401 - adds to ATTACKS
import wire
from attack import ATTACKS

CHECK_SECONDS = 10
CALL_SECONDS = 10
CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_metadata_size", 4 << 20),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
)


class Unanswered(Exception):
    """A server did not answer a normal call."""


class Target:
    """A server under attack, and how to see that it serves."""

    def __init__(self, role, address, agent, method, peer_token):
        wire.host_and_port(address)
        self.role, self.address, self.peer_token = role, address, peer_token
        if role == "extension":
            self.path, self.body = "/afdg.v1.Grid/Call", wire.protobuf((1, agent), (2, method))
            self.sound = "OK"
        else:
            # Strangers get no more out of these servers than a refusal; it shows that they answer.
            self.path = "/afdg.internal.v1." + (
                "Catalog/Watch" if role == "catalog" else "RegionNode/ListAgents"
            )
            self.body, self.sound = b"", "PERMISSION_DENIED NOT_A_PEER"

    def check(self):
        """A normal call on a new connection; a second one if the first came while the server was busy
        with the attack, because what counts is that it recovers."""
        until = time.monotonic() + CHECK_SECONDS
        while True:
            answer = self.call(self.path, self.body, seconds=CHECK_SECONDS)
            if answer.startswith(self.sound):
                return
            if time.monotonic() > until:
                raise Unanswered(f"a normal call is answered with {answer}, not {self.sound}")
            time.sleep(0.1)

    def call(self, path, body, metadata=(), seconds=CALL_SECONDS):
        return self.stream(path, iter([body]), metadata, seconds)

    def stream(self, path, bodies, metadata=(), seconds=CALL_SECONDS):
        """Calls with these messages, reads all answers; the status in words. A call of one message looks
        the same on the wire as a stream of one."""
        with grpc.insecure_channel(self.address, options=CHANNEL_OPTIONS) as channel:
            method = channel.stream_stream(path, request_serializer=bytes, response_deserializer=bytes)
            try:
                for _ in method(bodies, metadata=metadata, timeout=seconds):
                    pass
            except grpc.RpcError as error:
                return status_in_words(error)
            return "OK"


def status_in_words(error):
    words = [error.code().name]
    try:
        status = rpc_status.from_call(error)
    except ValueError:
        return f"{words[0]} (its details contradict it)"
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info):
            words.append(info.reason)
    return " ".join(words)


class Process:
    """A server's process: it has to live, and stay within its memory and its file descriptors."""

    def __init__(self, pid):
        self.pid = pid
        self.start_time, self.rss_at_start, self.files_at_start = self.started(), self.rss_mib(), self.files()

    def started(self):
        text = pathlib.Path(f"/proc/{self.pid}/stat").read_text()
        return text.rpartition(")")[2].split()[19]

    def rss_mib(self):
        pages = int(pathlib.Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") // (1 << 20)

    def files(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def wrong(self, rss_growth_mib_max, files_growth_max):
        try:
            if self.started() != self.start_time:
                return f"process {self.pid} is another one now"
            # Connections that were hung up are let go of a moment later.
            until = time.monotonic() + CHECK_SECONDS
            while self.files() - self.files_at_start > files_growth_max and time.monotonic() < until:
                time.sleep(0.1)
            rss, files = self.rss_mib(), self.files()
        except (FileNotFoundError, ProcessLookupError):
            return f"process {self.pid} is gone"
        memory = f"{self.rss_at_start} -> {rss} MiB"
        print(f"process {self.pid}: {memory}, {self.files_at_start} -> {files} open files")
        if rss - self.rss_at_start > rss_growth_mib_max:
            return f"process {self.pid} grew by {rss - self.rss_at_start} MiB, more than {rss_growth_mib_max}"
        if files - self.files_at_start > files_growth_max:
            return f"process {self.pid} holds {files - self.files_at_start} more files than before"
        return None


def run_attack(attack, target):
    """The answer, and what is wrong with it or with the server afterwards."""
    try:
        answer = attack.run(target)
        if answer is None:
            return None, None
        wrong = None
        if not any(expected in answer for expected in attack.expected):
            wrong = f"expected one of {', '.join(dict.fromkeys(attack.expected))}"
        target.check()
        return answer, wrong
    except (Unanswered, OSError) as error:
        return "-", f"{type(error).__name__}: {error}"


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ready-file", help="of `afdg dev`: tells addresses and process")
    parser.add_argument("--extension", metavar="HOST:PORT")
    parser.add_argument("--catalog", metavar="HOST:PORT")
    parser.add_argument("--region-node", metavar="HOST:PORT")
    parser.add_argument(
        "--agent", default="counter.v1.Counter/hostile-check", help="called to see that the grid serves"
    )
    parser.add_argument("--method", default="Get")
    parser.add_argument("--peer-token", help="the cluster's token, to play a broken peer as well")
    parser.add_argument("--pids", default="", help="the servers' processes, with commas between them")
    parser.add_argument("--rss-growth-mib-max", type=int, default=256)
    parser.add_argument("--files-growth-max", type=int, default=50)
    parser.add_argument("--only", default="", help="only requests with this in their name")
    given = parser.parse_args()
    if given.ready_file:
        ready = json.loads(pathlib.Path(given.ready_file).read_text())
        given.extension = given.extension or ready["endpoint"].removeprefix("http://")
        given.catalog = given.catalog or ready["catalogs"][0]["address"]
        given.region_node = given.region_node or ready["nodes"][0]["address"]
        given.pids = given.pids or str(ready["pid"])
    return given


def main():
    given = arguments()
    addresses = {"extension": given.extension, "catalog": given.catalog, "region-node": given.region_node}
    targets = [
        Target(role, address, given.agent, given.method, given.peer_token)
        for role, address in addresses.items()
        if address
    ]
    if not targets:
        sys.exit("name at least one of --ready-file, --extension, --catalog and --region-node")
    for target in targets:
        target.check()
    processes = [Process(int(pid)) for pid in given.pids.split(",") if pid]

    passed, failed, skipped = 0, 0, 0
    for target in targets:
        for attack in ATTACKS:
            if target.role not in attack.roles or given.only not in attack.name:
                continue
            began = time.monotonic()
            answer, wrong = run_attack(attack, target)
            if answer is None:
                skipped += 1
                continue
            passed, failed = passed + (not wrong), failed + bool(wrong)
            seconds = time.monotonic() - began
            print(f"{target.role:11}  {seconds:5.1f} s  {attack.name[:60]:60}  {answer}", flush=True)
            if wrong:
                print(f"WRONG: {attack.name} at the {target.role}: {answer}: {wrong}", flush=True)

    for process in processes:
        wrong = process.wrong(given.rss_growth_mib_max, given.files_growth_max)
        passed, failed = passed + (not wrong), failed + bool(wrong)
        if wrong:
            print(f"WRONG: {wrong}")
    if skipped:
        print(f"{skipped} requests of a broken peer were skipped: no --peer-token was given")
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
