//! What the region nodes tell Prometheus.

use crate::mail::{Mail, letter};
use afdg_proto::pb::admin::{
    DeadLetter, ListDeadLettersRequest, SettleDeadLettersRequest, dead_letters_client::DeadLettersClient,
    settle_dead_letters_request::Action,
};
use afdg_tests::{PATIENCE, mail::v1::Letter};
use anyhow::{Context, Result, ensure};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

/// The body of the page, as a scraper of the plainest kind gets it.
async fn page(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has a body")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    ensure!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    Ok(body.to_owned())
}

/// The sum of a gauge over all regions and nodes.
async fn sum(mail: &Mail, name: &str) -> Result<u64> {
    let mut sum = 0;
    for address in mail.grid.health_addresses().into_values() {
        let body = page(address).await?;
        ensure!(body.contains(&format!("# TYPE {name} gauge\n")), "{name}: {body}");
        for line in body.lines().filter(|line| line.starts_with(&format!("{name}{{region=\""))) {
            sum += line.rsplit(' ').next().context("a line has a value")?.parse::<u64>()?;
        }
    }
    Ok(sum)
}

async fn until(mail: &Mail, name: &str, wanted: u64) -> Result<()> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let found = sum(mail, name).await?;
        if found == wanted {
            return Ok(());
        }
        ensure!(Instant::now() < give_up, "{name} is {found}, not {wanted}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn settle(mail: &Mail, letter: &DeadLetter, action: Action) -> Result<u32> {
    let request = SettleDeadLettersRequest {
        names: vec![letter.name.clone()],
        action: action.into(),
        actor: "ann".to_owned(),
        reason: "a test".to_owned(),
        filter: None,
    };
    let mut letters = DeadLettersClient::new(mail.client.channel());
    Ok(letters.settle_dead_letters(request).await?.into_inner().settled)
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_and_what_is_under_way_are_counted_across_a_change_of_leaders() -> Result<()> {
    let mut mail = Mail::open(3).await?;
    until(&mail, "afdg_region_leads", 3).await?;
    assert_eq!(sum(&mail, "afdg_region_dead_letters").await?, 0);
    let later = mail.send("later", letter(1), "", 3_600_000).await?;
    until(&mail, "afdg_region_due_messages", 1).await?;
    assert_eq!(sum(&mail, "afdg_region_inbox_messages").await?, 1, "{later}");
    assert!(sum(&mail, "afdg_region_inbox_bytes").await? > 0);

    let refused = |number| Letter { refused_until_ms: u64::MAX, ..letter(number) };
    for number in 0..4 {
        mail.send(&format!("b{number}"), refused(number), "", 0).await?;
    }
    until(&mail, "afdg_region_dead_letters", 4).await?;
    until(&mail, "afdg_region_inbox_messages", 1).await?;
    // The next leaders count anew.
    mail.grid.stop_node("node-1").await?;
    until(&mail, "afdg_region_leads", 3).await?;
    until(&mail, "afdg_region_dead_letters", 4).await?;

    let request = ListDeadLettersRequest::default();
    let mut letters = DeadLettersClient::new(mail.client.channel());
    let listed = letters.list_dead_letters(request).await?.into_inner().letters;
    assert_eq!(listed.len(), 4);
    assert_eq!(settle(&mail, &listed[0], Action::Drop).await?, 1);
    assert_eq!(settle(&mail, &listed[0], Action::Drop).await?, 0, "it is not there any more");
    until(&mail, "afdg_region_dead_letters", 3).await?;
    // One that is tried again is none, until it is given up once more.
    assert_eq!(settle(&mail, &listed[1], Action::Retry).await?, 1);
    for letter in &listed[2..] {
        assert_eq!(settle(&mail, letter, Action::Drop).await?, 1);
    }
    until(&mail, "afdg_region_dead_letters", 1).await?;
    mail.grid.stop().await;
    Ok(())
}
