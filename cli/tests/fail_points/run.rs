//! Runs the cases.

use crate::{
    arena::{Arena, Ground},
    cases::{Case, Scenario},
    clients::Clients,
    node::{CLOCK_AHEAD_MS, HOSTS_GUESTS},
    tell,
};
use afdg_proto::pb::admin::{DeadLetter, settle_dead_letters_request::Action};
use afdg_tests::relay::v1::{Errand, KeepRequest, Kept, errand::Way};
use afdg_types::AgentRef;
use anyhow::{Context, Result, bail, ensure};
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{task::JoinHandle, time::Instant};

const RELAY: &str = "relay.v1.Relay";
const GUEST: &str = "relay.v1.Guest";
/// Grids side by side: a case mostly waits, for elections and starts.
const GRIDS: usize = 2;
/// A case is tried again, with other agents, where the victim lost its lead before it got to the point.
const TRIES: usize = 3;
/// How long effects may take to show.
const EFFECTS_LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);
/// Longer than a message takes to its receiver, and less than the 750 ms that a relay's attempts take.
const REFUSED_MS: u64 = 600;
/// By then a message is a dead letter.
const DEAD_MS: u64 = 3_000;
/// Longer than a leader waits for a turn before it notes the message by itself.
const SLOW_MS: u64 = 50;
const DELAY_MS: u64 = 400;
/// Past this a message that was not delivered is given up.
const DAY_MS: &str = "86400000";
const SCHEDULE_MS: u64 = 300;
/// When a schedule that is cancelled would have been due.
const CANCELLED_MS: u64 = 20_000;

