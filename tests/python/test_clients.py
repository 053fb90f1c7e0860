"""Calls the example agents as any Python program would: with stubs that gRPC's own tools generated from the
.proto files, and without stubs through server reflection. Nothing of AFDG's is imported.

    test_clients.py --endpoint 127.0.0.1:7400

Run through run.sh, which makes the stubs. Exit code 1 if any test failed.
"""

import argparse
import concurrent.futures
import inspect
import json
import pathlib
import sys
import time
import traceback
import uuid

import grpc
from afdg.v1 import grid_pb2, grid_pb2_grpc
from bank.v1 import bank_pb2, bank_pb2_grpc
from counter.v1 import counter_pb2, counter_pb2_grpc
from google.protobuf import descriptor_pool, message_factory
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
from shop.v1 import shop_pb2, shop_pb2_grpc

SECONDS = 20
IDEMPOTENCY_KEY = "afdg-idempotency-key"


def key(name):
    """An agent that no other run has used."""
    return f"python-{name}-{uuid.uuid4()}"


def refusal(call):
    """The error of a call that has to be refused, with its ErrorInfo and all details."""
    try:
        answer = call()
    except grpc.RpcError as error:
        status = rpc_status.from_call(error)
        assert status is not None, f"{error.code()} came without details: {error.details()}"
        info = unpack(status, error_details_pb2.ErrorInfo)
        assert info is not None, f"{error.code()} came without ErrorInfo"
        return error, info, status
    raise AssertionError(f"was answered with {answer!r}, not refused")


def unpack(status, kind):
    for detail in status.details:
        message = kind()
        if detail.Unpack(message):
            return message
    return None


def expect(call, code, reason, domain):
    error, info, status = refusal(call)
    found = (error.code().name, info.reason, info.domain)
    assert found == (code, reason, domain), f"{found} instead of {(code, reason, domain)}: {error.details()}"
    assert error.details(), "the error has no text for people"
    return info, status


