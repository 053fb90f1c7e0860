//! Messages that are given up, and what a person does about them.

use crate::mail::{Mail, agent, letter, now_ms, reason};
use afdg_proto::pb::admin::{
    DeadLetter, DeadLetterFilter, ListAuditRequest, ListDeadLettersRequest, SettleDeadLettersRequest,
    cluster_client::ClusterClient, dead_letters_client::DeadLettersClient,
    settle_dead_letters_request::Action,
};
use afdg_tests::{PATIENCE, mail::v1::Letter};
use anyhow::{Result, ensure};
use tokio::time::Instant;

async fn listed(mail: &Mail, filter: DeadLetterFilter) -> Result<Vec<DeadLetter>> {
    let request = ListDeadLettersRequest { filter: Some(filter), ..ListDeadLettersRequest::default() };
    let mut client = DeadLettersClient::new(mail.client.channel());
    Ok(client.list_dead_letters(request).await?.into_inner().letters)
}

/// The one of that name, if it is there.
async fn named(mail: &Mail, name: &str) -> Result<Vec<DeadLetter>> {
    let request = ListDeadLettersRequest { name: name.to_owned(), ..ListDeadLettersRequest::default() };
    let mut client = DeadLettersClient::new(mail.client.channel());
    Ok(client.list_dead_letters(request).await?.into_inner().letters)
}

async fn settled(mail: &Mail, names: Vec<String>, action: Action) -> Result<u32> {
    let request = SettleDeadLettersRequest {
        names,
        action: action.into(),
        actor: "ann".to_owned(),
        reason: "a test".to_owned(),
        filter: None,
    };
    let mut client = DeadLettersClient::new(mail.client.channel());
    Ok(client.settle_dead_letters(request).await?.into_inner().settled)
}

/// What was asked for stands in the audit log, newest first; what was not said by whom and why was not done.
async fn is_on_record(mail: &Mail, first: &str, second: &str) -> Result<()> {
    let request = SettleDeadLettersRequest {
        names: vec![second.to_owned()],
        action: Action::Drop.into(),
        ..SettleDeadLettersRequest::default()
    };
    let mut letters = DeadLettersClient::new(mail.client.channel());
    let refused = letters.settle_dead_letters(request.clone()).await.expect_err("who and why are missing");
    assert_eq!(reason(&refused), "INVALID_REQUEST", "{refused:?}");
    assert!(refused.message().contains("actor is missing"), "{refused:?}");
    let filter = DeadLetterFilter { method: "Receive".to_owned(), ..DeadLetterFilter::default() };
    let (actor, why) = ("bob".to_owned(), "it is over".to_owned());
    let request = SettleDeadLettersRequest { actor, reason: why, filter: Some(filter), ..request };
    assert_eq!(letters.settle_dead_letters(request).await?.into_inner().settled, 0);
    let audit = ListAuditRequest { limit: 3 };
    let records = ClusterClient::new(mail.client.channel()).list_audit(audit).await?.into_inner().records;
    let told: Vec<_> = records
        .iter()
        .map(|record| format!("{}: {}, because {}", record.actor, record.action, record.reason))
        .collect();
    assert_eq!(
        told,
        [
            format!("bob: drop 1 dead letter: {second} (method Receive), because it is over"),
            format!("ann: drop 2 dead letters: {second} and others, because a test"),
            format!("ann: retry 1 dead letter: {first}, because a test"),
        ]
    );
    Ok(())
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
    assert_eq!(named(&mail, &second_letter.name).await?, std::slice::from_ref(&second_letter));
    assert_eq!(named(&mail, "4711@mail.v1.Box/b").await?, []);
    let only = DeadLetterFilter { reason: "NOT_NOW".to_owned(), ..DeadLetterFilter::default() };
    assert_eq!(listed(&mail, only).await?, std::slice::from_ref(&second_letter));

    tokio::time::sleep(std::time::Duration::from_millis(until.saturating_sub(now_ms()))).await;
    assert_eq!(settled(&mail, vec![first_letter.name.clone()], Action::Retry).await?, 1);
    assert_eq!(mail.attach("b", &first, 10_000).await?.letters, 1);
    let (first_name, second_name) = (first_letter.name, second_letter.name);
    let names = vec![second_name.clone(), first_name.clone()];
    assert_eq!(settled(&mail, names, Action::Drop).await?, 1);
    assert_eq!(listed(&mail, DeadLetterFilter::default()).await?, []);
    is_on_record(&mail, &first_name, &second_name).await?;
    assert_eq!(mail.numbers("b", 1).await?, [1]);
    mail.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_counted_by_the_decision_that_settles_it() -> Result<()> {
    const LETTERS: usize = 40;
    let mail = Mail::open(1).await?;
    for number in 0..LETTERS as u64 {
        let refused = Letter { refused_until_ms: u64::MAX, ..letter(number) };
        mail.send(&format!("b{number}"), refused, &format!("k{number}"), 0).await?;
    }
    let give_up = Instant::now() + PATIENCE;
    let letters = loop {
        let letters = listed(&mail, DeadLetterFilter::default()).await?;
        if letters.len() == LETTERS {
            break letters;
        }
        ensure!(Instant::now() < give_up, "there are {} dead letters", letters.len());
    };
    let names: Vec<_> = letters.into_iter().map(|letter| letter.name).collect();
    let decisions = (0..8).map(|_| settled(&mail, names.clone(), Action::Drop));
    let counted: Vec<u32> = futures::future::try_join_all(decisions).await?;
    assert_eq!(counted.iter().sum::<u32>(), LETTERS as u32, "{counted:?}");
    assert_eq!(listed(&mail, DeadLetterFilter::default()).await?, []);
    mail.grid.stop().await;
    Ok(())
}