/// What there has to be in the end.
struct Books {
    of: String,
    /// By agent, the marks that it keeps, in order.
    marks: Vec<(AgentRef, Vec<&'static str>)>,
    /// By agent that a message was for, how many are among the dead letters.
    dead: Vec<(AgentRef, usize)>,
}

/// What the client or the operator of a case does.
enum Act {
    Keep { agent: AgentRef, request: KeepRequest },
    Send { agent: AgentRef, request: KeepRequest, delay_ms: u64 },
    Settle { letter: DeadLetter, action: Action },
    Cancel { agent: AgentRef },
}

/// A case's agents. `guest` is in the region of `here`, and of a type that most nodes lack.
struct Agents {
    ground: Ground,
    here: AgentRef,
    there: AgentRef,
    guest: AgentRef,
}

pub async fn all(cases: Vec<Case>) -> Result<()> {
    let (began, count) = (Instant::now(), cases.len());
    // Those with a clock that is ahead come last: it has the node forget ids.
    let (last, first): (Vec<_>, Vec<_>) = cases.into_iter().partition(|case| needs_clock(case.scenario));
    let mut shares = vec![Vec::new(); GRIDS];
    for (number, case) in first.into_iter().chain(last).enumerate() {
        shares[number % GRIDS].push(case);
    }
    let mut running = Vec::new();
    for share in shares.into_iter().filter(|share| !share.is_empty()) {
        // Not at the same time: they look for free ports.
        let arena = Arena::open().await?;
        running.push(tokio::spawn(share_of(arena, share)));
    }
    for share in running {
        share.await??;
    }
    tell(&format!("{count} cases, {:.0} s", began.elapsed().as_secs_f64()));
    Ok(())
}

fn needs_clock(scenario: Scenario) -> bool {
    matches!(scenario, Scenario::NeverTaken | Scenario::DeliveryRetried | Scenario::DeliveryDropped)
}

async fn share_of(mut arena: Arena, cases: Vec<Case>) -> Result<()> {
    let mut books = Vec::new();
    let mut quiet_at = Instant::now();
    for case in cases {
        let began = Instant::now();
        books.push(run(&mut arena, case).await.with_context(|| format!("{case}"))?);
        if case.scenario == Scenario::Cancelled {
            quiet_at = Instant::now() + Duration::from_millis(CANCELLED_MS);
        }
        arena.grid.tell(format_args!("{case}: once, {:.1} s", began.elapsed().as_secs_f64()));
    }
    arena.start_over().await?;
    tokio::time::sleep_until(quiet_at).await;
    for books in &books {
        let after_all = || format!("{}, after the end of all nodes", books.of);
        until_even(&arena.clients, books).await.with_context(after_all)?;
    }
    arena.grid.finish()
}

async fn run(arena: &mut Arena, case: Case) -> Result<Books> {
    for number in 0..TRIES {
        let agents = Agents::of(arena, case, number)?;
        let books = match case.scenario {
            Scenario::NeverTaken => never_taken(arena, case, &agents).await?,
            Scenario::DeliveryRetried | Scenario::DeliveryDropped => {
                delivery_settled(arena, case, &agents).await?
            }
            _ => ordinary(arena, case, &agents).await?,
        };
        match books {
            Some(books) => return Ok(books),
            None => arena.grid.tell(format_args!("{case}: the point was not reached")),
        }
    }
    bail!("the point was not reached in {TRIES} tries")
}

impl Agents {
    fn of(arena: &Arena, case: Case, number: usize) -> Result<Self> {
        let ground = if needs_clock(case.scenario) { Ground::Aside } else { Ground::Here };
        let name = |who: &str| format!("{case}-{number}-{who}");
        Ok(Self {
            ground,
            here: arena.agent(ground, RELAY, &name("here"))?,
            there: arena.agent(Ground::There, RELAY, &name("there"))?,
            guest: arena.agent(ground, GUEST, &name("guest"))?,
        })
    }
}

/// A case whose victim ends while it is led up to the point by one act. None if it has not ended.
async fn ordinary(arena: &mut Arena, case: Case, agents: &Agents) -> Result<Option<Books>> {
    arena.start(&format!("{}:{}", case.point, agents.here), &[])?;
    let letter = prepare(&arena.clients, case.scenario, agents).await?;
    arena.lead(agents.ground, &agents.here).await?;
    let act = Arc::new(act(case.scenario, agents, letter)?);
    let key = agents.here.key().to_owned();
    let acting = start(&arena.clients, &act, key.clone());
    let ended = arena.ended(case.point, &agents.here).await;
    if case.scenario == Scenario::CallerGoes || !matches!(ended, Ok(true)) {
        acting.abort();
    }
    if !ended? {
        return Ok(None);
    }
    let books = books(case, agents);
    let answer = match case.scenario {
        Scenario::CallerGoes => {
            until_even(&arena.clients, &books).await?;
            act.carry_out(&arena.clients, &key).await?
        }
        _ => acting.await??,
    };
    until_even(&arena.clients, &books).await?;
    if case.scenario == Scenario::Cancelled {
        let left = arena.clients.schedules(&agents.here).await?;
        ensure!(left.is_empty(), "schedules are left: {left:?}");
    }
    // Who asks again under the key hears what was said, and nothing happens.
    let again = act.carry_out(&arena.clients, &key).await?;
    ensure!(again == answer, "it was answered {answer:?}, and then {again:?}");
    until_even(&arena.clients, &books).await?;
    Ok(Some(books))
}

/// A message that no node takes is given up by a leader that thinks a day has passed.
async fn never_taken(arena: &mut Arena, case: Case, agents: &Agents) -> Result<Option<Books>> {
    send_to_guest(arena, agents).await?;
    arena.start(&format!("{}:{}", case.point, agents.here), &[(CLOCK_AHEAD_MS, DAY_MS)])?;
    if !lead_and_end(arena, case, agents).await? {
        return Ok(None);
    }
    arena.start("", &[(CLOCK_AHEAD_MS, DAY_MS)])?;
    arena.lead(agents.ground, &agents.here).await?;
    let dead = vec![(agents.guest.clone(), 1)];
    let books = Books { of: case.to_string(), marks: vec![(agents.here.clone(), vec!["own"])], dead };
    // Its clock is for messages that lie in the outbox: others are told that they are too old.
    until_dead(&arena.clients, &books).await?;
    arena.start("", &[])?;
    until_even(&arena.clients, &books).await?;
    Ok(Some(books))
}

/// Such a message is tried again, and a node takes it; or it is dropped.
async fn delivery_settled(arena: &mut Arena, case: Case, agents: &Agents) -> Result<Option<Books>> {
    let (action, taken) = match case.scenario {
        Scenario::DeliveryDropped => (Action::Drop, Vec::new()),
        _ => (Action::Retry, vec!["sent"]),
    };
    send_to_guest(arena, agents).await?;
    arena.start("", &[(CLOCK_AHEAD_MS, DAY_MS)])?;
    arena.lead(agents.ground, &agents.here).await?;
    let letter = letter_of(&arena.clients, &agents.guest).await?;
    ensure!(letter.undelivered, "it is no dead letter of its sender: {letter:?}");
    arena.start(&format!("{}:{}", case.point, agents.here), &[(HOSTS_GUESTS, "1")])?;
    arena.lead(agents.ground, &agents.here).await?;
    let act = Arc::new(Act::Settle { letter, action });
    let acting = start(&arena.clients, &act, String::new());
    if !arena.ended(case.point, &agents.here).await? {
        acting.abort();
        return Ok(None);
    }
    acting.await??;
    arena.start("", &[(HOSTS_GUESTS, "1")])?;
    arena.lead(agents.ground, &agents.here).await?;
    let marks = vec![(agents.here.clone(), vec!["own"]), (agents.guest.clone(), taken)];
    let books = Books { of: case.to_string(), marks, dead: vec![(agents.guest.clone(), 0)] };
    until_even(&arena.clients, &books).await?;
    Ok(Some(books))
}

/// Here sends to a guest, whom no node hosts.
async fn send_to_guest(arena: &mut Arena, agents: &Agents) -> Result<()> {
    arena.start("", &[])?;
    let request = mark("own", vec![errand(Way::SendToGuest, &agents.guest, "sent")]);
    arena.clients.keep(&agents.here, request, agents.here.key()).await?;
    Ok(())
}

/// The victim ends as it begins to lead.
async fn lead_and_end(arena: &mut Arena, case: Case, agents: &Agents) -> Result<bool> {
    let (leads, region, here) = (arena.leads.clone(), arena.region(agents.ground).id, agents.here.clone());
    let leading = tokio::spawn(async move { leads.take(region, &here).await });
    let ended = arena.ended(case.point, &agents.here).await;
    leading.abort();
    ended
}

fn now_ms() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_millis() as u64)
}

