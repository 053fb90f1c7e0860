//! `Scatter`: what a client gets of what a node answers, and when the node is asked for more.

use super::{Grid, code_and_reason, deposit, grid};
use afdg_proto::{
    pb::{
        internal::{self, ScatterOutcome, ScatterStart, outcome},
        v1::{ScatterRequest, ScatterResponse, grid_client::GridClient, scatter_result},
    },
    status::{of_grid_error, to_wire},
};
use afdg_types::{AgentError, GridError, Reason};
use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};
use tokio::time::Instant;
use tonic::{Code, Status, Streaming};

const PATIENCE: Duration = Duration::from_secs(20);

/// Keys of one slot: there the walk goes by their length, and then by themselves.
fn key(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!("{{t}}{name}") }
}

fn page(names: &[&str], after: &str) -> Result<internal::ScatterResponse, Status> {
    let outcomes = names.iter().map(|name| {
        let result = match *name {
            "poor" => to_wire(AgentError::refused("BALANCE_SHORT", "short").into(), 0),
            name => outcome::Result::Response(name.to_owned().into()),
        };
        let outcome = internal::Outcome { request_id: 0, result: Some(result) };
        ScatterOutcome { key: key(name), outcome: Some(outcome) }
    });
    Ok(internal::ScatterResponse { outcomes: outcomes.collect(), after: key(after) })
}

/// The name behind which a scatter is to go on.
fn name(start: &ScatterStart) -> &str {
    start.after.trim_start_matches("{t}")
}

fn lost() -> Result<internal::ScatterResponse, Status> {
    Err(of_grid_error(&GridError::new(Reason::NotLeader, "the lead moved away")))
}

fn all() -> ScatterRequest {
    ScatterRequest {
        r#type: "bank.v1.Account".to_owned(),
        method: "Deposit".to_owned(),
        ..ScatterRequest::default()
    }
}

impl Grid {
    async fn scatter(&self, request: ScatterRequest) -> Result<Streaming<ScatterResponse>, Status> {
        Ok(GridClient::new(self.channel.clone()).scatter(request).await?.into_inner())
    }
}

/// All results as text, the newest token, and how the stream ended.
async fn read(mut pages: Streaming<ScatterResponse>) -> (Vec<String>, Vec<u8>, Result<(), Status>) {
    let (mut results, mut token) = (Vec::new(), Vec::new());
    loop {
        match tokio::time::timeout(PATIENCE, pages.message()).await.unwrap() {
            Ok(Some(page)) => {
                token = page.resume_token.to_vec();
                results.extend(page.results.into_iter().map(|result| match result.result.unwrap() {
                    scatter_result::Result::Response(response) => {
                        let text = String::from_utf8(response.to_vec()).unwrap();
                        assert_eq!(result.agent, format!("bank.v1.Account/{}", key(&text)));
                        text
                    }
                    scatter_result::Result::Error(error) => format!("{}: {}", result.agent, error.message),
                }));
            }
            Ok(None) => return (results, token, Ok(())),
            Err(status) => return (results, token, Err(status)),
        }
    }
}

