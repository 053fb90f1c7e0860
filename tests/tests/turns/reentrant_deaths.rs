//! Calls that come back to an agent of their own chain while leaders die: the inner turn takes effect once, and the
//! outer one, run again, sees what it saw before.

use crate::{
    reentrant::{Visits, agent},
    whereabouts::{home_of, until_settled},
};
use afdg_tests::visit::script::{add, call, closed, door, open, read};
use anyhow::Result;
use std::time::Duration;

/// Long enough for a call that comes back to find a new leader, and for waits to be suspected of a ring.
const A_WHILE: Duration = Duration::from_millis(2_500);

#[tokio::test(flavor = "multi_thread")]
async fn an_outer_turn_that_is_run_again_sees_what_it_saw_before() -> Result<()> {
    let mut visits = Visits::begin().await?;
    let home = home_of(&visits.client, &agent("a")?).await?;
    until_settled(&visits.grid, &home).await?;
    let others = visits.elsewhere(&home, 1).await?;
    let b = &others[0].0;

    let entered = closed(b, [call(open("a", [add("n", 1)])), call(open("a", [add("x", 5)])), door("both")]);
    let outer =
        visits.acting("a", [read("x"), call(entered), read("x"), read("n"), add("n", 1), add("x", 1)]);
    visits.until_reached("both", 1).await?;
    visits.grid.stop_node(&home.preferred).await?;
    tokio::time::sleep(A_WHILE).await;
    visits.doors.open("both");
    // The write of x was refused, since the outer turn had read it; its answer stands.
    let conflict = format!("{b}: !REENTRANT_CONFLICT");
    assert_eq!(outer.await??, ["a: x=0", &conflict, "a: x=0", "a: n=1"]);
    assert_eq!(visits.act("a", [read("x"), read("n")]).await?, ["a: x=1", "a: n=2"]);
    assert_eq!(visits.doors.reached("both"), 1, "the caller in between ran again");
    visits.grid.start_node(&home.preferred).await?;
    until_settled(&visits.grid, &home).await?;
    assert_eq!(visits.act("a", [read("x"), read("n")]).await?, ["a: x=1", "a: n=2"]);
    visits.grid.stop().await;
    Ok(())
}

/// What would have been a conflict the first time is one the second time: the inner turn does not enter at an
/// earlier place.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_early_waits_until_the_outer_turn_is_where_it_was() -> Result<()> {
    let mut visits = Visits::begin().await?;
    let home = home_of(&visits.client, &agent("a")?).await?;
    until_settled(&visits.grid, &home).await?;
    let others = visits.elsewhere(&home, 2).await?;
    let (b, c) = (&others[0].0, &others[1].0);

    visits.doors.open("before");
    let entered = closed(b, [call(open("a", [door("within"), add("n", 1)]))]);
    let outer =
        visits.acting("a", [call(closed(c, [])), door("before"), read("n"), call(entered), add("n", 1)]);
    visits.until_reached("within", 1).await?;
    visits.doors.close("before");
    visits.grid.stop_node(&home.preferred).await?;
    visits.until_reached("before", 2).await?;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(visits.doors.reached("within"), 1, "it has entered before the outer turn waits for it");
    visits.doors.open("before");
    visits.until_reached("within", 2).await?;
    visits.doors.open("within");
    assert_eq!(outer.await??, ["a: n=0".to_owned(), format!("{b}: !REENTRANT_CONFLICT")]);
    assert_eq!(visits.act("a", [read("n")]).await?, ["a: n=1"]);
    visits.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inner_turn_that_dies_with_its_leader_enters_again() -> Result<()> {
    let mut visits = Visits::begin().await?;
    let home = home_of(&visits.client, &agent("a")?).await?;
    until_settled(&visits.grid, &home).await?;
    let others = visits.elsewhere(&home, 1).await?;
    let b = &others[0].0;
    let outer = visits.acting(
        "a",
        [
            call(closed(b, [call(open("a", [add("n", 1), door("within"), read("n")]))])),
            add("n", 1),
            read("n"),
        ],
    );
    visits.until_reached("within", 1).await?;
    visits.grid.stop_node(&home.preferred).await?;
    visits.until_reached("within", 2).await?;
    visits.doors.open("within");
    assert_eq!(outer.await??, ["a: n=1", "a: n=2"]);
    assert_eq!(visits.act("a", [read("n")]).await?, ["a: n=2"]);
    visits.grid.stop().await;
    Ok(())
}

/// By which call it came stands in the record of each turn between.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_enters_once_after_the_deaths_of_leaders_between() -> Result<()> {
    let mut visits = Visits::begin().await?;
    let home = home_of(&visits.client, &agent("a")?).await?;
    until_settled(&visits.grid, &home).await?;
    let others = visits.elsewhere(&home, 2).await?;
    let ((b, between), (c, _)) = (&others[0], &others[1]);

    // b is recorded, and dies before its call to a, and once more after it.
    let steps =
        [call(closed(c, [])), door("unentered"), call(open("a", [add("n", 1), read("n")])), door("entered")];
    let outer = visits.acting("a", [call(closed(b, steps)), read("n")]);
    visits.until_reached("unentered", 1).await?;
    visits.grid.stop_node(&between.preferred).await?;
    visits.until_reached("unentered", 2).await?;
    visits.doors.open("unentered");
    visits.until_reached("entered", 1).await?;
    visits.grid.start_node(&between.preferred).await?;
    until_settled(&visits.grid, between).await?;
    visits.grid.stop_node(&between.preferred).await?;
    tokio::time::sleep(A_WHILE).await;
    visits.doors.open("entered");
    assert_eq!(outer.await??, ["a: n=1", "a: n=1"]);
    assert_eq!(visits.act("a", [read("n")]).await?, ["a: n=1"]);
    visits.grid.stop().await;
    Ok(())
}