fn mark(mark: &str, errands: Vec<Errand>) -> KeepRequest {
    KeepRequest { mark: mark.to_owned(), errands, ..KeepRequest::default() }
}

fn errand(way: Way, to: &AgentRef, mark: &str) -> Errand {
    Errand { way: way.into(), to: to.key().to_owned(), mark: mark.to_owned(), ..Errand::default() }
}

/// What has to be there before the act: a dead letter, a schedule.
async fn prepare(clients: &Clients, scenario: Scenario, agents: &Agents) -> Result<Option<DeadLetter>> {
    let (here, key) = (&agents.here, format!("{}-before", agents.here.key()));
    match scenario {
        Scenario::LetterRetried | Scenario::LetterDropped => {
            let until = if scenario == Scenario::LetterRetried { now_ms() + DEAD_MS } else { u64::MAX };
            let request = KeepRequest { refused_until_ms: until, ..mark("sent", Vec::new()) };
            clients.send(here, &request, &key, 0).await?;
            let letter = letter_of(clients, here).await?;
            if scenario == Scenario::LetterRetried {
                tokio::time::sleep(Duration::from_millis(until.saturating_sub(now_ms()))).await;
            }
            Ok(Some(letter))
        }
        Scenario::Cancelled => {
            let set = Errand { delay_ms: CANCELLED_MS, times: 3, ..errand(Way::Schedule, here, "ring") };
            clients.keep(here, mark("own", vec![set]), &key).await?;
            Ok(None)
        }
        _ => Ok(None),
    }
}

