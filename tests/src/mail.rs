//! An agent for tests of messages that nobody waits for: it keeps what it receives, in order, and fails as a
//! letter says.

use afdg_agent::{AgentError, AgentType, Context, async_trait};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use v1::{BoxAgent, BoxCalls, KeptLetter, Letter, Letters, ReadRequest, Received, Spread, SpreadRequest};

/// The package `mail.v1`: messages, the agent's trait, and callers.
pub mod v1 {
    afdg_agent::include_agent!("mail.v1");
}

/// The agent type `mail.v1.Box`, for a host.
pub fn mail_box() -> AgentType {
    v1::box_agent(MailBox)
}

const LETTERS: &str = "letters";
/// Letters that one `Read` returns at most.
const READ_MAX: u64 = 100_000;

#[derive(Serialize, Deserialize)]
struct Kept {
    from: String,
    number: u64,
    at_ms: u64,
}

struct MailBox;

#[async_trait]
impl BoxAgent for MailBox {
    async fn receive(&self, ctx: &mut Context, letter: Letter) -> Result<Received, AgentError> {
        let at_ms = ctx.now_ms();
        assert!(at_ms >= letter.panics_until_ms, "the letter makes its handler panic");
        let by_chance = ctx.random_u64() % 100 < u64::from(letter.refused_percent);
        if by_chance || at_ms < letter.refused_until_ms {
            return Err(AgentError::refused("NOT_NOW", "the letter is refused for now"));
        }
        if letter.takes_ms > 0 {
            tokio::time::sleep(Duration::from_millis(letter.takes_ms)).await;
        }
        let kept = Kept { from: letter.from, number: letter.number, at_ms };
        ctx.entity(LETTERS).push(&kept).await?;
        Ok(Received { letters: ctx.entity(LETTERS).len().await? })
    }

    async fn spread(&self, ctx: &mut Context, request: SpreadRequest) -> Result<Spread, AgentError> {
        let from = ctx.key().to_owned();
        let mut message_ids = Vec::new();
        for number in request.first..request.first + request.count {
            for to in &request.to {
                let letter = Letter {
                    from: from.clone(),
                    number,
                    refused_until_ms: request.refused_until_ms,
                    refused_percent: request.refused_percent,
                    ..Letter::default()
                };
                let delay = Duration::from_millis(request.delay_ms);
                message_ids.push(ctx.send_after(delay, BoxCalls::receive(to, letter))?.to_string());
            }
        }
        match request.refuse || ctx.now_ms() < request.spread_refused_until_ms {
            true => Err(AgentError::refused("AFTER_ALL_NOT", "nothing is sent after all")),
            false => Ok(Spread { message_ids }),
        }
    }

    async fn read(&self, ctx: &mut Context, _: ReadRequest) -> Result<Letters, AgentError> {
        let kept: Vec<Kept> = ctx.entity(LETTERS).range(0..READ_MAX).await?;
        let letters = kept.into_iter().map(|Kept { from, number, at_ms }| KeptLetter { from, number, at_ms });
        Ok(Letters { letters: letters.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use afdg_agent::testing::{NOW_MS_DEFAULT, TestGrid};

    fn spread(to: &[&str], delay_ms: u64) -> SpreadRequest {
        let to = to.iter().map(|key| (*key).to_owned()).collect();
        SpreadRequest { to, first: 1, count: 2, delay_ms, ..SpreadRequest::default() }
    }

    async fn numbers(grid: &TestGrid, key: &str) -> Vec<u64> {
        let read = grid.call(BoxCalls::read(key, ReadRequest::default())).await.unwrap();
        read.letters.iter().map(|letter| letter.number).collect()
    }

    #[tokio::test]
    async fn what_a_turn_sends_arrives_in_order_once_it_is_committed() {
        let grid = TestGrid::new([mail_box()]);
        let sent = grid.call(BoxCalls::spread("a", spread(&["b", "c", "a"], 0))).await.unwrap();
        assert_eq!(sent.message_ids.len(), 6);
        for key in ["a", "b", "c"] {
            assert_eq!(numbers(&grid, key).await, [1, 2], "{key}");
        }
        let refused = SpreadRequest { refuse: true, ..spread(&["b"], 0) };
        grid.call(BoxCalls::spread("a", refused)).await.unwrap_err();
        assert_eq!(numbers(&grid, "b").await, [1, 2]);
        assert!(grid.take_failed_sends().is_empty());
    }

    #[tokio::test]
    async fn what_is_held_back_arrives_when_it_is_due() {
        let grid = TestGrid::new([mail_box()]);
        grid.call(BoxCalls::spread("a", spread(&["b"], 500))).await.unwrap();
        grid.set_now_ms(NOW_MS_DEFAULT + 499);
        grid.deliver_due().await;
        assert_eq!((numbers(&grid, "b").await, grid.sends_waiting()), (vec![], 2));
        grid.set_now_ms(NOW_MS_DEFAULT + 500);
        grid.deliver_due().await;
        assert_eq!((numbers(&grid, "b").await, grid.sends_waiting()), (vec![1, 2], 0));
    }

    #[tokio::test]
    async fn a_send_that_fails_is_there_to_be_looked_at() {
        let grid = TestGrid::new([mail_box()]);
        let refused = SpreadRequest { refused_until_ms: u64::MAX, ..spread(&["b"], 0) };
        grid.call(BoxCalls::spread("a", refused)).await.unwrap();
        let failed = grid.take_failed_sends();
        assert_eq!((failed.len(), failed[0].agent.key(), failed[0].error.reason()), (2, "b", "NOT_NOW"));
        assert!(numbers(&grid, "b").await.is_empty() && grid.take_failed_sends().is_empty());
    }
}
