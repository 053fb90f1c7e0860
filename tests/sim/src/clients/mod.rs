//! Clients that call agents through the extensions, and write down what they saw.
//!
//! Most repeat a message under its key until they know its outcome; some give up, and some have no key. At
//! the end everything that was acknowledged under a key is asked again, and must be answered the same.

mod posting;

use crate::{
    alarms,
    events::Events,
    invariants::answers::{Answer, History, Op},
    letters,
};
use afdg_example_bank::v1 as bank;
use afdg_example_counter::v1 as counter;
use afdg_example_shop::v1 as shop;
use afdg_proto::{
    pb::v1::{CallRequest, grid_client::GridClient},
    status::to_call_error,
};
use afdg_runtime::{Net, World, channel_to};
use afdg_tests::linearizability::Operation;
use afdg_types::{CallError, Reason, Retry};
use prost::Message;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tonic::transport::Channel;

pub const CLIENTS: usize = 6;
const COUNTERS: u64 = 4;
const CUSTOMERS: u64 = 3;
const ACCOUNTS: u64 = 4;
/// How often the accounts are read, a second apart, until they add up.
const AUDITS_MAX: u32 = 40;
/// Every account begins with this.
const FIRST_DEPOSIT: i64 = 1_000;
/// And takes this at the end: an account whose turns wait for ever would not.
const LAST_DEPOSIT: i64 = 1;
/// Of 100 messages, so many have no key.
const KEYLESS_PERCENT: u64 = 10;
/// Of 100 messages whose outcome was unknown, so many are given up; of transfers more, so that it is left to
/// the grid to finish them.
const GIVE_UP_PERCENT: u64 = 5;
const GIVE_UP_TRANSFER_PERCENT: u64 = 40;
/// Of 100 messages, so many are letters that nobody waits for, or have a box send such.
const LETTERS_PERCENT: u64 = 10;
/// Of 100 messages, so many have an alarm set a schedule.
const SCHEDULES_PERCENT: u64 = 3;
/// Of 100 attempts, so many go to another extension than the client's own.
const OTHER_EXTENSION_PERCENT: u64 = 15;

/// What all clients share. Cheap to clone.
#[derive(Clone)]
pub struct Board {
    shared: Arc<Mutex<Shared>>,
    events: Events,
}

#[derive(Default)]
struct Shared {
    history: History,
    stage: Stage,
    /// Clients that have done what the stage asks for.
    done: usize,
    /// Messages under a key that were acknowledged, with their answer.
    kept: Vec<(Question, Reply)>,
    balances: Vec<i64>,
    letters: letters::Sent,
    alarms: Vec<alarms::Set>,
}

/// What clients do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Put money on the accounts.
    #[default]
    Open,
    Load,
    /// Bring to an end what was begun, ask again what was acknowledged.
    Settle,
    /// Read everything.
    Audit,
    Over,
}

/// One message, as often as it is sent.
#[derive(Clone, Debug)]
struct Question {
    agent: String,
    op: Op,
    /// Where a transfer goes.
    to: Option<String>,
    key: Option<String>,
}

/// What the agent said.
#[derive(Clone, Debug, PartialEq)]
enum Reply {
    Answer(Answer),
    /// Both balances after a transfer.
    Transferred(i64, i64),
    /// A transfer had no effect: it was refused because agents waited for one another in a ring.
    InRing,
}