class Tests:
    def __init__(self, endpoint):
        self.channel = grpc.insecure_channel(endpoint, options=(("grpc.enable_http_proxy", 0),))
        self.counter = counter_pb2_grpc.CounterStub(self.channel)
        self.account = bank_pb2_grpc.AccountStub(self.channel)
        self.customer = shop_pb2_grpc.CustomerStub(self.channel)
        self.grid = grid_pb2_grpc.GridStub(self.channel)

    def add(self, counter, delta, **options):
        return self.counter.Add(
            counter_pb2.AddRequest(counter=counter, delta=delta), timeout=SECONDS, **options
        ).value

    def count(self, counter):
        return self.counter.Get(counter_pb2.GetRequest(counter=counter), timeout=SECONDS).value

    def deposit(self, account, cents):
        return self.account.Deposit(
            bank_pb2.DepositRequest(account=account, cents=cents), timeout=SECONDS
        ).cents

    def balance(self, account):
        return self.account.GetBalance(bank_pb2.GetBalanceRequest(account=account), timeout=SECONDS).cents

    # Stubs ---------------------------------------------------------------------------------------------

    def test_a_counter_counts(self):
        name = key("counter")
        assert self.count(name) == 0
        assert [self.add(name, delta) for delta in (5, 7, -20)] == [5, 12, -8]
        assert self.count(name) == -8

    def test_keys_of_any_language_are_taken(self):
        for name in (key("ключ"), key("鍵"), key("a b/c {d}"), "k" * 512):
            before = self.count(name)
            assert self.add(name, 1) == before + 1

    def test_the_key_may_stand_in_the_metadata(self):
        name = key("metadata")
        request = counter_pb2.AddRequest(delta=3)
        assert self.counter.Add(request, timeout=SECONDS, metadata=(("afdg-key", name),)).value == 3
        assert self.count(name) == 3

    def test_many_callers_of_one_agent_lose_nothing(self):
        name = key("many")
        with concurrent.futures.ThreadPoolExecutor(8) as callers:
            values = sorted(callers.map(lambda _: self.add(name, 1), range(400)))
        assert values == list(range(1, 401)), "a value came twice or never"
        assert self.count(name) == 400

    def test_a_fanout_adds_to_all(self):
        fanout = counter_pb2_grpc.FanoutStub(self.channel)
        names = [key(f"fan-{number}") for number in range(20)]
        request = counter_pb2.AddManyRequest(fanout=key("fanout"), counters=names, delta=2)
        assert fanout.AddMany(request, timeout=SECONDS).sum == 40
        assert [self.count(name) for name in names] == [2] * 20

    def test_an_account_pays_in_and_out(self):
        name = key("account")
        assert self.deposit(name, 500) == 500
        assert (
            self.account.Withdraw(bank_pb2.WithdrawRequest(account=name, cents=120), timeout=SECONDS).cents
            == 380
        )
        assert self.balance(name) == 380

    def test_a_transfer_moves_money(self):
        here, there = key("from"), key("to")
        self.deposit(here, 1_000)
        request = bank_pb2.TransferRequest(**{"from": here, "to": there, "cents": 300})
        moved = self.account.Transfer(request, timeout=SECONDS)
        assert (moved.from_cents, moved.to_cents) == (700, 300)
        assert (self.balance(here), self.balance(there)) == (700, 300)

    def test_transfers_side_by_side_keep_the_sum(self):
        accounts = [key(f"ring-{number}") for number in range(4)]
        for account in accounts:
            self.deposit(account, 1_000)

        # From lower to higher only: rings of waiting accounts would be refused.
        ways = [(here, there) for here in range(4) for there in range(here + 1, 4)]

        def transfer(number):
            here, there = ways[number % len(ways)]
            request = bank_pb2.TransferRequest(
                **{"from": accounts[here], "to": accounts[there], "cents": number}
            )
            try:
                self.account.Transfer(request, timeout=SECONDS)
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error

        with concurrent.futures.ThreadPoolExecutor(8) as callers:
            list(callers.map(transfer, range(1, 100)))
        assert sum(map(self.balance, accounts)) == 4_000

    def test_a_customer_keeps_purchases(self):
        name = key("customer")
        bought = [("20170102", 1_250), ("20170101", 0), ("20170215", 999)]
        for number, (date, cents) in enumerate(bought, start=1):
            request = shop_pb2.RecordPurchaseRequest(customer=name, date=date, amount_cents=cents)
            assert self.customer.RecordPurchase(request, timeout=SECONDS).count == number
        summary = self.customer.GetSummary(shop_pb2.GetSummaryRequest(customer=name), timeout=SECONDS)
        assert (summary.count, summary.total_cents) == (3, 2_249)
        assert (summary.first_date, summary.last_date) == ("20170101", "20170215")
        listed, token = [], ""
        while True:
            request = shop_pb2.ListPurchasesRequest(customer=name, page_size=2, page_token=token)
            page = self.customer.ListPurchases(request, timeout=SECONDS)
            listed += [(purchase.date, purchase.amount_cents) for purchase in page.purchases]
            token = page.next_page_token
            if not token:
                break
        assert listed == bought

    # Errors --------------------------------------------------------------------------------------------

    def test_a_handlers_refusal_is_typed(self):
        name = key("short")
        self.deposit(name, 250)
        request = bank_pb2.WithdrawRequest(account=name, cents=300)
        info, _ = expect(
            lambda: self.account.Withdraw(request, timeout=SECONDS),
            "FAILED_PRECONDITION",
            "BALANCE_SHORT",
            "bank.v1.Account",
        )
        assert dict(info.metadata) == {"balance_cents": "250", "short_by_cents": "50"}
        assert self.balance(name) == 250

    def test_a_called_agents_refusal_takes_all_back(self):
        here = key("poor")
        self.deposit(here, 10)
        request = bank_pb2.TransferRequest(**{"from": here, "to": here, "cents": 1})
        error, info, _ = refusal(lambda: self.account.Transfer(request, timeout=SECONDS))
        assert (error.code().name, info.reason) == ("FAILED_PRECONDITION", "CALL_CYCLE")
        assert self.balance(here) == 10

    def test_a_missing_key_is_typed(self):
        _, status = expect(
            lambda: self.counter.Get(counter_pb2.GetRequest(), timeout=SECONDS),
            "INVALID_ARGUMENT",
            "KEY_MISSING",
            "afdg",
        )
        request = unpack(status, error_details_pb2.BadRequest)
        assert request is not None and request.field_violations, "there is no BadRequest with it"
        assert request.field_violations[0].description

    def test_a_key_of_control_characters_is_refused(self):
        expect(lambda: self.count("a\nb"), "INVALID_ARGUMENT", "KEY_MALFORMED", "afdg")

    def test_a_key_past_its_limit_is_refused(self):
        expect(lambda: self.count("k" * 513), "INVALID_ARGUMENT", "KEY_MALFORMED", "afdg")

    def test_a_request_past_its_limit_is_refused(self):
        request = counter_pb2.AddManyRequest(fanout=key("large"), counters=["c" * 500] * 10_000)
        fanout = counter_pb2_grpc.FanoutStub(self.channel)
        try:
            fanout.AddMany(request, timeout=SECONDS)
        except grpc.RpcError as error:
            assert error.code().name == "RESOURCE_EXHAUSTED", error
        else:
            raise AssertionError("5 MB were taken")

    def test_an_unknown_method_is_typed(self):
        call = self.channel.unary_unary("/counter.v1.Counter/Nope")
        expect(lambda: call(b"", timeout=SECONDS), "UNIMPLEMENTED", "UNKNOWN_METHOD", "afdg")

    def test_an_unknown_type_is_refused(self):
        call = self.channel.unary_unary("/no.such.Type/Do")
        try:
            call(b"", timeout=SECONDS)
        except grpc.RpcError as error:
            # UNIMPLEMENTED is what gRPC itself says of a service that nobody serves.
            assert error.code().name in ("NOT_FOUND", "UNIMPLEMENTED"), error
        else:
            raise AssertionError("an unknown type answered")

    # Ids -----------------------------------------------------------------------------------------------

    def test_the_same_id_takes_effect_once(self):
        name, metadata = key("once"), ((IDEMPOTENCY_KEY, str(uuid.uuid4())),)
        assert [self.add(name, 5, metadata=metadata) for _ in range(3)] == [5, 5, 5]
        assert self.add(name, 1) == 6

    def test_the_same_id_side_by_side_takes_effect_once(self):
        name, metadata = key("race"), ((IDEMPOTENCY_KEY, str(uuid.uuid4())),)
        with concurrent.futures.ThreadPoolExecutor(8) as callers:
            values = list(callers.map(lambda _: self.add(name, 5, metadata=metadata), range(16)))
        assert values == [5] * 16
        assert self.count(name) == 5

    def test_a_refusal_is_repeated_for_the_same_id(self):
        name, metadata = key("refused"), ((IDEMPOTENCY_KEY, str(uuid.uuid4())),)
        request = bank_pb2.WithdrawRequest(account=name, cents=1)

        def withdraw():
            return self.account.Withdraw(request, timeout=SECONDS, metadata=metadata)

        expect(withdraw, "FAILED_PRECONDITION", "BALANCE_SHORT", "bank.v1.Account")
        self.deposit(name, 100)
        expect(withdraw, "FAILED_PRECONDITION", "BALANCE_SHORT", "bank.v1.Account")
        assert self.balance(name) == 100

    def test_the_same_id_with_another_request_is_refused(self):
        name, metadata = key("reused"), ((IDEMPOTENCY_KEY, str(uuid.uuid4())),)
        assert self.add(name, 5, metadata=metadata) == 5
        expect(lambda: self.add(name, 6, metadata=metadata), "ALREADY_EXISTS", "ID_REUSED", "afdg")
        assert self.count(name) == 5

    # Deadlines -----------------------------------------------------------------------------------------

    # A fanout to this many counters takes far longer than the shortest deadline below, a millisecond.

    def fanout(self, names, timeout, metadata=()):
        fanout = counter_pb2_grpc.FanoutStub(self.channel)
        request = counter_pb2.AddManyRequest(fanout=names[0], counters=names, delta=1)
        return fanout.AddMany(request, timeout=timeout, metadata=metadata).sum

    def test_a_deadline_is_kept(self):
        names = [key("late")] * 2_000
        began = time.monotonic()
        try:
            self.fanout(names, timeout=0.001)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
            assert time.monotonic() - began < 2, "the error came long after the deadline"
        else:
            raise AssertionError("2,000 calls were made within a millisecond")

    def test_a_call_that_ran_out_of_time_is_safe_to_repeat(self):
        names, calls, late = [key(f"repeated-{number}") for number in range(100)], 12, 0
        for number in range(1, calls + 1):
            metadata = ((IDEMPOTENCY_KEY, str(uuid.uuid4())),)
            try:
                self.fanout(names, timeout=0.001 * number, metadata=metadata)
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
                late += 1
            assert self.fanout(names, timeout=SECONDS, metadata=metadata) == number * len(names)
        assert late, "no call ran out of time: the test has shown nothing"
        assert [self.count(name) for name in names] == [calls] * len(names)

    # Without stubs -------------------------------------------------------------------------------------

    def test_the_generic_service_calls_any_agent(self):
        name = key("generic")
        request = counter_pb2.AddRequest(delta=4).SerializeToString()
        call = grid_pb2.CallRequest(agent=f"counter.v1.Counter/{name}", method="Add", request=request)
        answer = self.grid.Call(call, timeout=SECONDS)
        assert counter_pb2.Count.FromString(answer.response).value == 4
        assert answer.message_id
        assert self.count(name) == 4

    def test_many_calls_come_back_in_their_order(self):
        name = key("ordered")
        calls = [
            grid_pb2.CallRequest(
                agent=f"counter.v1.Counter/{name}-{number}", method="Add", request=delta(number)
            )
            for number in range(50)
        ]
        calls.insert(10, grid_pb2.CallRequest(agent=f"counter.v1.Counter/{name}", method="Nope"))
        results = list(self.grid.CallMany(grid_pb2.CallManyRequest(calls=calls), timeout=SECONDS).results)
        error = results.pop(10).error
        assert error.code == grpc.StatusCode.UNIMPLEMENTED.value[0]
        assert unpack(error, error_details_pb2.ErrorInfo).reason == "UNKNOWN_METHOD"
        values = [counter_pb2.Count.FromString(result.response.response).value for result in results]
        assert values == list(range(50))

    def test_a_pipe_carries_many_calls(self):
        name, count = key("pipe"), 500
        call = grid_pb2.CallRequest(agent=f"counter.v1.Counter/{name}", method="Add", request=delta(1))
        requests = (grid_pb2.PipeRequest(id=number, call=call) for number in range(count))
        answers = list(self.grid.Pipe(requests, timeout=SECONDS))
        assert sorted(answer.id for answer in answers) == list(range(count))
        values = sorted(
            counter_pb2.Count.FromString(answer.result.response.response).value for answer in answers
        )
        assert values == list(range(1, count + 1))
        assert self.count(name) == count

    def test_a_scatter_reaches_all_agents_with_a_prefix_and_goes_on_where_it_broke(self):
        prefix, count = key("scatter"), 400
        calls = [
            grid_pb2.CallRequest(
                agent=f"counter.v1.Counter/{prefix}-{number}", method="Add", request=delta(number)
            )
            for number in range(count)
        ]
        self.grid.CallMany(grid_pb2.CallManyRequest(calls=calls, parallel_max=64), timeout=SECONDS)
        request = grid_pb2.ScatterRequest(
            type="counter.v1.Counter", key_prefix=prefix, method="Add", request=delta(1000), parallel_max=8
        )
        values = {}

        def take(page):
            for result in page.results:
                value = counter_pb2.Count.FromString(result.response).value
                assert values.setdefault(result.agent, value) == value, f"{result.agent} changed its answer"

        stream = self.grid.Scatter(request, timeout=SECONDS)
        first = next(stream)
        take(first)
        stream.cancel()
        request.resume_token = first.resume_token
        for page in self.grid.Scatter(request, timeout=SECONDS):
            take(page)
        expected = {f"counter.v1.Counter/{prefix}-{number}": number + 1000 for number in range(count)}
        assert values == expected, f"{len(values)} of {count}"
        assert self.count(f"{prefix}-7") == 1007

    def test_reflection_tells_what_there_is(self):
        database = ProtoReflectionDescriptorDatabase(self.channel)
        wanted = {"counter.v1.Counter", "bank.v1.Account", "shop.v1.Customer", "afdg.v1.Grid"}
        missing = wanted - set(database.get_services())
        assert not missing, f"reflection does not list {missing}"

    def test_a_generic_client_calls_through_reflection(self):
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(self.channel))
        method = pool.FindServiceByName("bank.v1.Account").FindMethodByName("Deposit")
        request = message_factory.GetMessageClass(method.input_type)
        response = message_factory.GetMessageClass(method.output_type)
        call = self.channel.unary_unary(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        assert call(request(account=key("reflected"), cents=77), timeout=SECONDS).cents == 77

    def test_reflection_is_served_in_its_current_version_too(self):
        # Version 1 has the messages of version 1alpha.
        call = self.channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = call(iter([question]), timeout=SECONDS)
        assert "counter.v1.Counter" in [service.name for service in answer.list_services_response.service]


def delta(number):
    return counter_pb2.AddRequest(delta=number).SerializeToString()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--endpoint", metavar="HOST:PORT")
    where.add_argument("--ready-file", help="of `afdg dev`: tells the endpoint")
    parser.add_argument("--only", default="", help="only tests with this in their name")
    given = parser.parse_args()
    endpoint = given.endpoint or json.loads(pathlib.Path(given.ready_file).read_text())["endpoint"]
    tests = Tests(endpoint.removeprefix("http://"))
    passed, failed = 0, []
    for name, test in inspect.getmembers(tests, inspect.ismethod):
        if not name.startswith("test_") or given.only not in name:
            continue
        began = time.monotonic()
        try:
            test()
        # A test may fail in any way; the others still run.
        except Exception:  # noqa: BLE001
            failed.append(name)
            print(f"FAILED  {name}\n{traceback.format_exc()}", flush=True)
        else:
            passed += 1
            print(f"ok      {name} ({time.monotonic() - began:.1f} s)", flush=True)
    tests.channel.close()
    print(f"{passed} passed, {len(failed)} failed")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
