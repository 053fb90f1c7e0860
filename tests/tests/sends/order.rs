//! Sends from one agent to another take effect in the order sent, whoever fails and whoever dies.

use crate::mail::{Mail, now_ms};
use afdg_tests::{
    PATIENCE,
    client::Client,
    mail::v1::{KeptLetter, Letters, ReadRequest, Spread, SpreadRequest},
    number_of,
};
use anyhow::Result;
use std::{collections::BTreeMap, sync::Arc};
use tokio::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(200);

fn by_sender(letters: &[KeptLetter]) -> BTreeMap<&str, Vec<u64>> {
    let mut numbers: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for letter in letters {
        numbers.entry(&letter.from).or_default().push(letter.number);
    }
    numbers
}

/// Who sends how much to whom; `AFDG_ORDER_SENDERS`, `AFDG_ORDER_RECEIVERS` and `AFDG_ORDER_LETTERS` say it.
struct Size {
    senders: u64,
    receivers: Vec<String>,
    /// From each sender to each receiver.
    letters: u64,
    /// Bound of all that is waited for.
    patience: Duration,
}

impl Size {
    /// Letters from each sender to each receiver in one turn.
    const EACH: u64 = 10;
    /// One box shows no more of them.
    const SHOWN_MAX: u64 = 100_000;

    fn of_environment() -> Self {
        let senders = number_of("AFDG_ORDER_SENDERS", 8);
        let receivers = number_of("AFDG_ORDER_RECEIVERS", 8);
        let letters = number_of("AFDG_ORDER_LETTERS", 100);
        assert!(senders * letters <= Self::SHOWN_MAX, "a box does not show more than {}", Self::SHOWN_MAX);
        Self {
            senders,
            receivers: (0..receivers).map(|number| format!("to-{number}")).collect(),
            letters,
            patience: PATIENCE + Duration::from_millis(2) * (senders * receivers * letters) as u32,
        }
    }

    fn for_each_receiver(&self) -> usize {
        (self.senders * self.letters) as usize
    }

    fn sends(&self) -> usize {
        self.for_each_receiver() * self.receivers.len()
    }

    /// Has all senders send, in rounds.
    async fn spread(&self, client: &Client) {
        for first in (0..self.letters).step_by(Self::EACH as usize) {
            let senders = (0..self.senders).map(|sender| {
                let request = SpreadRequest {
                    r#box: format!("from-{sender}"),
                    to: self.receivers.clone(),
                    first,
                    count: Self::EACH.min(self.letters - first),
                    ..SpreadRequest::default()
                };
                self.spread_once(client, request, format!("{sender}-{first}"))
            });
            futures::future::join_all(senders).await;
        }
    }

    /// A call that met a stopping node, or a region that has as much to deliver as it takes, is repeated
    /// under its key.
    async fn spread_once(&self, client: &Client, request: SpreadRequest, key: String) {
        let give_up = Instant::now() + self.patience;
        loop {
            match client.call_once::<_, Spread>("/mail.v1.Box/Spread", request.clone(), &key).await {
                Ok(_) => return,
                Err(status) => assert!(Instant::now() < give_up, "sender {key} could not spread: {status}"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until a box has as many letters as were sent to it.
    async fn until_full(&self, client: &Client, receiver: &str, give_up: Instant) {
        loop {
            let request = ReadRequest { r#box: receiver.to_owned() };
            let read = client.call::<_, Letters>("/mail.v1.Box/Read", request).await;
            let read = read.map(|read| read.letters.len());
            if read.as_ref().is_ok_and(|letters| *letters >= self.for_each_receiver()) {
                return;
            }
            let wanted = self.for_each_receiver();
            assert!(Instant::now() < give_up, "{receiver} should have {wanted} letters, and has {read:?}");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_receiver_sees_every_senders_numbers_in_order_while_nodes_stop() -> Result<()> {
    let size = Arc::new(Size::of_environment());
    let mut mail = Mail::open(3).await?;
    let began = Instant::now();
    let sending = tokio::spawn({
        let (size, client) = (Arc::clone(&size), mail.client.clone());
        async move {
            size.spread(&client).await;
            println!("all is sent after {:.1} s", began.elapsed().as_secs_f64());
            let give_up = Instant::now() + size.patience;
            for receiver in &size.receivers {
                size.until_full(&client, receiver, give_up).await;
            }
            began.elapsed()
        }
    });
    // Nodes stop, without handing over, for as long as anything is on its way, and each once at least.
    let nodes = mail.grid.node_names();
    let mut deaths = 0;
    for name in nodes.iter().cycle() {
        if deaths >= nodes.len() && sending.is_finished() {
            break;
        }
        mail.grid.stop_node(name).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        mail.grid.start_node(name).await?;
        mail.grid.until_well(size.patience).await?;
        deaths += 1;
    }
    let took = sending.await?.as_secs_f64();
    println!("{} sends took effect within {took:.1} s; {deaths} deaths of nodes", size.sends());
    let all: Vec<u64> = (0..size.letters).collect();
    for receiver in &size.receivers {
        let letters = mail.letters(receiver).await?;
        assert_eq!(letters.len(), size.for_each_receiver(), "letters of {receiver}");
        let by_sender = by_sender(&letters);
        assert_eq!(by_sender.len() as u64, size.senders);
        for (sender, numbers) in by_sender {
            assert_eq!(numbers, all, "from {sender} to {receiver}");
        }
    }
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