impl Board {
    pub fn new(events: Events) -> Self {
        Self { shared: Arc::default(), events }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn stage(&self) -> Stage {
        self.lock().stage
    }

    pub fn set_stage(&self, stage: Stage) {
        let mut shared = self.lock();
        shared.stage = stage;
        shared.done = 0;
    }

    /// Whether all clients have done what the stage asks for.
    pub fn is_done(&self) -> bool {
        self.lock().done == CLIENTS
    }

    pub fn history(&self) -> History {
        self.lock().history.clone()
    }

    pub fn balances(&self) -> Vec<i64> {
        self.lock().balances.clone()
    }

    /// All the money that there is.
    pub fn money() -> i64 {
        (FIRST_DEPOSIT + LAST_DEPOSIT) * ACCOUNTS as i64
    }

    fn note(&self, client: usize, question: &Question, called: u64, answered: Option<(u64, Reply)>) {
        let mut shared = self.lock();
        let mut put = |agent: &str, op: Op, answered: Option<(u64, Answer)>| {
            let operations = shared.history.entry(agent.to_owned()).or_default();
            operations.push(Operation { client: client as u32, op, called, answered });
        };
        let Question { agent, op, to, .. } = question;
        match (op, to, answered) {
            (Op::Take(cents), Some(to), Some((at, Reply::Transferred(from_cents, to_cents)))) => {
                put(agent, op.clone(), Some((at, Answer::Value(from_cents))));
                put(to, Op::Deposit(*cents), Some((at, Answer::Value(to_cents))));
            }
            (Op::Take(cents), Some(to), None) => {
                put(agent, op.clone(), None);
                put(to, Op::Deposit(*cents), None);
            }
            (_, _, Some((_, Reply::InRing))) => {}
            (_, _, Some((at, Reply::Answer(answer)))) => put(agent, op.clone(), Some((at, answer))),
            (_, _, _) => put(agent, op.clone(), None),
        }
    }

    fn acknowledge(&self, question: &Question, reply: &Reply) {
        let mut shared = self.lock();
        if question.key.is_some() && !matches!(question.op, Op::Get | Op::GetSummary | Op::GetBalance) {
            shared.kept.push((question.clone(), reply.clone()));
        }
    }
}

/// All clients, on one host.
pub async fn run(world: World, endpoints: Vec<String>, board: Board) {
    let clients = (0..CLIENTS).map(|number| {
        let client = Client::new(number, &world, &endpoints, board.clone());
        tokio::spawn(client.run())
    });
    let clients: Vec<_> = clients.collect();
    for client in clients {
        if let Err(error) = client.await {
            board.events.violation("clients", format_args!("a client panicked: {error}"));
        }
    }
}

struct Client {
    number: usize,
    world: World,
    grids: Vec<GridClient<Channel>>,
    board: Board,
    messages: u64,
}

enum Sent {
    Reply(Reply),
    /// It had no effect.
    Nothing,
    Unknown,
}

impl Client {
    fn new(number: usize, world: &World, endpoints: &[String], board: Board) -> Self {
        let net: &Arc<dyn Net> = &world.net;
        let grid = |endpoint: &String| {
            let channel = channel_to(net, endpoint, Duration::from_secs(2));
            GridClient::new(channel.expect("the address is well formed"))
        };
        let grids = endpoints.iter().map(grid).collect();
        Self { number, world: world.clone(), grids, board, messages: 0 }
    }

    fn random(&self, below: u64) -> u64 {
        self.world.entropy.random_u64() % below
    }

    async fn run(mut self) {
        if self.number == 0 {
            self.deposit_everywhere("open", FIRST_DEPOSIT).await;
        }
        self.finish(Stage::Open).await;
        while self.board.stage() == Stage::Load {
            let kind = self.random(100);
            if kind < LETTERS_PERCENT {
                self.post().await;
            } else if kind < LETTERS_PERCENT + SCHEDULES_PERCENT {
                self.set_alarm().await;
            } else {
                let question = self.next_question();
                self.ask(question, false).await;
            }
            tokio::time::sleep(Duration::from_micros(self.random(50_000))).await;
        }
        self.ask_again().await;
        if self.number == 0 {
            self.deposit_everywhere("close", LAST_DEPOSIT).await;
        }
        self.finish(Stage::Settle).await;
        if self.number == 0 {
            self.audit().await;
        }
        if self.number == 1 {
            self.collect_letters().await;
        }
        if self.number == 2 {
            self.collect_rings().await;
        }
        self.finish(Stage::Audit).await;
    }

    async fn deposit_everywhere(&mut self, when: &str, cents: i64) {
        for account in 0..ACCOUNTS {
            let question = Question {
                agent: account_of(account),
                op: Op::Deposit(cents),
                to: None,
                key: Some(format!("{when}-{account}")),
            };
            self.ask(question, true).await;
        }
    }

