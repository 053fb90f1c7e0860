//! Messages that are given up, and what a person does about them.

use crate::mail::{Mail, agent, letter, now_ms, reason};
use afdg_proto::pb::admin::{
    DeadLetter, DeadLetterFilter, ListDeadLettersRequest, SettleDeadLettersRequest,
    dead_letters_client::DeadLettersClient, settle_dead_letters_request::Action,
};
use afdg_tests::{PATIENCE, mail::v1::Letter};
use anyhow::{Result, ensure};
use tokio::time::Instant;

async fn listed(mail: &Mail, filter: DeadLetterFilter) -> Result<Vec<DeadLetter>> {
    let request = ListDeadLettersRequest { filter: Some(filter), ..ListDeadLettersRequest::default() };
    let mut client = DeadLettersClient::new(mail.client.channel());
    Ok(client.list_dead_letters(request).await?.into_inner().letters)
}

async fn settled(mail: &Mail, names: Vec<String>, action: Action) -> Result<u32> {
    let request = SettleDeadLettersRequest { names, action: action.into() };
    let mut client = DeadLettersClient::new(mail.client.channel());
    Ok(client.settle_dead_letters(request).await?.into_inner().settled)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_failing_is_a_dead_letter_that_can_be_tried_again_or_dropped() -> Result<()> {
    let mail = Mail::open(3).await?;
    // The type's own policy: eight attempts within 2 s.
    let until = now_ms() + 5_000;
    let panics = Letter { panics_until_ms: until, ..letter(1) };
    let refused = Letter { refused_until_ms: u64::MAX, ..letter(2) };
    let first = mail.send("b", panics, "k1", 0).await?;
    let second = mail.send("b", refused, "k2", 0).await?;
    let give_up = Instant::now() + PATIENCE;
    let letters = loop {
        let letters = listed(&mail, DeadLetterFilter::default()).await?;
        if letters.len() == 2 {
            break letters;
        }
        ensure!(Instant::now() < give_up, "there are {letters:?}");
    };
    let find = |id: &str| letters.iter().find(|letter| letter.message_id == id).cloned().unwrap();
    let (first_letter, second_letter) = (find(&first), find(&second));
    assert_eq!((&*first_letter.reason, &*second_letter.reason), ("HANDLER_PANICKED", "NOT_NOW"));
    assert_eq!((first_letter.agent, first_letter.attempts), (agent("b"), 8));
    assert!(first_letter.error.contains("makes its handler panic"), "{}", first_letter.error);
    assert_eq!(reason(&mail.attach("b", &second, 10_000).await.unwrap_err()), "NOT_NOW");
    let only = DeadLetterFilter { reason: "NOT_NOW".to_owned(), ..DeadLetterFilter::default() };
    assert_eq!(listed(&mail, only).await?, std::slice::from_ref(&second_letter));

    tokio::time::sleep(std::time::Duration::from_millis(until.saturating_sub(now_ms()))).await;
    assert_eq!(settled(&mail, vec![first_letter.name.clone()], Action::Retry).await?, 1);
    assert_eq!(mail.attach("b", &first, 10_000).await?.letters, 1);
    assert_eq!(settled(&mail, vec![second_letter.name, first_letter.name], Action::Drop).await?, 1);
    assert_eq!(listed(&mail, DeadLetterFilter::default()).await?, []);
    assert_eq!(mail.numbers("b", 1).await?, [1]);
    mail.grid.stop().await;
    Ok(())
}
