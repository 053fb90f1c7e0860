//! `afdg schedule`: what agents are sent at set times.

use super::{answer, check_names, grouped, utc};
use crate::{
    arguments::{EndpointArgs, Format, OutputArgs},
    client::{CallFailure, Client},
    environment,
    failure::{Usage, tell, usage},
    output::{Output, Table},
};
use afdg_proto::pb::admin::{
    Calendar, CancelSchedulesRequest, ListSchedulesRequest, Schedule, ScheduleFilter, ScheduleName,
    schedule::Timing,
};
use afdg_runtime::process;
use afdg_types::{AgentRef, limits::LIST_SCHEDULES_MAX};
use clap::{ArgGroup, Args, Subcommand};
use serde_json::{Value, json};

#[derive(Args, Debug)]
pub struct ScheduleArgs {
    #[command(subcommand)]
    command: ScheduleCommand,
}

#[derive(Subcommand, Debug)]
enum ScheduleCommand {
    /// Schedules of all agents, region by region
    #[command(after_help = "Examples:
  afdg schedule list --type bank.v1.Account
  afdg schedule list --agent bank.v1.Account/alice
  afdg schedule list --name-prefix rent -o json

With -o json, each schedule is one JSON object on a line.")]
    List {
        /// Show at most so many; 0 shows all
        #[arg(long, default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        filter: FilterArgs,
        #[command(flatten)]
        endpoint: EndpointArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Cancel schedules; what they have sent goes its way
    #[command(after_help = "Examples:
  afdg schedule cancel bank.v1.Account/alice rent --reason 'she moved out'
  afdg schedule cancel --type bank.v1.Account --name-prefix rent --dry-run
  afdg schedule cancel --agent bank.v1.Account/alice --reason 'her account is closed'

An agent may set a schedule again at its next turn.")]
    Cancel(CancelArgs),
}

#[derive(Args, Debug)]
struct FilterArgs {
    /// Only schedules of this agent, TYPE/KEY
    #[arg(long, default_value = "", hide_default_value = true)]
    agent: String,
    /// Only schedules of agents of this type
    #[arg(long = "type", value_name = "TYPE", default_value = "", hide_default_value = true)]
    agent_type: String,
    /// Only schedules whose name begins so
    #[arg(long, default_value = "", hide_default_value = true)]
    name_prefix: String,
}

impl FilterArgs {
    fn is_empty(&self) -> bool {
        [&self.agent, &self.agent_type, &self.name_prefix].iter().all(|part| part.is_empty())
    }

