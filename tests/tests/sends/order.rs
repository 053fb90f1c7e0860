//! Sends from one agent to another take effect in the order sent, whoever fails and whoever dies.

use crate::mail::{Mail, now_ms};
use afdg_tests::{
    mail::v1::{KeptLetter, SpreadRequest},
    size_of_run,
};
use anyhow::Result;
use std::collections::BTreeMap;

fn by_sender(letters: &[KeptLetter]) -> BTreeMap<&str, Vec<u64>> {
    let mut numbers: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for letter in letters {
        numbers.entry(&letter.from).or_default().push(letter.number);
    }
    numbers
}

#[tokio::test(flavor = "multi_thread")]
async fn every_receiver_sees_every_senders_numbers_in_order_while_nodes_stop() -> Result<()> {
    const EACH: u64 = 10;
    let boxes = size_of_run("AFDG_ORDER_BOXES", 8);
    let rounds = size_of_run("AFDG_ORDER_LETTERS", 100) as u64 / EACH;
    let began = std::time::Instant::now();
    let mut mail = Mail::open(3).await?;
    let receivers: Vec<String> = (0..boxes).map(|number| format!("to-{number}")).collect();
    let client = mail.client.clone();
    let spreading = tokio::spawn({
        let receivers = receivers.clone();
        async move {
            for round in 0..rounds {
                let senders = (0..boxes).map(|sender| {
                    let request = SpreadRequest {
                        r#box: format!("from-{sender}"),
                        to: receivers.clone(),
                        first: round * EACH,
                        count: EACH,
                        ..SpreadRequest::default()
                    };
                    let key = format!("{sender}-{round}");
                    let client = client.clone();
                    async move {
                        // A call that met a stopping node is repeated under its key.
                        for _ in 0..20 {
                            let sent: Result<afdg_tests::mail::v1::Spread, _> =
                                client.call_once("/mail.v1.Box/Spread", request.clone(), &key).await;
                            if sent.is_ok() {
                                return;
                            }
                        }
                        panic!("sender {key} could not spread");
                    }
                });
                futures::future::join_all(senders).await;
            }
        }
    });
    let mut stops = 0;
    for name in mail.grid.node_names().iter().cycle() {
        if stops >= mail.grid.node_names().len() && spreading.is_finished() {
            break;
        }
        stops += 1;
        let name = name.clone();
        mail.grid.stop_node(&name).await?;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        mail.grid.start_node(&name).await?;
        mail.grid.until_well(afdg_tests::PATIENCE).await?;
    }
    spreading.await?;
    let all: Vec<u64> = (0..rounds * EACH).collect();
    let letters_sent = boxes * boxes * all.len();
    for receiver in &receivers {
        mail.numbers(receiver, boxes * all.len()).await?;
        let letters = mail.letters(receiver).await?;
        let by_sender = by_sender(&letters);
        assert_eq!(by_sender.len(), boxes);
        for (sender, numbers) in by_sender {
            assert_eq!(numbers, all, "from {sender} to {receiver}");
        }
    }
    let seconds = began.elapsed().as_secs();
    println!(
        "{letters_sent} letters of {boxes} senders to {boxes} receivers in {seconds} s, {stops} nodes stopped"
    );
    mail.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_holds_up_its_senders_later_letters_and_nobody_elses() -> Result<()> {
    const TRIES: u32 = 5;
    let mail = Mail::open(3).await?;
    for number in 0..TRIES {
        // Within the attempts that the type allows.
        let until = now_ms() + 1_500;
        let (receiver, slow, quick) =
            (format!("r{number}"), format!("slow{number}"), format!("quick{number}"));
        let to = vec![receiver.clone()];
        let failing = SpreadRequest {
            to: to.clone(),
            first: 1,
            count: 1,
            refused_until_ms: until,
            ..SpreadRequest::default()
        };
        mail.spread(&slow, failing).await?;
        let others = SpreadRequest { to, first: 2, count: 3, ..SpreadRequest::default() };
        mail.spread(&slow, others.clone()).await?;
        mail.spread(&quick, others).await?;
        let first = mail.numbers(&receiver, 3).await?;
        if now_ms() >= until {
            // The machine was too slow for this to tell anything.
            continue;
        }
        assert_eq!(first, [2, 3, 4]);
        assert_eq!(by_sender(&mail.letters(&receiver).await?).keys().collect::<Vec<_>>(), [&quick]);
        assert_eq!(mail.numbers(&receiver, 7).await?, [2, 3, 4, 1, 2, 3, 4]);
        mail.grid.stop().await;
        return Ok(());
    }
    anyhow::bail!("in {TRIES} tries the machine was too slow to tell anything")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ids_that_a_turn_is_told_are_those_of_its_sends_also_after_a_refusal() -> Result<()> {
    let mail = Mail::open(3).await?;
    // Sent as a message that nobody waits for, it is refused once or more before its turn sends anything.
    let refused_until = now_ms() + 300;
    let spread = SpreadRequest {
        r#box: "s".to_owned(),
        to: vec!["r".to_owned()],
        count: 1,
        spread_refused_until_ms: refused_until,
        ..SpreadRequest::default()
    };
    let sent = mail.send_spread("s", spread).await?;
    let spread = mail.attach_spread("s", &sent, 30_000).await?;
    assert_eq!(mail.numbers("r", 1).await?, [0]);
    assert_eq!(mail.attach("r", &spread.message_ids[0], 10_000).await?.letters, 1);
    mail.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_refuses_sends_nothing() -> Result<()> {
    let mail = Mail::open(3).await?;
    let to = vec!["r".to_owned()];
    let refusing = SpreadRequest { to: to.clone(), count: 5, refuse: true, ..SpreadRequest::default() };
    mail.spread("s", refusing).await.unwrap_err();
    mail.spread("s", SpreadRequest { to, first: 9, count: 1, ..SpreadRequest::default() }).await?;
    assert_eq!(mail.numbers("r", 1).await?, [9]);
    mail.grid.stop().await;
    Ok(())
}