#[tokio::test]
async fn results_and_refusals_come_as_the_node_has_them() {
    let grid = grid().await;
    grid.node.scatter(|_| vec![page(&["b", "poor"], ""), page(&[], ""), page(&["a"], "poor")]);
    let request = ScatterRequest {
        key_prefix: "p*".to_owned(),
        idempotency_key: "k".to_owned(),
        parallel_max: 9,
        timeout_ms: 5_000,
        ..all()
    };
    let (results, _, end) = read(grid.scatter(request).await.unwrap()).await;
    end.unwrap();
    assert_eq!(results, ["b", "bank.v1.Account/{t}poor: short", "a"]);
    let (starts, _) = grid.node.scatters();
    let start = &starts[0];
    assert_eq!((start.r#type.as_str(), start.key_prefix.as_str()), ("bank.v1.Account", "p*"));
    assert_eq!((start.method.as_str(), start.key_field, start.idempotency_key.as_str()), ("Deposit", 1, "k"));
    assert_eq!((start.region, start.parallel_max, start.after.as_str()), (1, 9, ""));
    assert!((1..=5_000).contains(&start.timeout_ms));
}

#[tokio::test]
async fn a_lead_that_moves_away_repeats_no_result_and_loses_none() {
    let grid = grid().await;
    static TRIES: AtomicUsize = AtomicUsize::new(0);
    grid.node.scatter(|start| match (TRIES.fetch_add(1, SeqCst), name(start)) {
        (0, "") => vec![page(&["a", "c"], "a"), page(&["d"], "a"), lost()],
        (1, "a") => vec![lost()],
        // The next leader calls all behind the last place again.
        (2, "a") => vec![page(&["c", "d"], "a"), page(&["e", "b"], "e")],
        other => panic!("{other:?}"),
    });
    let (results, _, end) = read(grid.scatter(all()).await.unwrap()).await;
    end.unwrap();
    assert_eq!(results, ["a", "c", "d", "e", "b"]);
    let keys: Vec<_> = grid.node.scatters().0.into_iter().map(|start| start.idempotency_key).collect();
    assert!(keys.len() == 3 && keys.iter().all(|key| *key == keys[0] && !key.is_empty()), "{keys:?}");
}

#[tokio::test]
async fn a_stream_goes_on_from_its_token_under_the_same_key() {
    let grid = grid().await;
    grid.node.scatter(|_| vec![page(&["a", "b"], "b"), page(&["c"], "b"), lost()]);
    let mut pages = grid.scatter(all()).await.unwrap();
    let first = pages.message().await.unwrap().unwrap();
    drop(pages);
    grid.node.scatter(|start| match name(start) {
        "b" => vec![page(&["c", "d"], "d")],
        // What was on its way when the stream was dropped.
        _ => Vec::new(),
    });
    let resume = ScatterRequest { resume_token: first.resume_token.clone(), ..all() };
    let (results, last, end) = read(grid.scatter(resume).await.unwrap()).await;
    end.unwrap();
    assert_eq!(results, ["c", "d"]);
    let (starts, _) = grid.node.scatters();
    assert_eq!(starts[0].idempotency_key, starts.last().unwrap().idempotency_key);
    assert_ne!(last, first.resume_token.to_vec());
    let other = ScatterRequest { resume_token: first.resume_token, key_prefix: "x".to_owned(), ..all() };
    let refused = code_and_reason(grid.scatter(other).await.unwrap_err());
    assert_eq!(refused, (Code::InvalidArgument, Reason::InvalidRequest));
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_work() {
    const PAGES: usize = 1_000;
    let grid = grid().await;
    // Large enough that the transport holds few of them.
    grid.node.scatter(|_| {
        let large = |number: usize| {
            let key = number.to_string();
            let result = outcome::Result::Response(vec![0; 256 * 1024].into());
            let outcome = internal::Outcome { request_id: 0, result: Some(result) };
            let outcomes = vec![ScatterOutcome { key: key.clone(), outcome: Some(outcome) }];
            Ok(internal::ScatterResponse { outcomes, after: key })
        };
        (1_000..1_000 + PAGES).map(large).collect()
    });
    let mut pages = grid.scatter(all()).await.unwrap();
    pages.message().await.unwrap().unwrap();
    // The number of pages asked for comes to a stand.
    let (mut asked, mut since) = (0, Instant::now());
    while since.elapsed() < Duration::from_millis(500) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = grid.node.scatters().1;
        if now != asked {
            (asked, since) = (now, Instant::now());
        }
        assert!(asked < PAGES / 10, "{asked} pages were asked for, and one was read");
    }
    let mut read = 1;
    while pages.message().await.unwrap().is_some() {
        read += 1;
    }
    assert_eq!(read, PAGES);
}

#[tokio::test]
async fn at_the_end_of_its_time_a_stream_says_what_is_certain() {
    let grid = grid().await;
    grid.node.scatter(|start| match name(start) {
        "" => vec![page(&["a", "b"], "b"), lost()],
        _ => vec![lost()],
    });
    let request = ScatterRequest { timeout_ms: 300, ..all() };
    let (results, token, end) = read(grid.scatter(request).await.unwrap()).await;
    assert_eq!(results, ["a", "b"]);
    assert!(!token.is_empty());
    let status = end.unwrap_err();
    assert!(status.message().contains("2 have a result"), "{}", status.message());
    assert_eq!(code_and_reason(status), (Code::DeadlineExceeded, Reason::DeadlineOutcomeUnknown));
}

#[tokio::test]
async fn a_node_without_the_method_ends_it() {
    let grid = grid().await;
    grid.node.scatter(|_| {
        let error = GridError::new(Reason::UnknownMethod, "not in this program");
        vec![page(&["a"], "a"), Err(of_grid_error(&error))]
    });
    let (results, _, end) = read(grid.scatter(all()).await.unwrap()).await;
    assert_eq!(results, ["a"]);
    assert_eq!(code_and_reason(end.unwrap_err()), (Code::Unimplemented, Reason::UnknownMethod));
}

#[tokio::test]
async fn a_scatter_that_can_not_be_is_refused_with_a_reason() {
    let grid = grid().await;
    let named = prost::Message::encode_to_vec(&deposit("alice"));
    let invalid = |reason| (Code::InvalidArgument, reason);
    for (request, refusal) in [
        (ScatterRequest { r#type: "bank.v1.None".into(), ..all() }, (Code::NotFound, Reason::UnknownType)),
        (ScatterRequest { r#type: String::new(), ..all() }, (Code::NotFound, Reason::UnknownType)),
        (ScatterRequest { method: "Burn".into(), ..all() }, (Code::Unimplemented, Reason::UnknownMethod)),
        (ScatterRequest { key_prefix: "a\n".into(), ..all() }, invalid(Reason::InvalidRequest)),
        (ScatterRequest { key_prefix: "x".repeat(513), ..all() }, invalid(Reason::InvalidRequest)),
        (ScatterRequest { parallel_max: 4_097, ..all() }, invalid(Reason::InvalidRequest)),
        (ScatterRequest { resume_token: "x".into(), ..all() }, invalid(Reason::InvalidRequest)),
        (ScatterRequest { request: named.into(), ..all() }, invalid(Reason::RequestMalformed)),
        (ScatterRequest { request: "\x0f".into(), ..all() }, invalid(Reason::RequestMalformed)),
        (ScatterRequest { idempotency_key: "x".repeat(257), ..all() }, invalid(Reason::RequestMalformed)),
        (
            ScatterRequest { request: vec![0; 4 * 1024 * 1024].into(), ..all() },
            (Code::ResourceExhausted, Reason::MessageTooLarge),
        ),
    ] {
        let shown = format!("{request:.200?}").chars().take(200).collect::<String>();
        let refused = grid.scatter(request).await.unwrap_err();
        assert_eq!(code_and_reason(refused), refusal, "{shown}");
    }
    assert!(grid.node.scatters().0.is_empty());
}

#[tokio::test]
async fn a_client_that_does_not_read_hears_the_end_and_takes_nobodys_place() {
    let grid = grid().await;
    grid.node.scatter(|start| match name(start) {
        "" => vec![page(&["a"], "a"), lost()],
        _ => vec![lost()],
    });
    let request = ScatterRequest { timeout_ms: 100, ..all() };
    // As many as may run, of which nobody reads anything.
    let mut unread = Vec::new();
    for _ in 0..64 {
        unread.push(grid.scatter(request.clone()).await.unwrap());
    }
    let give_up = Instant::now() + PATIENCE;
    while let Err(full) = grid.scatter(request.clone()).await {
        assert_eq!(code_and_reason(full), (Code::ResourceExhausted, Reason::Overloaded));
        assert!(Instant::now() < give_up, "the places are not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for pages in unread {
        let (results, _, end) = read(pages).await;
        assert_eq!(results, ["a"]);
        assert_eq!(code_and_reason(end.unwrap_err()).1, Reason::DeadlineOutcomeUnknown);
    }
}

#[tokio::test]
async fn more_scatters_than_may_run_are_refused() {
    let grid = grid().await;
    grid.node.scatter(|_| vec![lost()]);
    let mut running = Vec::new();
    for _ in 0..64 {
        running.push(grid.scatter(all()).await.unwrap());
    }
    let full = grid.scatter(all()).await.unwrap_err();
    assert_eq!(code_and_reason(full), (Code::ResourceExhausted, Reason::Overloaded));
    running.pop();
    let give_up = Instant::now() + PATIENCE;
    while grid.scatter(all()).await.is_err() {
        assert!(Instant::now() < give_up, "the place is not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_server_that_stops_says_so_and_the_stream_goes_on_elsewhere() {
    let grid = grid().await;
    grid.node.scatter(|start| match name(start) {
        "" => vec![page(&["a"], "a"), lost()],
        _ => vec![lost()],
    });
    let mut pages = grid.scatter(all()).await.unwrap();
    let token = pages.message().await.unwrap().unwrap().resume_token;
    let drained = tokio::spawn(grid.running.drain());
    let (_, _, end) = read(pages).await;
    assert_eq!(code_and_reason(end.unwrap_err()), (Code::Unavailable, Reason::Draining));
    assert!(drained.await.unwrap());

    let elsewhere = super::grid().await;
    elsewhere.node.scatter(|start| match name(start) {
        "a" => vec![page(&["b"], "b")],
        other => panic!("begins at {other}"),
    });
    let resume = ScatterRequest { resume_token: token, ..all() };
    let (results, _, end) = read(elsewhere.scatter(resume).await.unwrap()).await;
    end.unwrap();
    assert_eq!(results, ["b"]);
}