    async fn finish(&self, stage: Stage) {
        self.board.lock().done += 1;
        while self.board.stage() == stage {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn next_question(&mut self) -> Question {
        self.messages += 1;
        let keyless = self.random(100) < KEYLESS_PERCENT;
        let key = (!keyless).then(|| format!("{}-{}", self.number, self.messages));
        let question = |agent, op| Question { agent, op, to: None, key: key.clone() };
        let counter = format!("counter.v1.Counter/c{}", self.random(COUNTERS));
        let customer = format!("shop.v1.Customer/s{}", self.random(CUSTOMERS));
        match self.random(10) {
            0..=2 => question(counter, Op::Add(1 + self.random(9) as i64)),
            3 | 4 => question(counter, Op::Get),
            5 => question(customer, Op::RecordPurchase(self.random(10_000) as i64)),
            6 => question(customer, Op::GetSummary),
            7 | 8 => {
                // In any direction: those that wait for one another are set free by the grid.
                let from = self.random(ACCOUNTS);
                let to = (from + 1 + self.random(ACCOUNTS - 1)) % ACCOUNTS;
                let cents = 1 + self.random(300) as i64;
                Question { to: Some(account_of(to)), ..question(account_of(from), Op::Take(cents)) }
            }
            _ => question(account_of(self.random(ACCOUNTS)), Op::GetBalance),
        }
    }

    /// Sends a message until its outcome is known, or this client gives up, and writes it down.
    async fn ask(&mut self, question: Question, patient: bool) {
        let called = self.now_ns();
        let reads = matches!(question.op, Op::Get | Op::GetSummary | Op::GetBalance);
        let mut may_have_had_effect = false;
        loop {
            match self.send(&question).await {
                Sent::Reply(reply) => {
                    let at = self.now_ns();
                    self.board.events.count("calls answered");
                    self.board.acknowledge(&question, &reply);
                    return self.board.note(self.number, &question, called, Some((at, reply)));
                }
                // Nothing happened: so there is nothing to write down.
                Sent::Nothing if question.key.is_none() => return,
                Sent::Nothing => self.board.events.count("calls refused"),
                Sent::Unknown => {
                    may_have_had_effect = true;
                    self.board.events.count("unknown outcomes");
                    let percent =
                        if question.to.is_some() { GIVE_UP_TRANSFER_PERCENT } else { GIVE_UP_PERCENT };
                    let gives_up = question.key.is_none() || (!patient && self.random(100) < percent);
                    if gives_up {
                        if !reads {
                            self.board.note(self.number, &question, called, None);
                        }
                        return;
                    }
                }
            }
            if self.board.stage() == Stage::Audit {
                if may_have_had_effect && !reads {
                    self.board.note(self.number, &question, called, None);
                }
                return;
            }
            tokio::time::sleep(Duration::from_millis(20 + self.random(200))).await;
        }
    }

    /// Asks once more what was acknowledged: the same answer must come.
    async fn ask_again(&mut self) {
        let kept: Vec<_> = {
            let shared = self.board.lock();
            let own = format!("{}-", self.number);
            let is_own = |question: &Question| question.key.as_ref().is_some_and(|key| key.starts_with(&own));
            let mine = shared.kept.iter().filter(|(question, _)| is_own(question));
            mine.rev().take(12).cloned().collect()
        };
        for (question, before) in kept {
            loop {
                match self.send(&question).await {
                    Sent::Reply(reply) if reply == before => break self.board.events.count("calls repeated"),
                    Sent::Reply(reply) => {
                        let what = format_args!("{question:?} was answered {before:?}, and again {reply:?}");
                        break self.board.events.violation("once", what);
                    }
                    Sent::Nothing | Sent::Unknown => {
                        if self.board.stage() == Stage::Over {
                            return;
                        }
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        }
    }

    /// Reads every agent, for the history. A transfer whose client gave up may still be on its way, so the
    /// accounts are read until they add up, or should have long ago.
    async fn audit(&mut self) {
        let ask = |agent: String, op| Question { agent, op, to: None, key: None };
        for counter in 0..COUNTERS {
            self.read(&ask(format!("counter.v1.Counter/c{counter}"), Op::Get)).await;
        }
        for customer in 0..CUSTOMERS {
            self.read(&ask(format!("shop.v1.Customer/s{customer}"), Op::GetSummary)).await;
        }
        for _ in 0..AUDITS_MAX {
            let mut balances = Vec::new();
            for account in 0..ACCOUNTS {
                if let Answer::Value(cents) = self.read(&ask(account_of(account), Op::GetBalance)).await {
                    balances.push(cents);
                }
            }
            let add_up = balances.iter().sum::<i64>() == Board::money();
            self.board.lock().balances = balances;
            if add_up {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn read(&mut self, question: &Question) -> Answer {
        loop {
            let called = self.now_ns();
            if let Sent::Reply(Reply::Answer(answer)) = self.send(question).await {
                let at = self.now_ns();
                self.board.note(self.number, question, called, Some((at, Reply::Answer(answer.clone()))));
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// When the hosts' turn began in which this is: what was called in one turn and answered in the same
    /// counts as side by side.
    fn now_ns(&self) -> u64 {
        self.board.events.now_ns()
    }

    async fn send(&mut self, question: &Question) -> Sent {
        let (method, request) = encode(question);
        let timeout_ms = 500 + self.random(4_000);
        let call = CallRequest {
            agent: question.agent.clone(),
            method: method.to_owned(),
            request: request.into(),
            idempotency_key: question.key.clone().unwrap_or_default(),
            timeout_ms,
        };
        // Mostly its own: what one extension has learnt of leaders, the other may not know yet.
        let other = usize::from(self.random(100) < OTHER_EXTENSION_PERCENT);
        let extension = (self.number + other) % self.grids.len();
        let request = limited(call, timeout_ms);
        self.board.events.note("client", format_args!("{} asks {question:?}", self.number));
        let result = self.grids[extension].call(request).await;
        let sent = match result {
            Ok(response) => Sent::Reply(decode(question, &response.into_inner().response)),
            Err(status) => match to_call_error(&status) {
                CallError::Agent(error) if error.reason == "BALANCE_SHORT" => {
                    Sent::Reply(Reply::Answer(Answer::Short))
                }
                CallError::Agent(error) if error.reason == "CALL_CYCLE" && question.to.is_some() => {
                    self.board.events.count("rings broken");
                    Sent::Reply(Reply::InRing)
                }
                // An earlier attempt was given up, and its call to the other account was cut: no money moved.
                CallError::Agent(error) if error.reason == "CALL_CANCELLED" && question.to.is_some() => {
                    self.board.events.count("calls cancelled");
                    Sent::Reply(Reply::InRing)
                }
                CallError::Agent(error) => {
                    let what = format_args!("{question:?} was refused: {error}");
                    self.board.events.violation("answers", what);
                    Sent::Unknown
                }
                CallError::Grid(error) => {
                    self.board.events.note("client", format_args!("{} hears {}", self.number, error.reason));
                    match (error.reason, error.retry()) {
                        (Reason::IdExpired | Reason::Internal, _) | (_, Retry::Unknown) => Sent::Unknown,
                        _ => Sent::Nothing,
                    }
                }
            },
        };
        if let Sent::Reply(reply) = &sent {
            self.board.events.note("client", format_args!("{} is answered {reply:?}", self.number));
        }
        sent
    }
}

/// A request that the transport gives up a little after the grid does.
fn limited<T>(message: T, timeout_ms: u64) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(Duration::from_millis(timeout_ms + 500));
    request
}

fn account_of(number: u64) -> String {
    format!("bank.v1.Account/a{number}")
}

fn encode(question: &Question) -> (&'static str, Vec<u8>) {
    let key = |agent: &str| agent.split_once('/').map_or(String::new(), |(_, key)| key.to_owned());
    match (&question.op, &question.to) {
        (Op::Add(delta), _) => {
            ("Add", counter::AddRequest { delta: *delta, ..Default::default() }.encode_to_vec())
        }
        (Op::Get, _) => ("Get", counter::GetRequest::default().encode_to_vec()),
        (Op::RecordPurchase(cents), _) => {
            let request = shop::RecordPurchaseRequest {
                date: "20261101".to_owned(),
                amount_cents: *cents,
                ..Default::default()
            };
            ("RecordPurchase", request.encode_to_vec())
        }
        (Op::GetSummary, _) => ("GetSummary", shop::GetSummaryRequest::default().encode_to_vec()),
        (Op::Deposit(cents), _) => {
            ("Deposit", bank::DepositRequest { cents: *cents, ..Default::default() }.encode_to_vec())
        }
        (Op::GetBalance, _) => ("GetBalance", bank::GetBalanceRequest::default().encode_to_vec()),
        (Op::Take(cents), to) => {
            let to = to.as_deref().map(key).unwrap_or_default();
            ("Transfer", bank::TransferRequest { to, cents: *cents, ..Default::default() }.encode_to_vec())
        }
    }
}

fn decode(question: &Question, response: &[u8]) -> Reply {
    match &question.op {
        Op::Add(_) | Op::Get => {
            Reply::Answer(Answer::Value(counter::Count::decode(response).unwrap_or_default().value))
        }
        Op::RecordPurchase(_) => {
            let response = shop::RecordPurchaseResponse::decode(response).unwrap_or_default();
            Reply::Answer(Answer::Summary(response.count, response.total_cents))
        }
        Op::GetSummary => {
            let summary = shop::Summary::decode(response).unwrap_or_default();
            Reply::Answer(Answer::Summary(summary.count, summary.total_cents))
        }
        Op::Deposit(_) | Op::GetBalance => {
            Reply::Answer(Answer::Value(bank::Balance::decode(response).unwrap_or_default().cents))
        }
        Op::Take(_) => {
            let response = bank::TransferResponse::decode(response).unwrap_or_default();
            Reply::Transferred(response.from_cents, response.to_cents)
        }
    }
}
