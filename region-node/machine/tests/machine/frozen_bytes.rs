//! Bytes that servers have written and logs and disks hold: these literals are added to, never edited.

use crate::region::{Region, Table};
use afdg_region_machine::{
    Command, Op,
    op::{CollectGarbage, CommitTurn, ForgetIds, KeepId, RecordChainedTurn, RecordTurn, RowChange},
    table::{
        entities,
        fence::{self, Fence},
        mailbox::{self, RecordedTurn},
        refusals,
        replies::{self, Reply, TurnReply},
    },
    validate,
};
use afdg_types::{AgentError, AgentRef, Code, MessageId, Reason, Slot};
use bytes::Bytes;

const FENCE_VALUE: &str = "010301";
const FENCE_VALUE_OF_LEADERSHIP: &str = "0103828080808020";
const MAILBOX_KEY: &str = "203cf40f62616e6b2e76312e4163636f756e740005616c696365";
const MAILBOX_VALUE: &str = "01018bcfe5680070018203040506070809074465706f7369740372657105011362616e6b2e76312e4163636f756e742f626f6280d095ffbc31ffffffffffffffffff01";
const ENTITY_KEY: &str = "103cf40f62616e6b2e76312e4163636f756e740005616c696365016500";
const ROUTER_REPLY_KEY: &str = "30018bcfe5680070018203040506070809";
const ROUTER_REPLY_VALUE: &str = "01f479909eb8e8c0e1828589909cb0d080c181820200000472657370";
const LASTING_REPLY_KEY: &str = "31a53817a38c298a5d935dc454a3c69ce9";
const REPLY_VALUE_RESPONSE: &str = "01f479909eb8e8c0e1828589909cb0d080c181820284e9cfaa06000472657370";
const EXPIRY_KEY: &str = "32000000006553f484a53817a38c298a5d935dc454a3c69ce9";
const GARBAGE_KEY: &str = "40103cf40f62616e6b2e76312e4163636f756e740005616c696365016501";
const REFUSAL_KEY: &str = "503cf40f62616e6b2e76312e4163636f756e740005616c696365";
const REPLY_VALUE_REFUSED: &str = "01f479909eb8e8c0e1828589909cb0d080c181820284e9cfaa0601080d42414c414e43455f53484f52540a746f6f206c6974746c65010563656e747303323530";
const REPLY_VALUE_FAILED: &str = "01f479909eb8e8c0e1828589909cb0d080c181820284e9cfaa06020808746f6f206d756368";
const COMMIT_TURN_RESPONSE: &str = "0103ac0201001562616e6b2e76312e4163636f756e742f616c696365018bcfe5680070018203040506070809909eb8e8c0e1828589909cb0d080c181820284e9cfaa060300016b0576616c756501016402017000047265737001";
const COMMIT_TURN_REFUSED: &str = "0103ac0201001562616e6b2e76312e4163636f756e742f616c696365018bcfe5680070018203040506070809909eb8e8c0e1828589909cb0d080c181820284e9cfaa060001080d42414c414e43455f53484f52540a746f6f206c6974746c65010563656e74730332353001";
const COMMIT_TURN_FAILED: &str = "0103ac0201001562616e6b2e76312e4163636f756e742f616c696365018bcfe5680070018203040506070809909eb8e8c0e1828589909cb0d080c181820284e9cfaa0600020808746f6f206d75636801";
const RECORD_TURN: &str = "0103ac0201011562616e6b2e76312e4163636f756e742f616c696365018bcfe5680070018203040506070809074465706f7369740372657105011362616e6b2e76312e4163636f756e742f626f6280d095ffbc31ffffffffffffffffff01";
const RECORD_CHAINED_TURN: &str = "0103ac02010d1562616e6b2e76312e4163636f756e742f616c696365018bcfe5680070018203040506070809074465706f7369740372657105011362616e6b2e76312e4163636f756e742f626f6280d095ffbc31ffffffffffffffffff0101a53817a38c298a5d935dc454a3c69ce9";
const MAILBOX_VALUE_WITH_REENTRIES: &str = "02018bcfe5680070018203040506070809074465706f7369740372657105011362616e6b2e76312e4163636f756e742f626f6280d095ffbc31ffffffffffffffffff0101a53817a38c298a5d935dc454a3c69ce9";
const KEEP_ID: &str = "0103ac020102a53817a38c298a5d935dc454a3c69ce984e9cfaa06";
const FORGET_IDS: &str = "0103ac02010380e2cfaa06";
const COLLECT_GARBAGE: &str = "0103ac020104";

