//! Bytes of messages that nobody waits for, as servers have written them: these literals are added to, never
//! edited.

use crate::frozen_bytes::{alice, failed, is_row, lasting_id, op_is, refused, response, turn, unhex};
use crate::region::{Region, Table};
use afdg_region_machine::{
    Op,
    op::{
        AcceptSend, CommitMessaging, FailAttempt, GivenUp, LetterVerdict, Next, SettleDeadLetter, SettleSends,
    },
    table::{
        dead_letters::{self, DeadLetter, Side},
        inbox::{self, AcceptedSend, Place},
        outbox::{self, OutgoingSend},
        replies,
    },
};
use afdg_types::AgentRef;
use bytes::Bytes;

const ACCEPT_SEND: &str = "0103ac0201051562616e6b2e76312e4163636f756e742f616c696365a53817a38c298a5d935dc454a3c69ce9074465706f7369740372657105011362616e6b2e76312e4163636f756e742f626f6280d095ffbc31f4d395ffbc3102010101080d42414c414e43455f53484f52540a746f6f206c6974746c65010563656e747303323530";
const COMMIT_MESSAGING: &str = "0103ac0201061562616e6b2e76312e4163636f756e742f616c696365018bcfe5680070018203040506070809909eb8e8c0e1828589909cb0d080c181820284e9cfaa06000004726573700101011362616e6b2e76312e4163636f756e742f626f62a53817a38c298a5d935dc454a3c69ce9074465706f7369740372657180d095ffbc3100";
const TRY_AGAIN: &str = "0103ac0201071562616e6b2e76312e4163636f756e742f616c696365a53817a38c298a5d935dc454a3c69ce9020808746f6f206d75636800f4d395ffbc3180d095ffbc31";
const GIVE_UP: &str = "0103ac0201071562616e6b2e76312e4163636f756e742f616c696365a53817a38c298a5d935dc454a3c69ce9020808746f6f206d7563680184e9cfaa0680d095ffbc31";
const SETTLE_SENDS: &str = "0103ac0201081562616e6b2e76312e4163636f756e742f616c6963650207ac02010910020808746f6f206d75636880d095ffbc31";
const RETRY_LETTER: &str = "0103ac0201091562616e6b2e76312e4163636f756e742f616c696365090080d095ffbc31";
const DROP_LETTER: &str = "0103ac0201091562616e6b2e76312e4163636f756e742f616c696365090180d095ffbc31";
const NUMBERS_VALUE: &str = "0000000000000001";
const INBOX_KEY: &str = "213cf40f62616e6b2e76312e4163636f756e740005616c6963650000000000000000";
const INBOX_VALUE: &str = "01a53817a38c298a5d935dc454a3c69ce9074465706f7369740372657105011362616e6b2e76312e4163636f756e742f626f6280d095ffbc31f4d395ffbc3102010101080d42414c414e43455f53484f52540a746f6f206c6974746c65010563656e747303323530";
const PLACE_KEY: &str = "22a53817a38c298a5d935dc454a3c69ce9";
const PLACE_VALUE: &str = "011562616e6b2e76312e4163636f756e742f616c69636500";
const OUTBOX_KEY: &str = "233cf40f62616e6b2e76312e4163636f756e740005616c6963650000000000000000";
const OUTBOX_VALUE: &str = "011362616e6b2e76312e4163636f756e742f626f62a53817a38c298a5d935dc454a3c69ce9074465706f7369740372657180d095ffbc3100";
const LETTER_KEY: &str = "243cf40f62616e6b2e76312e4163636f756e740005616c6963650000000000000001";
const LETTER_VALUE: &str = "011562616e6b2e76312e4163636f756e742f616c69636500a53817a38c298a5d935dc454a3c69ce9074465706f7369740372657105011362616e6b2e76312e4163636f756e742f626f6280d095ffbc31f4d395ffbc31030101020808746f6f206d75636880d095ffbc31";

fn bob() -> AgentRef {
    "bank.v1.Account/bob".parse().unwrap()
}

fn accepted() -> AcceptedSend {
    AcceptedSend {
        message_id: lasting_id(),
        method: "Deposit".to_owned(),
        request: Bytes::from_static(b"req"),
        digest: 5,
        sender: Some(bob()),
        accepted_ms: 1_700_000_000_000,
        due_ms: 1_700_000_000_500,
        attempts: 2,
        refusals: 1,
        last_failure: Some(refused()),
    }
}

