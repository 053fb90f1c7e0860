//! What each operation does.

use crate::script::check;

#[test]
fn a_turn_leaves_its_rows_and_its_answer() {
    check(
        "
        1.1 turn alice 1 a=1 b=2; turn bob 2 refused; turn bob 3 failed
        > committed
        > committed
        > committed
        1.2 turn alice 4 -a b=3 -nothing until:70; turn alice 5
        > committed
        > committed
        show
        > fence 1.2
        > alice b=3
        > id 1 until 100: answered 1
        > id 2 until 100: refused FAILED_PRECONDITION: no
        > id 3 until 100: failed HANDLER_PANICKED: it panicked
        > id 4 until 70: answered 4
        > id 5 until 100: answered 5
        ",
    );
}

#[test]
fn an_entry_that_finds_nothing_to_do_only_moves_the_fence() {
    check(
        "
        1.1 collect; forget 1
        > done
        > done
        show
        > fence 1.1
        ",
    );
}

#[test]
fn a_known_id_gets_the_answer_it_got_and_changes_nothing() {
    check(
        "
        1.1 turn alice 1 a=1; turn alice 2 refused; turn alice 3 failed
        > committed
        > committed
        > committed
        2.1 turn alice 1 a=9 b=9 failed
        > duplicate, answered 1
        show
        > fence 2.1
        > alice a=1
        > id 1 until 100: answered 1
        > id 2 until 100: refused FAILED_PRECONDITION: no
        > id 3 until 100: failed HANDLER_PANICKED: it panicked
        > a turn of alice was refused in 2
        3.1 turn alice 2 a=9
        > duplicate, refused FAILED_PRECONDITION: no
        4.1 turn alice 3 a=9
        > duplicate, failed HANDLER_PANICKED: it panicked
        5.1 record alice 1
        > duplicate, answered 1
        6.1 turn bob 1 b=1
        > duplicate, answered 1
        show
        > fence 6.1
        > alice a=1
        > id 1 until 100: answered 1
        > id 2 until 100: refused FAILED_PRECONDITION: no
        > id 3 until 100: failed HANDLER_PANICKED: it panicked
        > a turn of bob was refused in 6
        ",
    );
}

#[test]
fn a_refused_turn_takes_the_agents_later_turns_of_its_term_along() {
    check(
        "
        1.1 turn alice 1 a=1
        > committed
        2.1 turn alice 1 a=2; turn alice 2 a=3; turn bob 3 b=1; record alice 4
        > duplicate, answered 1
        > refused: its base was
        > committed
        > refused: its base was
        2.2 turn alice 5 a=4; keep 1 200; turn carol 6 c=1
        > refused: its base was
        > done
        > committed
        restart
        2.3 turn alice 1 a=5; turn bob 7 b=2
        > refused: its base was
        > committed
        show
        > fence 2.3
        > carol c=1
        > alice a=1
        > bob b=2
        > id 1 until 200: answered 1
        > id 3 until 100: answered 3
        > id 6 until 100: answered 6
        > id 7 until 100: answered 7
        > a turn of alice was refused in 2
        3.1 turn alice 2 a=3
        > committed
        show
        > fence 3.1
        > carol c=1
        > alice a=3
        > bob b=2
        > id 1 until 200: answered 1
        > id 2 until 100: answered 2
        > id 3 until 100: answered 3
        > id 6 until 100: answered 6
        > id 7 until 100: answered 7
        ",
    );
}

#[test]
fn refusals_of_several_agents_are_forgotten_together() {
    check(
        "
        1.1 turn alice 1; turn bob 2
        > committed
        > committed
        4.1 turn alice 1; turn bob 2
        > duplicate, answered 1
        > duplicate, answered 2
        9.1 turn bob 2
        > duplicate, answered 2
        show
        > fence 9.1
        > id 1 until 100: answered 1
        > id 2 until 100: answered 2
        > a turn of bob was refused in 9
        9.2 turn alice 3 a=1; turn bob 4 b=1
        > committed
        > refused: its base was
        ",
    );
}

#[test]
fn a_turn_stands_in_the_mailbox_until_it_is_committed() {
    check(
        "
        1.1 record alice 1 seed:11; turn bob 2 b=1
        > recorded
        > committed
        show
        > fence 1.1
        > bob b=1
        > alice recorded 1 seed 11
        > id 2 until 100: answered 2
        2.1 record alice 1 seed:12
        > recorded
        show
        > fence 2.1
        > bob b=1
        > alice recorded 1 seed 11
        > id 2 until 100: answered 2
        2.2 turn alice 1 recorded a=1
        > committed
        show
        > fence 2.2
        > alice a=1
        > bob b=1
        > id 1 until 100: answered 1
        > id 2 until 100: answered 2
        2.3 record alice 3; record bob 4
        > recorded
        > recorded
        2.4 turn alice 3 recorded refused
        > committed
        show
        > fence 2.4
        > alice a=1
        > bob b=1
        > bob recorded 4 seed 7
        > id 1 until 100: answered 1
        > id 2 until 100: answered 2
        > id 3 until 100: refused FAILED_PRECONDITION: no
        ",
    );
}