pub fn alice() -> AgentRef {
    "bank.v1.Account/alice".parse().unwrap()
}

/// Made by a router.
fn id() -> MessageId {
    "018bcfe5-6800-7001-8203-040506070809".parse().unwrap()
}

/// Made from an idempotency key.
pub fn lasting_id() -> MessageId {
    "a53817a3-8c29-8a5d-935d-c454a3c69ce9".parse().unwrap()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|digit| !digit.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

pub fn turn(reply: TurnReply, changes: Vec<RowChange>) -> CommitTurn {
    CommitTurn {
        agent: alice(),
        message_id: id(),
        digest: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
        expires_at_s: 1_700_000_900,
        changes,
        reply,
        recorded: true,
    }
}

fn recorded() -> RecordedTurn {
    RecordedTurn {
        message_id: id(),
        method: "Deposit".to_owned(),
        request: Bytes::from_static(b"req"),
        digest: 5,
        chain: vec!["bank.v1.Account/bob".parse().unwrap()],
        now_ms: 1_700_000_000_000,
        seed: u64::MAX,
        reentries: Vec::new(),
    }
}

pub fn response() -> TurnReply {
    TurnReply::Response(Bytes::from_static(b"resp"))
}

pub fn refused() -> TurnReply {
    TurnReply::Refused(AgentError::refused("BALANCE_SHORT", "too little").with("cents", 250))
}

pub fn failed() -> TurnReply {
    TurnReply::Failed { reason: Reason::TurnTooLarge, message: "too much".to_owned() }
}

pub fn op_is(op: Op, frozen: &str) {
    let command = Command { term: 3, sequence: 300, ops: vec![op] };
    assert_eq!(hex(&command.encode().unwrap()), hex(&unhex(frozen)), "{command:?}");
    assert_eq!(Command::decode(&unhex(frozen)), Ok(command));
}

#[test]
fn command_with_commit_turn() {
    let changes = vec![
        RowChange::Put { key: Bytes::from_static(b"k"), value: Bytes::from_static(b"value") },
        RowChange::Delete { key: Bytes::from_static(b"d") },
        RowChange::DropPrefix { prefix: Bytes::from_static(b"p") },
    ];
    op_is(Op::CommitTurn(turn(response(), changes)), COMMIT_TURN_RESPONSE);
    op_is(Op::CommitTurn(turn(refused(), vec![])), COMMIT_TURN_REFUSED);
    op_is(Op::CommitTurn(turn(failed(), vec![])), COMMIT_TURN_FAILED);
}

#[test]
fn command_with_record_turn() {
    op_is(Op::RecordTurn(RecordTurn { agent: alice(), turn: recorded() }), RECORD_TURN);
}

fn chained() -> Op {
    let record = RecordTurn { agent: alice(), turn: recorded() };
    Op::RecordChainedTurn(RecordChainedTurn { record, reentries: vec![lasting_id()] })
}

#[test]
fn a_turn_with_reentries() {
    op_is(chained(), RECORD_CHAINED_TURN);
    let mut region = Region::default();
    region.apply_ops(3, 1, vec![chained()]);
    is_row(&region.rows, 0x20, MAILBOX_KEY, MAILBOX_VALUE_WITH_REENTRIES);

    let mut rows = Table::new();
    rows.insert(unhex(MAILBOX_KEY).into(), unhex(MAILBOX_VALUE_WITH_REENTRIES).into());
    let stored = RecordedTurn { reentries: vec![lasting_id()], ..recorded() };
    assert_eq!(mailbox::get(&rows, &alice()), Ok(Some(stored.clone())));
    assert_eq!(mailbox::all(&rows), Ok(vec![(alice(), stored)]));
    for cut in [1, 16, 17] {
        let mut value = unhex(MAILBOX_VALUE_WITH_REENTRIES);
        value.truncate(value.len() - cut);
        rows.insert(unhex(MAILBOX_KEY).into(), value.into());
        mailbox::get(&rows, &alice()).unwrap_err();
    }
}

#[test]
fn command_with_housekeeping() {
    let keep = KeepId { message_id: lasting_id(), expires_at_s: 1_700_000_900 };
    op_is(Op::KeepId(keep), KEEP_ID);
    op_is(Op::ForgetIds(ForgetIds { now_s: 1_700_000_000 }), FORGET_IDS);
    op_is(Op::CollectGarbage(CollectGarbage {}), COLLECT_GARBAGE);
}

#[test]
fn command_without_operations() {
    let command = Command { term: u64::MAX, sequence: 1, ops: vec![] };
    assert_eq!(hex(&command.encode().unwrap()), "01ffffffffffffffffff010100");
}

/// A row, as (key, value).
fn row(rows: &Table, table: u8) -> (String, String) {
    let mut of_table = rows.iter().filter(|(key, _)| key[0] == table);
    let (key, value) = of_table.next().unwrap();
    assert_eq!(of_table.next(), None, "one row of table {table:#x} was expected");
    (hex(key), hex(value))
}

pub fn is_row(rows: &Table, table: u8, key: &str, value: &str) {
    assert_eq!(row(rows, table), (hex(&unhex(key)), hex(&unhex(value))), "table {table:#x}");
}

#[test]
fn rows_of_every_table() {
    let mut region = Region::default();
    region.apply_ops(3, 1, vec![Op::RecordTurn(RecordTurn { agent: alice(), turn: recorded() })]);
    is_row(&region.rows, 0x01, "01", FENCE_VALUE);
    is_row(&region.rows, 0x20, MAILBOX_KEY, MAILBOX_VALUE);

    let changes = vec![
        RowChange::Put { key: Bytes::from_static(b"\x01e\x00"), value: Bytes::from_static(b"value") },
        RowChange::DropPrefix { prefix: Bytes::from_static(b"\x01e\x01") },
    ];
    region.apply_ops(3, 2, vec![Op::CommitTurn(turn(response(), changes))]);
    is_row(&region.rows, 0x10, ENTITY_KEY, "76616c7565");
    is_row(&region.rows, 0x30, ROUTER_REPLY_KEY, ROUTER_REPLY_VALUE);
    is_row(&region.rows, 0x40, GARBAGE_KEY, "");

    let lasting = CommitTurn { message_id: lasting_id(), ..turn(response(), vec![]) };
    region.apply_ops(3, 3, vec![Op::CommitTurn(lasting)]);
    is_row(&region.rows, 0x31, LASTING_REPLY_KEY, REPLY_VALUE_RESPONSE);
    is_row(&region.rows, 0x32, EXPIRY_KEY, "");

    let mut led = Region::default();
    for entry in 0..3 {
        led.apply_ops(3, Fence::first_of(1) + entry, vec![]);
    }
    is_row(&led.rows, 0x01, "01", FENCE_VALUE_OF_LEADERSHIP);

    region.apply_ops(4, 1, vec![Op::CommitTurn(turn(response(), vec![]))]);
    is_row(&region.rows, 0x50, REFUSAL_KEY, "0000000000000004");
}

#[test]
fn replies_of_each_kind() {
    for (kind, frozen) in
        [(response(), REPLY_VALUE_RESPONSE), (refused(), REPLY_VALUE_REFUSED), (failed(), REPLY_VALUE_FAILED)]
    {
        let mut region = Region::default();
        let turn = CommitTurn { message_id: lasting_id(), ..turn(kind.clone(), vec![]) };
        region.apply_ops(3, 1, vec![Op::CommitTurn(turn)]);
        assert_eq!(row(&region.rows, 0x31).1, hex(&unhex(frozen)), "{kind:?}");
    }
}

#[test]
fn what_was_stored_is_read() {
    let mut rows = Table::new();
    let mut put = |key: &str, value: &str| {
        rows.insert(unhex(key).into(), unhex(value).into());
    };
    put("01", FENCE_VALUE);
    put(MAILBOX_KEY, MAILBOX_VALUE);
    put(REFUSAL_KEY, "0000000000000004");
    assert_eq!(fence::get(&rows), Ok(Fence { term: 3, sequence: 1 }));
    let mut later = Table::new();
    later.insert(unhex("01").into(), unhex(FENCE_VALUE_OF_LEADERSHIP).into());
    assert_eq!(fence::get(&later), Ok(Fence { term: 3, sequence: Fence::first_of(1) + 2 }));
    assert_eq!(mailbox::get(&rows, &alice()), Ok(Some(recorded())));
    assert_eq!(mailbox::all(&rows), Ok(vec![(alice(), recorded())]));
    assert_eq!(refusals::stands(&rows, &alice(), 4), Ok(true));
    assert_eq!(refusals::stands(&rows, &alice(), 3), Ok(false));

    for (frozen, reply) in
        [(REPLY_VALUE_RESPONSE, response()), (REPLY_VALUE_REFUSED, refused()), (REPLY_VALUE_FAILED, failed())]
    {
        let mut rows = Table::new();
        rows.insert(unhex(LASTING_REPLY_KEY).into(), unhex(frozen).into());
        rows.insert(unhex(EXPIRY_KEY).into(), Bytes::new());
        let digest = turn(response(), vec![]).digest;
        let known = Reply { slot: Slot::of(&alice()), digest, expires_at_s: 1_700_000_900, reply };
        assert_eq!(replies::get(&rows, lasting_id()), Ok(Some(known)));
        assert_eq!(replies::any_expired(&rows, 1_700_000_900), Ok(false));
        assert_eq!(replies::any_expired(&rows, 1_700_000_901), Ok(true));
        validate(&rows).unwrap();
    }
    let (agent, own) =
        entities::parse(&entities::key(&alice(), b"own")).map(|(a, o)| (a, o.to_vec())).unwrap();
    assert_eq!((agent, own.as_slice()), (alice(), &b"own"[..]));
}

#[test]
fn the_digest_of_a_request() {
    let digest = replies::digest(&alice(), "Deposit", b"req");
    assert_eq!(format!("{digest:032x}"), "b7881ca9f8a3bb918ba9e7631933261f");
    for (other, differs) in [
        (replies::digest(&alice(), "Deposit", b"req"), &[][..]),
        (replies::digest(&"bank.v1.Account/bob".parse().unwrap(), "Deposit", b"req"), &["agent"]),
        (replies::digest(&alice(), "Withdraw", b"req"), &["method"]),
        (replies::digest(&alice(), "Deposit", b"other"), &["request"]),
        (replies::digest(&alice(), "Depositr", b"eq"), &["method", "request"]),
    ] {
        assert_eq!(replies::differences(digest, other), differs);
        assert_eq!(replies::is_for(other, &alice()), !differs.contains(&"agent"));
        assert_eq!(replies::is_of_method(other, "Deposit"), !differs.contains(&"method"));
    }
}

const REASONS: &str = "
    0 UNKNOWN_TYPE
    1 UNKNOWN_METHOD
    2 KEY_MISSING
    3 KEY_MALFORMED
    4 REQUEST_MALFORMED
    5 MESSAGE_TOO_LARGE
    6 HANDLER_PANICKED
    7 HANDLER_TIMED_OUT
    8 TURN_TOO_LARGE
    9 OVERLOADED
    10 NO_LEADER
    11 NOT_LEADER
    12 STALE_ROUTE
    13 NOT_READY
    14 UNREACHABLE
    15 DRAINING
    16 OUTCOME_UNKNOWN
    17 DEADLINE_EXCEEDED
    18 DEADLINE_OUTCOME_UNKNOWN
    19 CALL_CYCLE
    20 CALL_CHAIN_TOO_LONG
    21 ID_REUSED
    22 ID_EXPIRED
    23 NOT_A_PEER
    24 WRONG_CLUSTER
    25 NOT_FOUND
    26 INVALID_REQUEST
    27 INTERNAL
";

const CODES: &str = "
    0 CANCELLED
    1 UNKNOWN
    2 INVALID_ARGUMENT
    3 DEADLINE_EXCEEDED
    4 NOT_FOUND
    5 ALREADY_EXISTS
    6 PERMISSION_DENIED
    7 RESOURCE_EXHAUSTED
    8 FAILED_PRECONDITION
    9 ABORTED
    10 OUT_OF_RANGE
    11 UNIMPLEMENTED
    12 INTERNAL
    13 UNAVAILABLE
    14 DATA_LOSS
    15 UNAUTHENTICATED
";

/// Replies hold reasons and codes by their number, which is their place in the list.
#[test]
fn numbers_of_reasons_and_codes() {
    let reasons = Reason::ALL.iter().map(|reason| {
        let reply = TurnReply::Failed { reason: *reason, message: String::new() };
        let mut region = Region::default();
        region.apply_ops(1, 1, vec![Op::CommitTurn(turn(reply, vec![]))]);
        let stored = unhex(&row(&region.rows, 0x30).1);
        format!("{} {reason}", stored[stored.len() - 2])
    });
    let frozen: Vec<&str> = REASONS.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    // More may come behind them.
    assert_eq!(reasons.take(frozen.len()).collect::<Vec<_>>(), frozen);
    let codes = Code::ALL.map(|code| {
        let reply = TurnReply::Refused(AgentError::new(code, "", ""));
        let mut region = Region::default();
        region.apply_ops(1, 1, vec![Op::CommitTurn(turn(reply, vec![]))]);
        let stored = unhex(&row(&region.rows, 0x30).1);
        format!("{} {code}", stored[stored.len() - 4])
    });
    let frozen: Vec<&str> = CODES.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(codes.as_slice(), frozen);
}