fn act(scenario: Scenario, agents: &Agents, letter: Option<DeadLetter>) -> Result<Act> {
    let Agents { here, there, .. } = agents;
    let keep = |agent: &AgentRef, errands| Act::Keep { agent: agent.clone(), request: mark("own", errands) };
    let send = |request, delay_ms| Act::Send { agent: here.clone(), request, delay_ms };
    let refused_until_ms = now_ms() + REFUSED_MS;
    let rings = |to| Errand { delay_ms: SCHEDULE_MS, times: 3, ..errand(Way::Schedule, to, "ring") };
    let letter = || letter.clone().context("there is no dead letter");
    Ok(match scenario {
        Scenario::Called => keep(here, Vec::new()),
        Scenario::CalledByAgent => keep(there, vec![errand(Way::Call, here, "called")]),
        Scenario::CallsAndSends | Scenario::CallerGoes => {
            let calls = ["first", "second"].map(|mark| errand(Way::Call, there, mark));
            keep(here, [calls.to_vec(), vec![errand(Way::Send, there, "sent")]].concat())
        }
        Scenario::SentByClient => send(KeepRequest { refused_until_ms, ..mark("sent", Vec::new()) }, 0),
        Scenario::SlowForClient => send(KeepRequest { takes_ms: SLOW_MS, ..mark("sent", Vec::new()) }, 0),
        Scenario::HeldForClient => send(mark("sent", Vec::new()), DELAY_MS),
        Scenario::SentByAgent => {
            keep(there, ["first", "second"].map(|mark| errand(Way::Send, here, mark)).to_vec())
        }
        Scenario::HeldForAgent => {
            let held = |mark| Errand { delay_ms: DELAY_MS, ..errand(Way::Send, here, mark) };
            keep(there, ["first", "second"].map(held).to_vec())
        }
        Scenario::FailsAtFirst => {
            let first = Errand { refused_until_ms, ..errand(Way::Send, here, "first") };
            keep(there, vec![first, errand(Way::Send, here, "second")])
        }
        Scenario::FailsForGood => {
            let first = Errand { refused_until_ms: u64::MAX, ..errand(Way::Send, here, "first") };
            keep(there, vec![first, errand(Way::Send, here, "second")])
        }
        Scenario::Sends => {
            let sends = [(there, "first"), (there, "second"), (here, "third")];
            keep(here, sends.map(|(to, mark)| errand(Way::Send, to, mark)).to_vec())
        }
        Scenario::RingsItself => keep(here, vec![rings(here)]),
        Scenario::RingsAnother => keep(here, vec![rings(there)]),
        Scenario::Cancelled => Act::Cancel { agent: here.clone() },
        Scenario::LetterRetried => Act::Settle { letter: letter()?, action: Action::Retry },
        Scenario::LetterDropped => Act::Settle { letter: letter()?, action: Action::Drop },
        Scenario::NeverTaken | Scenario::DeliveryRetried | Scenario::DeliveryDropped => {
            bail!("{scenario:?} is not led up to by one act")
        }
    })
}