    fn filter(&self) -> anyhow::Result<ScheduleFilter> {
        if !self.agent.is_empty() {
            self.agent.parse::<AgentRef>().map_err(|error| Usage(format!("--agent: {error}")))?;
        }
        Ok(ScheduleFilter {
            agent: self.agent.clone(),
            r#type: self.agent_type.clone(),
            name_prefix: self.name_prefix.clone(),
        })
    }
}

#[derive(Args, Debug)]
#[command(group(
    ArgGroup::new("which").args(["of", "agent", "agent_type", "name_prefix", "all"]).required(true).multiple(true)
))]
struct CancelArgs {
    /// The agent that has set it, TYPE/KEY
    #[arg(requires = "name", conflicts_with_all = ["agent", "agent_type", "name_prefix", "all"])]
    of: Option<String>,
    /// Its name
    name: Option<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// All there are
    #[arg(long, conflicts_with_all = ["agent", "agent_type", "name_prefix"])]
    all: bool,
    /// Only show which it would be
    #[arg(long)]
    dry_run: bool,
    /// Why, for the audit log; needed unless it is a dry run
    #[arg(long, required_unless_present = "dry_run", default_value = "", hide_default_value = true)]
    reason: String,
    /// Who, for the audit log [default: the user's name, or uid-N]
    #[arg(long, env = environment::ACTOR)]
    actor: Option<String>,
    #[command(flatten)]
    endpoint: EndpointArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn run(args: ScheduleArgs, output: &mut Output) -> anyhow::Result<u8> {
    match args.command {
        ScheduleCommand::List { limit, filter, endpoint, output: OutputArgs { output: format } } => {
            let filter = filter.filter()?;
            let client = Client::connect(&endpoint).await?;
            list(&client, filter, limit, format, output).await
        }
        ScheduleCommand::Cancel(args) => cancel(args, output).await,
    }
}

/// Schedules that fit, until there are more than `limit` or no more.
async fn fetch(client: &Client, filter: ScheduleFilter, limit: usize) -> anyhow::Result<Vec<Schedule>> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request =
            ListSchedulesRequest { filter: Some(filter.clone()), page_token, page_size: LIST_SCHEDULES_MAX };
        let page = answer(client.schedules().list_schedules(request).await, client, "the schedules")?;
        found.extend(page.schedules);
        if found.len() > limit || page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    if found.is_empty() {
        check_names(client, &filter.agent, &filter.r#type, "").await?;
    }
    Ok(found)
}

async fn list(
    client: &Client,
    filter: ScheduleFilter,
    limit: usize,
    format: Format,
    output: &mut Output,
) -> anyhow::Result<u8> {
    let limit = if limit == 0 { usize::MAX } else { limit };
    let mut found = fetch(client, filter, limit).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    print(&found, format, output)?;
    if more {
        tell(format_args!("the first {} are shown; --limit 0 shows all", grouped(found.len() as u64)));
    }
    Ok(process::EXIT_OK)
}

fn print(schedules: &[Schedule], format: Format, output: &mut Output) -> anyhow::Result<()> {
    if format == Format::Json {
        return schedules.iter().try_for_each(|schedule| Ok(output.json_line(&as_json(schedule))?));
    }
    if schedules.is_empty() {
        output.line("there are none")?;
        return Ok(());
    }
    let mut table = Table::new(&["AGENT", "NAME", "WHEN", "NEXT", "MISSED", "TO", "METHOD", "#SENT"]);
    for schedule in schedules {
        table.row([
            schedule.agent.clone(),
            schedule.name.clone(),
            when(schedule),
            utc(schedule.next_due_ms),
            schedule.missed.clone(),
            if schedule.to == schedule.agent { "itself".to_owned() } else { schedule.to.clone() },
            schedule.method.clone(),
            grouped(schedule.fired),
        ]);
    }
    output.table(&table)?;
    Ok(())
}

fn when(schedule: &Schedule) -> String {
    let mut text = match &schedule.timing {
        Some(Timing::PeriodMs(period_ms)) => format!("every {}", period(*period_ms)),
        Some(Timing::Calendar(Calendar { cron, zone })) => format!("{cron} {zone}"),
        None => "unknown".to_owned(),
    };
    if schedule.until_ms > 0 {
        text += &format!(" until {}", utc(schedule.until_ms));
    }
    text
}

/// The largest unit of which it is a whole number.
fn period(period_ms: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let unit = UNITS.iter().find(|(ms, _)| period_ms.is_multiple_of(*ms));
    unit.map_or_else(|| format!("{period_ms}ms"), |(ms, unit)| format!("{}{unit}", period_ms / ms))
}

fn as_json(schedule: &Schedule) -> Value {
    let (period_ms, calendar) = match &schedule.timing {
        Some(Timing::PeriodMs(period_ms)) => (Some(period_ms), None),
        Some(Timing::Calendar(calendar)) => (None, Some(calendar)),
        None => (None, None),
    };
    let some = |ms: u64| (ms != 0).then_some(ms);
    json!({
        "agent": schedule.agent, "name": schedule.name, "to": schedule.to, "method": schedule.method,
        "period_ms": period_ms, "cron": calendar.map(|calendar| &calendar.cron),
        "zone": calendar.map(|calendar| &calendar.zone), "start_ms": some(schedule.start_ms),
        "until_ms": some(schedule.until_ms), "missed": schedule.missed,
        "next_due_ms": schedule.next_due_ms, "sent": schedule.fired, "set_ms": schedule.set_ms,
    })
}

/// Few enough that one request ends within its time.
const CANCELLED_AT_ONCE: usize = 100;

async fn cancel(args: CancelArgs, output: &mut Output) -> anyhow::Result<u8> {
    if args.of.is_none() && args.filter.is_empty() && !args.all {
        return usage("say which: OF and NAME, or --agent, --type or --name-prefix, or --all");
    }
    let mut filter = args.filter.filter()?;
    if let (Some(agent), Some(name)) = (&args.of, &args.name) {
        agent.parse::<AgentRef>().map_err(|error| Usage(error.to_string()))?;
        (filter.agent, filter.name_prefix) = (agent.clone(), name.clone());
    }
    if !args.dry_run && args.reason.trim().is_empty() {
        return usage("--reason is empty; say in a few words why, for the audit log");
    }
    let client = Client::connect(&args.endpoint).await?;
    let mut found = fetch(&client, filter.clone(), usize::MAX).await?;
    if let (Some(agent), Some(name)) = (&args.of, &args.name) {
        found.retain(|schedule| schedule.name == *name);
        if found.is_empty() {
            let name = name.escape_debug();
            return usage(format!("{agent} has no schedule '{name}'; see 'afdg schedule list'"));
        }
    }
    if args.dry_run {
        print(&found, args.output.output, output)?;
        tell(format_args!("{} would be cancelled", grouped(found.len() as u64)));
        return Ok(process::EXIT_OK);
    }
    let actor = crate::arguments::actor(args.actor);
    let mut cancelled = 0;
    for part in found.chunks(CANCELLED_AT_ONCE) {
        let name =
            |schedule: &Schedule| ScheduleName { agent: schedule.agent.clone(), name: schedule.name.clone() };
        let schedules = part.iter().map(name).collect();
        let (actor, reason) = (actor.clone(), args.reason.clone());
        let filter = args.of.is_none().then(|| filter.clone());
        let request = CancelSchedulesRequest { schedules, actor, reason, filter };
        let done = client.schedules().cancel_schedules(request).await;
        let done = done.map_err(|status| CallFailure::of_status(&status));
        cancelled += u64::from(super::outcome(done, &client, "to cancel schedules")?.cancelled);
    }
    match args.output.output {
        Format::Json => output.json(&json!({"cancelled": cancelled}))?,
        Format::Table => output.line(format_args!("{} cancelled", grouped(cancelled)))?,
    }
    Ok(process::EXIT_OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(timing: Timing) -> Schedule {
        Schedule {
            agent: "bank.v1.Account/alice".to_owned(),
            name: "rent".to_owned(),
            to: "bank.v1.Account/alice".to_owned(),
            method: "Pay".to_owned(),
            timing: Some(timing),
            missed: "once".to_owned(),
            next_due_ms: 951_827_696_000,
            ..Schedule::default()
        }
    }

    #[test]
    fn a_period_is_told_in_the_unit_that_suits_it() {
        let told = [250, 1_000, 90_000, 3_600_000, 172_800_000].map(period);
        assert_eq!(told, ["250ms", "1s", "90s", "1h", "2d"]);
    }

    #[test]
    fn a_calendar_is_told_with_its_zone() {
        let calendar = Calendar { cron: "0 9 1 * *".to_owned(), zone: "Europe/Berlin".to_owned() };
        let rent = Schedule { until_ms: 951_827_696_000, ..schedule(Timing::Calendar(calendar)) };
        assert_eq!(when(&rent), "0 9 1 * * Europe/Berlin until 2000-02-29T12:34:56Z");
        let shown = as_json(&rent);
        assert_eq!((&shown["zone"], &shown["period_ms"]), (&json!("Europe/Berlin"), &Value::Null));
        assert_eq!(as_json(&schedule(Timing::PeriodMs(5)))["period_ms"], 5);
    }
}
