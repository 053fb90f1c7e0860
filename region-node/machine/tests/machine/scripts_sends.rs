//! What becomes of messages that nobody waits for.

use crate::script::check;

#[test]
fn a_send_stands_in_the_inbox_until_its_turn_is_committed() {
    check(
        "
        1.1 accept alice 1; accept alice 2 from:bob due:5000; accept alice 1
        > accepted
        > accepted
        > accepted
        show
        > fence 1.1
        > next number 2
        > alice inbox 0: 1
        > alice inbox 1: 2 from bob due 5000
        1.2 turn alice 1 a=1 accepted
        > committed
        1.3 accept alice 1
        > accepted
        restart
        show
        > fence 1.3
        > next number 2
        > alice a=1
        > alice inbox 1: 2 from bob due 5000
        > id 1 until 100: answered 1
        ",
    );
}

#[test]
fn a_turns_sends_stand_in_its_outbox_with_its_effects_or_not_at_all() {
    check(
        "
        1.1 turn alice 1 a=1 send:bob:11 send:carol:12
        > committed, sends from 0
        1.2 turn alice 1 a=2 send:bob:13
        > duplicate, answered 1
        1.3 turn alice 2 send:bob:14
        > refused: its base was
        show
        > fence 1.3
        > next number 2
        > alice a=1
        > alice outbox 0: 11 to bob
        > alice outbox 1: 12 to carol
        > id 1 until 100: answered 1
        > a turn of alice was refused in 1
        2.1 settle alice 0
        > done
        show
        > fence 2.1
        > next number 2
        > alice a=1
        > alice outbox 1: 12 to carol
        > id 1 until 100: answered 1
        ",
    );
}

#[test]
fn a_failed_attempt_counts_and_the_last_one_makes_a_dead_letter() {
    check(
        "
        1.1 accept alice 1; record alice 1; fail alice 1 again:2000
        > accepted
        > recorded
        > done
        1.2 fail alice 1 refused again:3000
        > done
        show
        > fence 1.2
        > next number 1
        > alice inbox 0: 1 due 3000, 2 attempts, 1 refusals
        1.3 fail alice 1 up:70; fail alice 1 up:70; fail bob 1 up:70
        > done
        > refused: its send does not stand there
        > refused: its send does not stand there
        show
        > fence 1.3
        > next number 2
        > alice dead letter 1 to alice, Receiver: 1 due 3000, 3 attempts, 1 refusals
        > id 1 until 70: failed HANDLER_PANICKED: it panicked
        1.4 accept alice 1
        > accepted
        1.5 letter alice 1 retry; letter alice 1 retry
        > accepted again: 1
        > done
        show
        > fence 1.5
        > next number 3
        > alice inbox 2: 1 due 9500, 0 attempts, 1 refusals
        1.6 turn alice 1 a=1 accepted
        > committed
        show
        > fence 1.6
        > next number 3
        > alice a=1
        > id 1 until 100: answered 1
        ",
    );
}

#[test]
fn an_attempt_on_a_refused_turns_effects_does_not_count() {
    check(
        "
        1.1 accept alice 1; turn alice 2
        > accepted
        > committed
        2.1 turn alice 2; fail alice 1 again:2000
        > duplicate, answered 2
        > refused: its base was
        3.1 fail alice 1 again:2000
        > done
        ",
    );
}

#[test]
fn a_send_that_is_not_accepted_is_a_dead_letter_of_its_sender() {
    check(
        "
        1.1 turn alice 1 send:bob:11 send:bob:12
        > committed, sends from 0
        1.2 settle alice dead:0; settle alice dead:0 7
        > done
        > done
        show
        > fence 1.2
        > next number 3
        > alice outbox 1: 12 to bob
        > alice dead letter 2 to bob, Sender: 11 from alice, 3 attempts, 0 refusals
        > id 1 until 100: answered 1
        1.3 letter alice 2 retry
        > sent again to bob: 3
        1.4 settle alice dead:3
        > done
        1.5 letter alice 4 drop
        > done
        restart
        show
        > fence 1.5
        > next number 5
        > alice outbox 1: 12 to bob
        > id 1 until 100: answered 1
        ",
    );
}

#[test]
fn a_dead_letter_whose_message_was_sent_anew_is_not_tried_again() {
    check(
        "
        1.1 accept alice 1; fail alice 1 up:70
        > accepted
        > done
        1.2 forget 80
        > done
        1.3 accept alice 1; letter alice 1 retry
        > accepted
        > 1 is over
        show
        > fence 1.3
        > next number 3
        > alice inbox 2: 1
        1.4 fail alice 1 up:90; turn bob 2
        > done
        > committed
        1.5 forget 95; turn alice 1 a=1; letter alice 3 retry
        > done
        > committed
        > 1 is over
        show
        > fence 1.5
        > next number 4
        > alice a=1
        > id 1 until 100: answered 1
        > id 2 until 100: answered 2
        ",
    );
}