fn books(case: Case, agents: &Agents) -> Books {
    let (here, there): (&[_], &[_]) = match case.scenario {
        Scenario::Called | Scenario::Cancelled => (&["own"], &[]),
        Scenario::CalledByAgent => (&["called"], &["own"]),
        Scenario::CallsAndSends | Scenario::CallerGoes => (&["own"], &["first", "second", "sent"]),
        Scenario::SentByClient
        | Scenario::SlowForClient
        | Scenario::HeldForClient
        | Scenario::LetterRetried => (&["sent"], &[]),
        Scenario::SentByAgent | Scenario::HeldForAgent | Scenario::FailsAtFirst => {
            (&["first", "second"], &["own"])
        }
        Scenario::FailsForGood => (&["second"], &["own"]),
        Scenario::Sends => (&["own", "third"], &["first", "second"]),
        Scenario::RingsItself => (&["own", "ring", "ring", "ring"], &[]),
        Scenario::RingsAnother => (&["own"], &["ring", "ring", "ring"]),
        Scenario::LetterDropped
        | Scenario::NeverTaken
        | Scenario::DeliveryRetried
        | Scenario::DeliveryDropped => (&[], &[]),
    };
    let dead = usize::from(case.scenario == Scenario::FailsForGood);
    Books {
        of: case.to_string(),
        marks: vec![(agents.here.clone(), here.to_vec()), (agents.there.clone(), there.to_vec())],
        dead: vec![(agents.here.clone(), dead), (agents.there.clone(), 0)],
    }
}

/// What an act was answered, if its repeat has to get the same.
#[derive(Debug, PartialEq)]
enum Answer {
    Kept(Kept),
    Id(String),
    /// How many it met: that depends on how often it was asked.
    Count,
}

impl Act {
    async fn carry_out(&self, clients: &Clients, key: &str) -> Result<Answer> {
        Ok(match self {
            Self::Keep { agent, request } => Answer::Kept(clients.keep(agent, request.clone(), key).await?),
            Self::Send { agent, request, delay_ms } => {
                Answer::Id(clients.send(agent, request, key, *delay_ms).await?)
            }
            Self::Settle { letter, action } => {
                clients.settle(letter, *action).await?;
                Answer::Count
            }
            Self::Cancel { agent } => {
                clients.cancel_schedule(agent, "ring").await?;
                Answer::Count
            }
        })
    }
}

fn start(clients: &Arc<Clients>, act: &Arc<Act>, key: String) -> JoinHandle<Result<Answer>> {
    let (clients, act) = (Arc::clone(clients), Arc::clone(act));
    tokio::spawn(async move { act.carry_out(&clients, &key).await })
}

/// The only dead letter that was for the agent, once it is there.
async fn letter_of(clients: &Clients, agent: &AgentRef) -> Result<DeadLetter> {
    let give_up = Instant::now() + EFFECTS_LIMIT;
    loop {
        if let [letter] = &*clients.dead_letters(agent).await? {
            return Ok(letter.clone());
        }
        ensure!(Instant::now() < give_up, "there is no dead letter for {agent} in time");
        tokio::time::sleep(PAUSE).await;
    }
}

async fn until_dead(clients: &Clients, books: &Books) -> Result<()> {
    let give_up = Instant::now() + EFFECTS_LIMIT;
    for (agent, wanted) in &books.dead {
        loop {
            let found = clients.dead_letters(agent).await?;
            if found.len() == *wanted {
                break;
            }
            ensure!(Instant::now() < give_up, "dead letters for {agent}: {found:?}, wanted {wanted}");
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Waits until every agent has what it is to have. What it has too much, or in another order, never goes away.
async fn until_even(clients: &Clients, books: &Books) -> Result<()> {
    let give_up = Instant::now() + EFFECTS_LIMIT;
    for (agent, wanted) in &books.marks {
        loop {
            let found = clients.marks(agent).await?;
            let ids: BTreeSet<_> = found.message_ids.iter().collect();
            ensure!(ids.len() == found.marks.len(), "{agent} has a message twice: {found:?}");
            ensure!(
                wanted.starts_with(&texts(&found.marks)),
                "{agent} has {:?}, not {wanted:?}",
                found.marks
            );
            if found.marks.len() == wanted.len() {
                break;
            }
            ensure!(Instant::now() < give_up, "{agent} has {:?}, not {wanted:?}, in time", found.marks);
            tokio::time::sleep(PAUSE).await;
        }
    }
    until_dead(clients, books).await
}

fn texts(marks: &[String]) -> Vec<&str> {
    marks.iter().map(String::as_str).collect()
}
