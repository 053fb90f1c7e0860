use super::*;
use crate::executor::testing::{agent, view};
use afdg_agent::host::{TurnBounds, TurnView, TypeDescription};
use afdg_types::{MessageId, limits::TURN_MS_MAX};
use async_trait::async_trait;
use bytes::Bytes;
use std::{
    cell::Cell,
    sync::atomic::{AtomicBool, Ordering},
};
use tokio::time::{Instant, sleep};

/// Does what the method's name says.
#[derive(Default)]
struct Host {
    ended: Arc<AtomicBool>,
}

/// Says when a turn's future is gone.
struct Ending(Arc<AtomicBool>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[async_trait]
impl AgentHost for Host {
    fn types(&self) -> Vec<TypeDescription> {
        Vec::new()
    }

    async fn run(&self, turn: Turn, view: Arc<dyn TurnView>) -> Result<TurnOutput, TurnFailure> {
        let _ending = Ending(Arc::clone(&self.ended));
        view.row(b"some row").await?;
        match turn.method.as_str() {
            "text" => panic!("no balance"),
            "formatted" => panic!("no balance of {}", turn.agent),
            "long" => panic!("{}", "ü".repeat(9_000)),
            "number" => std::panic::panic_any(5),
            "fail" => Err(TurnFailure::TooLarge("too large".to_owned())),
            method => {
                sleep(Duration::from_millis(method.parse().unwrap())).await;
                Ok(TurnOutput {
                    reply: Ok(turn.request),
                    writes: Vec::new(),
                    sends: Vec::new(),
                    schedules: Vec::new(),
                })
            }
        }
    }
}

fn turn(method: impl ToString) -> Turn {
    Turn {
        agent: agent("alice"),
        method: method.to_string(),
        message_id: MessageId::from_router(1, 1),
        parent: MessageId::from_router(1, 1),
        request: Bytes::from_static(b"request"),
        now_ms: 1,
        seed: 1,
        read_only: false,
        bounds: TurnBounds::default(),
    }
}

fn threads() -> HandlerThreads {
    HandlerThreads::new(Arc::new(afdg_runtime::ServingThreads::here()), ["t.T"].into_iter())
}

async fn panicked(method: &str) -> String {
    let host = Arc::new(Host::default());
    let ended = Arc::clone(&host.ended);
    let failure = run(&threads(), host, turn(method), view(), TURN_MS_MAX, || (), || true).await.unwrap_err();
    assert!(ended.load(Ordering::Relaxed), "nothing of the turn is left");
    match failure {
        RunFailure::Turn(TurnFailure::Panicked(text)) => text,
        failure => panic!("{failure:?}"),
    }
}

#[tokio::test]
async fn a_panic_ends_its_turn_only() {
    assert_eq!(panicked("text").await, "no balance");
    assert_eq!(panicked("formatted").await, "no balance of t.T/alice");
    assert_eq!(panicked("long").await, "ü".repeat(PANIC_TEXT_CHARS_MAX));
    assert_eq!(panicked("number").await, "without a text");
    assert!(
        run(&threads(), Arc::new(Host::default()), turn(0), view(), TURN_MS_MAX, || (), || true)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_failure_of_the_host_is_passed_on() {
    let failure =
        run(&threads(), Arc::new(Host::default()), turn("fail"), view(), TURN_MS_MAX, || (), || true)
            .await
            .unwrap_err();
    assert_eq!(failure, RunFailure::Turn(TurnFailure::TooLarge("too large".to_owned())));
}

/// How a turn ends that takes `ms`, and after how long.
async fn run_for(ms: u64, limited: impl Fn() -> bool) -> (Option<RunFailure>, u64, bool) {
    let host = Arc::new(Host::default());
    let ended = Arc::clone(&host.ended);
    let start = Instant::now();
    let failure = run(&threads(), host, turn(ms), view(), TURN_MS_MAX, || (), limited).await.map(drop).err();
    (failure, start.elapsed().as_millis() as u64, ended.load(Ordering::Relaxed))
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_touched_nobody_has_a_time_limit() {
    assert_eq!(run_for(TURN_MS_MAX - 1, || true).await, (None, TURN_MS_MAX - 1, true));
    let (failure, after_ms, ended) = run_for(TURN_MS_MAX + 100, || true).await;
    assert_eq!(failure, Some(RunFailure::TimedOut { limit_ms: TURN_MS_MAX }));
    assert!((TURN_MS_MAX..TURN_MS_MAX + 100).contains(&after_ms), "it ended after {after_ms} ms");
    assert!(ended, "the handler does not go on");
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_touched_others_is_finished_however_long_it_takes() {
    let ms = 10 * TURN_MS_MAX + 1;
    assert_eq!(run_for(ms, || false).await, (None, ms, true));
}

#[tokio::test(start_paused = true)]
async fn whether_the_limit_holds_is_asked_when_it_is_reached() {
    // Touches others late, but in time.
    let start = Instant::now();
    let touched = || start.elapsed() >= Duration::from_millis(TURN_MS_MAX / 2);
    assert_eq!(run_for(2 * TURN_MS_MAX, || !touched()).await, (None, 2 * TURN_MS_MAX, true));
    let asked = Cell::new(0);
    let second_time = || {
        asked.set(asked.get() + 1);
        asked.get() == 2
    };
    let (failure, after_ms, _) = run_for(5 * TURN_MS_MAX, second_time).await;
    assert_eq!(failure, Some(RunFailure::TimedOut { limit_ms: TURN_MS_MAX }));
    assert!((2 * TURN_MS_MAX..2 * TURN_MS_MAX + 100).contains(&after_ms), "it ended after {after_ms} ms");
}