fn outgoing() -> OutgoingSend {
    OutgoingSend {
        to: bob(),
        message_id: lasting_id(),
        method: "Deposit".to_owned(),
        request: Bytes::from_static(b"req"),
        sent_ms: 1_700_000_000_000,
        due_ms: 0,
    }
}

fn accept() -> Op {
    Op::AcceptSend(AcceptSend { agent: alice(), send: accepted() })
}

fn fail(next: Next) -> Op {
    let (agent, message_id, failure) = (alice(), lasting_id(), failed());
    Op::FailAttempt(FailAttempt { agent, message_id, failure, next, now_ms: 1_700_000_000_000 })
}

fn messaging() -> Op {
    let turn = turn(response(), vec![]);
    Op::CommitMessaging(CommitMessaging { turn, accepted: true, sends: vec![outgoing()] })
}

#[test]
fn commands() {
    op_is(accept(), ACCEPT_SEND);
    op_is(messaging(), COMMIT_MESSAGING);
    op_is(fail(Next::TryAgain { due_ms: 1_700_000_000_500 }), TRY_AGAIN);
    op_is(fail(Next::GiveUp { expires_at_s: 1_700_000_900 }), GIVE_UP);
    let given_up = GivenUp { number: 9, attempts: 16, failure: failed() };
    let accepted = vec![7, 300];
    let settle =
        SettleSends { sender: alice(), accepted, given_up: Some(given_up), now_ms: 1_700_000_000_000 };
    op_is(Op::SettleSends(settle), SETTLE_SENDS);
    let letter = |verdict| {
        Op::SettleDeadLetter(SettleDeadLetter {
            agent: alice(),
            number: 9,
            verdict,
            now_ms: 1_700_000_000_000,
        })
    };
    op_is(letter(LetterVerdict::TryAgain), RETRY_LETTER);
    op_is(letter(LetterVerdict::Drop), DROP_LETTER);
}

#[test]
fn rows() {
    let mut region = Region::default();
    region.apply_ops(3, 1, vec![accept()]);
    is_row(&region.rows, 0x02, "02", NUMBERS_VALUE);
    is_row(&region.rows, 0x21, INBOX_KEY, INBOX_VALUE);
    is_row(&region.rows, 0x22, PLACE_KEY, PLACE_VALUE);
    region.apply_ops(3, 2, vec![fail(Next::GiveUp { expires_at_s: 1_700_000_900 })]);
    is_row(&region.rows, 0x24, LETTER_KEY, LETTER_VALUE);
    let mut region = Region::default();
    region.apply_ops(3, 1, vec![messaging()]);
    is_row(&region.rows, 0x23, OUTBOX_KEY, OUTBOX_VALUE);
}

#[test]
fn what_was_stored_is_read() {
    let mut rows = Table::new();
    for (key, value) in [
        (INBOX_KEY, INBOX_VALUE),
        (PLACE_KEY, PLACE_VALUE),
        (OUTBOX_KEY, OUTBOX_VALUE),
        (LETTER_KEY, LETTER_VALUE),
    ] {
        rows.insert(unhex(key).into(), unhex(value).into());
    }
    let place = Place { agent: alice(), number: 0 };
    assert_eq!(inbox::place(&rows, lasting_id()), Ok(Some(place.clone())));
    assert_eq!(inbox::get(&rows, &place), Ok(accepted()));
    assert_eq!(inbox::all(&rows), Ok(vec![(alice(), accepted())]));
    assert_eq!(outbox::get(&rows, &alice(), 0), Ok(Some(outgoing())));
    assert_eq!(
        outbox::all(&rows),
        Ok(vec![outbox::Lying { sender: alice(), to: bob(), number: 0, bytes: 3 }])
    );
    let send = AcceptedSend { attempts: 3, last_failure: Some(failed()), ..accepted() };
    let letter = DeadLetter { to: alice(), side: Side::Receiver, send, died_ms: 1_700_000_000_000 };
    assert_eq!(dead_letters::get(&rows, &alice(), 1), Ok(Some(letter)));
    assert_eq!(dead_letters::page(&rows, None, 10).unwrap().letters.len(), 1);
    assert_eq!(replies::get(&rows, lasting_id()), Ok(None));
}