#[test]
fn an_agent_has_one_turn_in_the_mailbox() {
    check(
        "
        1.1 record alice 1; record alice 2; turn alice 3 a=1; record bob 2
        > recorded
        > refused: another turn stands there
        > refused: its base was
        > recorded
        show
        > fence 1.1
        > alice recorded 1 seed 7
        > bob recorded 2 seed 7
        > a turn of alice was refused in 1
        1.2 turn alice 1 recorded a=1
        > refused: its base was
        2.1 turn alice 1 recorded a=1
        > committed
        2.2 record alice 2
        > recorded
        show
        > fence 2.2
        > alice a=1
        > alice recorded 2 seed 7
        > bob recorded 2 seed 7
        > id 1 until 100: answered 1
        ",
    );
}

#[test]
fn an_id_is_kept_longer_and_never_shorter() {
    check(
        "
        1.1 turn alice 1 until:50; keep 1 40; keep 1 50; keep 9 99
        > committed
        > done
        > done
        > done
        1.2 keep 1 60
        > done
        show
        > fence 1.2
        > id 1 until 60: answered 1
        1.3 forget 60
        > done
        1.4 turn alice 1
        > duplicate, answered 1
        1.5 forget 61
        > done
        2.1 turn alice 1 a=1
        > committed
        show
        > fence 2.1
        > alice a=1
        > id 1 until 100: answered 1
        ",
    );
}

#[test]
fn only_ids_past_their_second_are_forgotten() {
    check(
        "
        1.1 turn alice 1 until:10; turn bob 2 until:20; turn carol 3 until:30; turn alice 4 until:20
        > committed
        > committed
        > committed
        > committed
        1.2 forget 20
        > done
        show
        > fence 1.2
        > id 2 until 20: answered 2
        > id 3 until 30: answered 3
        > id 4 until 20: answered 4
        1.3 forget 21; forget 21; forget 0
        > done
        > done
        > done
        show
        > fence 1.3
        > id 3 until 30: answered 3
        ",
    );
}

#[test]
fn rows_under_a_dropped_prefix_go_when_garbage_is_collected() {
    check(
        "
        1.1 turn alice 1 a=1 p1=1 p2=2 q=3; turn bob 2 p1=4
        > committed
        > committed
        1.2 turn alice 3 drop:p r=5
        > committed
        show
        > fence 1.2
        > alice a=1
        > alice p1=1
        > alice p2=2
        > alice q=3
        > alice r=5
        > bob p1=4
        > id 1 until 100: answered 1
        > id 2 until 100: answered 2
        > id 3 until 100: answered 3
        > garbage alice p
        1.3 collect; collect
        > done
        > done
        show
        > fence 1.3
        > alice a=1
        > alice q=3
        > alice r=5
        > bob p1=4
        > id 1 until 100: answered 1
        > id 2 until 100: answered 2
        > id 3 until 100: answered 3
        ",
    );
}

#[test]
fn all_rows_of_an_agent_and_several_prefixes_are_collected_at_once() {
    check(
        "
        1.1 turn alice 1 a=1 b=2; turn bob 2 p1=3 q1=4 r=5
        > committed
        > committed
        1.2 turn alice 3 drop:; turn bob 4 drop:p drop:q drop:x
        > committed
        > committed
        1.3 collect
        > done
        show
        > fence 1.3
        > bob r=5
        > id 1 until 100: answered 1
        > id 2 until 100: answered 2
        > id 3 until 100: answered 3
        > id 4 until 100: answered 4
        ",
    );
}

#[test]
fn a_routers_id_is_kept_for_the_time_since_it_was_made() {
    // 15 minutes and twice what clocks may differ by, whatever the turn says.
    check(
        "
        1.1 turn alice r1000 until:5; turn bob r2999 a=1; turn carol r4000; turn alice 9 until:950
        > committed
        > committed
        > committed
        > committed
        1.2 keep r1000 99999; forget 919; forget 921
        > done
        > done
        > done
        show
        > fence 1.2
        > bob a=1
        > id r1000: answered r1000
        > id r2999: answered r2999
        > id r4000: answered r4000
        > id 9 until 950: answered 9
        1.3 forget 922
        > done
        show
        > fence 1.3
        > bob a=1
        > id r2999: answered r2999
        > id r4000: answered r4000
        > id 9 until 950: answered 9
        1.4 forget 923
        > done
        1.5 turn carol r4000
        > duplicate, answered r4000
        1.6 forget 951
        > done
        show
        > fence 1.6
        > bob a=1
        > a turn of carol was refused in 1
        ",
    );
}
