//! What clients have done that nobody waits for: letters, and alarms that ring at set times. At the end they look
//! whether all came.

use super::{Client, OTHER_EXTENSION_PERCENT, Stage, limited};
use crate::{
    alarms::{self, ALARMS},
    letters::{self, BOXES},
};
use afdg_proto::{
    pb::v1::{CallRequest, SendRequest},
    status::to_call_error,
};
use afdg_tests::{alarm::v1 as alarm, mail::v1 as mail};
use afdg_types::CallError;
use prost::Message;
use std::time::Duration;

/// How often the boxes are read, a second apart, until they hold what was sent.
const COLLECTIONS_MAX: u32 = 60;
/// Of 100 letters, so many may be refused, each in so many of 100 turns: few enough that none is given up.
const REFUSED_PERCENT: u64 = 30;
const REFUSED_TURNS_PERCENT: u32 = 20;
/// Of 100 letters that a client sends, so many take their box up to so long: some longer than a leader waits
/// before it notes a message apart from its turn, some not.
const SLOW_PERCENT: u64 = 25;
const SLOW_MS_MAX: u64 = 8;
/// Of 100 letters, so many are held back for up to a second.
const HELD_BACK_PERCENT: u64 = 10;
/// A schedule starts within this, and rings a few times.
const SCHEDULE_START_MS_MAX: u64 = 2_000;
const SCHEDULE_PERIOD_MS: std::ops::Range<u64> = 100..900;
const SCHEDULE_PERIODS_MAX: u64 = 6;

