//! What becomes of schedules.

use crate::script::check;

#[test]
fn a_schedule_sends_to_its_own_agent_by_the_inbox_once_for_each_due_time() {
    check(
        "
        1.1 turn alice 1 a=1 set:rent:due=8000
        > committed
        show
        > fence 1.1
        > next number 1
        > alice a=1
        > alice schedule rent 0: every 1000 to alice, Once
        > alice rent is due 8000, has sent 0
        > id 1 until 100: answered 1
        1.2 fire alice rent 0 at:8000 send:8000 next:9000; fire alice rent 0 at:8000 send:8000 next:9000
        > fired 8000 as 1
        > it does not stand there
        show
        > fence 1.2
        > next number 2
        > alice a=1
        > alice inbox 1: a firing from alice due 8000
        > alice schedule rent 0: every 1000 to alice, Once
        > alice rent is due 9000, has sent 1
        > id 1 until 100: answered 1
        restart
        1.3 fire alice rent 0 at:9000 send:9000
        > fired 9000 as 2
        show
        > fence 1.3
        > next number 3
        > alice a=1
        > alice inbox 1: a firing from alice due 8000
        > alice inbox 2: a firing from alice due 9000
        > id 1 until 100: answered 1
        ",
    );
}

#[test]
fn a_schedule_sends_to_another_agent_by_the_outbox() {
    check(
        "
        1.1 turn alice 1 set:rent:due=8000,to=bob,all send:carol:12
        > committed, sends from 0
        1.2 fire alice rent 1 at:8000 send:8000 send:9000 next:10000
        > fired 8000 as 2, 9000 as 3
        show
        > fence 1.2
        > next number 4
        > alice outbox 0: 12 to carol
        > alice outbox 2: a firing to bob
        > alice outbox 3: a firing to bob
        > alice schedule rent 1: every 1000 to bob, All
        > alice rent is due 10000, has sent 2
        > id 1 until 100: answered 1
        ",
    );
}

#[test]
fn due_times_that_are_skipped_send_nothing() {
    check(
        "
        1.1 turn alice 1 set:rent:due=8000
        > committed
        1.2 fire alice rent 0 at:8000 next:20000
        > fired nothing
        show
        > fence 1.2
        > next number 1
        > alice schedule rent 0: every 1000 to alice, Once
        > alice rent is due 20000, has sent 0
        > id 1 until 100: answered 1
        ",
    );
}

#[test]
fn a_schedule_that_is_set_again_keeps_its_due_time_unless_it_is_due_at_other_times() {
    check(
        "
        1.1 turn alice 1 set:rent:due=8000
        > committed
        1.2 fire alice rent 0 at:8000 send:8000 next:9000
        > fired 8000 as 1
        1.3 turn alice 2 set:rent:due=8500
        > committed
        1.4 fire alice rent 0 at:9000 send:9000 next:10000
        > fired 9000 as 2
        1.5 turn alice 3 set:rent:due=8600,all
        > committed
        show
        > fence 1.5
        > next number 4
        > alice inbox 1: a firing from alice due 8000
        > alice inbox 2: a firing from alice due 9000
        > alice schedule rent 3: every 1000 to alice, All
        > alice rent is due 10000, has sent 2
        > id 1 until 100: answered 1
        > id 2 until 100: answered 2
        > id 3 until 100: answered 3
        1.6 fire alice rent 0 at:10000 send:10000 next:11000; turn alice 4 set:rent:due=8700,every=500
        > it does not stand there
        > committed
        show
        > fence 1.6
        > next number 5
        > alice inbox 1: a firing from alice due 8000
        > alice inbox 2: a firing from alice due 9000
        > alice schedule rent 4: every 500 to alice, Once
        > alice rent is due 8700, has sent 0
        > id 1 until 100: answered 1
        > id 2 until 100: answered 2
        > id 3 until 100: answered 3
        > id 4 until 100: answered 4
        ",
    );
}

#[test]
fn a_schedule_goes_when_its_agent_or_a_person_cancels_it() {
    check(
        "
        1.1 turn alice 1 set:rent:due=8000 set:heat:due=8000; turn bob 2 set:rent:due=8000
        > committed
        > committed
        1.2 turn alice 3 unset:rent unset:none; fire alice rent 0 at:8000 send:8000 next:9000
        > committed
        > it does not stand there
        1.3 cancel alice heat 7; cancel alice heat 1; cancel alice heat 1; fire alice heat 1 at:8000 send:8000
        > not there
        > cancelled
        > not there
        > it does not stand there
        1.4 turn alice 4 set:x:due=1 unset:x
        > committed
        show
        > fence 1.4
        > next number 4
        > bob schedule rent 2: every 1000 to bob, Once
        > bob rent is due 8000, has sent 0
        > id 1 until 100: answered 1
        > id 2 until 100: answered 2
        > id 3 until 100: answered 3
        > id 4 until 100: answered 4
        ",
    );
}

#[test]
fn a_turn_that_has_taken_effect_or_is_refused_sets_nothing() {
    check(
        "
        1.1 turn alice 1
        > committed
        1.2 turn alice 1 set:rent:due=8000; turn alice 2 set:rent:due=8000
        > duplicate, answered 1
        > refused: its base was
        show
        > fence 1.2
        > id 1 until 100: answered 1
        > a turn of alice was refused in 1
        2.1 accept alice 5; turn alice 5 accepted set:rent:due=8000
        > accepted
        > committed
        show
        > fence 2.1
        > next number 2
        > alice schedule rent 1: every 1000 to alice, Once
        > alice rent is due 8000, has sent 0
        > id 1 until 100: answered 1
        > id 5 until 100: answered 5
        ",
    );
}