impl Client {
    /// Sends letters, and repeats that until it knows that they were taken.
    pub(super) async fn post(&mut self) {
        self.messages += 1;
        let key = format!("{}-{}", self.number, self.messages);
        let timeout_ms = 500 + self.random(4_000);
        let refused_percent = if self.random(100) < REFUSED_PERCENT { REFUSED_TURNS_PERCENT } else { 0 };
        let delay_ms = if self.random(100) < HELD_BACK_PERCENT { self.random(1_000) } else { 0 };
        let spreads = self.random(2) == 0;
        let (agent, method, request) = if spreads {
            let from = format!("from-{}", self.number);
            let count = 1 + self.random(3);
            let first = self.board.lock().letters.spread(&from, count);
            let to = (0..BOXES).map(letters::receiver).collect();
            let spread = mail::SpreadRequest { to, first, count, refused_percent, ..Default::default() };
            (from, "Spread", spread.encode_to_vec())
        } else {
            let (from, to) = (format!("client-{}", self.number), letters::receiver(self.random(BOXES)));
            let number = self.board.lock().letters.letter(&from, &to);
            let takes_ms = if self.random(100) < SLOW_PERCENT { 1 + self.random(SLOW_MS_MAX) } else { 0 };
            let letter = mail::Letter { from, number, refused_percent, takes_ms, ..Default::default() };
            (to, "Receive", letter.encode_to_vec())
        };
        let (agent, method) = (format!("mail.v1.Box/{agent}"), method.to_owned());
        loop {
            let other = usize::from(self.random(100) < OTHER_EXTENSION_PERCENT);
            let extension = (self.number + other) % self.grids.len();
            let grid = &mut self.grids[extension];
            let (agent, method) = (agent.clone(), method.clone());
            let (request, idempotency_key) = (request.clone().into(), key.clone());
            let taken = if spreads {
                let call = CallRequest { agent, method, request, idempotency_key, timeout_ms };
                grid.call(limited(call, timeout_ms)).await.map(drop)
            } else {
                let send = SendRequest { agent, method, request, idempotency_key, timeout_ms, delay_ms };
                grid.send(limited(send, timeout_ms)).await.map(drop)
            };
            match taken.map_err(|status| to_call_error(&status)) {
                Ok(()) => return self.board.events.count("letters posted"),
                Err(CallError::Agent(error)) => {
                    let what = format_args!("a letter was refused: {error}");
                    return self.board.events.violation("answers", what);
                }
                Err(CallError::Grid(_)) => self.board.events.count("letters posted again"),
            }
            if self.board.stage() == Stage::Over {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20 + self.random(200))).await;
        }
    }

    /// Reads every box until it holds what was sent to it, or should have long ago.
    pub(super) async fn collect_letters(&mut self) {
        let sent = self.board.lock().letters.clone();
        for number in 0..BOXES {
            let to = letters::receiver(number);
            let mut received = Vec::new();
            for _ in 0..COLLECTIONS_MAX {
                received = self.read_box(&to).await;
                if received.len() >= sent.count_for(&to) {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            sent.check(&to, &received, &self.board.events);
        }
    }

    async fn read_box(&mut self, key: &str) -> Vec<(String, u64)> {
        let letters: mail::Letters = self.read_all(format!("mail.v1.Box/{key}")).await;
        letters.letters.into_iter().map(|letter| (letter.from, letter.number)).collect()
    }

    /// Has an alarm set a schedule, and repeats that until it knows that it is set, or can't be any more.
    pub(super) async fn set_alarm(&mut self) {
        self.messages += 1;
        let name = format!("{}-{}", self.number, self.messages);
        let (from, to) = (alarms::ringing(self.random(ALARMS)), alarms::ringing(self.random(ALARMS)));
        let now_ms = self.world.clock.now_ms();
        let period_ms =
            SCHEDULE_PERIOD_MS.start + self.random(SCHEDULE_PERIOD_MS.end - SCHEDULE_PERIOD_MS.start);
        let start_ms = now_ms + self.random(SCHEDULE_START_MS_MAX);
        let until_ms = start_ms + period_ms * self.random(SCHEDULE_PERIODS_MAX);
        let set = alarm::SetRequest {
            name: name.clone(),
            period_ms,
            missed: "all".to_owned(),
            start_ms,
            until_ms,
            to: to.clone(),
            ..Default::default()
        };
        let request = set.encode_to_vec();
        loop {
            let timeout_ms = 500 + self.random(4_000);
            let call = CallRequest {
                agent: format!("alarm.v1.Alarm/{from}"),
                method: "Set".to_owned(),
                request: request.clone().into(),
                idempotency_key: name.clone(),
                timeout_ms,
            };
            let extension = self.number % self.grids.len();
            let set = self.grids[extension].call(limited(call, timeout_ms)).await;
            match set.map_err(|status| to_call_error(&status)) {
                Ok(response) => {
                    let at_ms = alarm::SetResponse::decode(response.into_inner().response)
                        .map_or(u64::MAX, |response| response.at_ms);
                    let set = alarms::Set { from, name, to, period_ms, at_ms, start_ms, until_ms };
                    self.board.lock().alarms.push(set);
                    return self.board.events.count("alarms set");
                }
                // All its times had passed: nothing is set.
                Err(CallError::Agent(error)) if error.reason == "SCHEDULE_MALFORMED" => {
                    return self.board.events.count("alarms too late");
                }
                Err(CallError::Agent(error)) => {
                    let what = format_args!("a schedule was refused: {error}");
                    return self.board.events.violation("answers", what);
                }
                Err(CallError::Grid(error)) => {
                    self.board.events.note("client", format_args!("{} can't set: {error}", self.number));
                }
            }
            if self.board.stage() == Stage::Over {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20 + self.random(200))).await;
        }
    }

    /// Reads every alarm until it rang as often as was set, or should have long ago.
    pub(super) async fn collect_rings(&mut self) {
        let sets = self.board.lock().alarms.clone();
        for number in 0..ALARMS {
            let to = alarms::ringing(number);
            let mut rings = Vec::new();
            for _ in 0..COLLECTIONS_MAX {
                let read: alarm::Rings = self.read_all(format!("alarm.v1.Alarm/{to}")).await;
                let ring = |rung: alarm::Rung| alarms::Ring {
                    from: rung.from,
                    name: rung.name,
                    message_id: rung.message_id,
                };
                rings = read.rings.into_iter().map(ring).collect();
                if rings.len() >= alarms::count_for(&to, &sets) {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            alarms::check(&to, &rings, &sets, &self.board.events);
        }
    }

    /// What the agent's method `Read` says, asked until there is an answer.
    async fn read_all<T: Message + Default>(&mut self, agent: String) -> T {
        loop {
            let call = CallRequest {
                agent: agent.clone(),
                method: "Read".to_owned(),
                timeout_ms: 4_000,
                ..Default::default()
            };
            let extension = self.number % self.grids.len();
            if let Ok(response) = self.grids[extension].call(limited(call, 4_000)).await {
                return T::decode(response.into_inner().response).unwrap_or_default();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
