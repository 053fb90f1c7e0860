//! `afdg dead-letter`: messages that were given up.

use super::{answer, check_names, grouped, utc};
use crate::{
    arguments::{EndpointArgs, Format, OutputArgs},
    call::{Types, fetch_types},
    client::Client,
    environment,
    failure::{Usage, tell, usage},
    output::{Output, Table},
};
use afdg_proto::pb::admin::{
    DeadLetter, DeadLetterFilter, ListDeadLettersRequest, SettleDeadLettersRequest,
    settle_dead_letters_request::Action,
};
use afdg_runtime::process;
use afdg_types::{AgentRef, limits::LIST_DEAD_LETTERS_MAX};
use clap::{ArgGroup, Args, Subcommand};
use serde_json::{Value, json};

#[derive(Args, Debug)]
pub struct DeadLetterArgs {
    #[command(subcommand)]
    command: DeadLetterCommand,
}

#[derive(Subcommand, Debug)]
enum DeadLetterCommand {
    /// Dead letters, region by region
    #[command(after_help = "Examples:
  afdg dead-letter list --type bank.v1.Account
  afdg dead-letter list --reason HANDLER_PANICKED -o json

With -o json, each dead letter is one JSON object on a line.")]
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
    /// One dead letter, with its request as JSON
    #[command(after_help = "Example:\n  afdg dead-letter show 17@bank.v1.Account/alice")]
    Show {
        /// Its name, as 'list' prints it
        name: String,
        #[command(flatten)]
        endpoint: EndpointArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Have dead letters tried again, under the ids that they have
    #[command(after_help = "Examples:
  afdg dead-letter retry 17@bank.v1.Account/alice --because 'the bug is mended'
  afdg dead-letter retry --type bank.v1.Account --reason HANDLER_PANICKED --dry-run")]
    Retry(SettleArgs),
    /// Forget dead letters
    #[command(after_help = "Examples:
  afdg dead-letter drop 17@bank.v1.Account/alice --because 'a test message'
  afdg dead-letter drop --agent bank.v1.Account/alice --dry-run")]
    Drop(SettleArgs),
}

#[derive(Args, Debug)]
struct FilterArgs {
    /// Only messages to this agent, TYPE/KEY
    #[arg(long, default_value = "", hide_default_value = true)]
    agent: String,
    /// Only messages to agents of this type
    #[arg(long = "type", value_name = "TYPE", default_value = "", hide_default_value = true)]
    agent_type: String,
    /// Only messages of this method
    #[arg(long, default_value = "", hide_default_value = true)]
    method: String,
    /// Only those whose last error has this reason, such as HANDLER_PANICKED
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

impl FilterArgs {
    fn is_empty(&self) -> bool {
        [&self.agent, &self.agent_type, &self.method, &self.reason].iter().all(|part| part.is_empty())
    }

    fn filter(&self) -> anyhow::Result<DeadLetterFilter> {
        if !self.agent.is_empty() {
            self.agent.parse::<AgentRef>().map_err(|error| Usage(format!("--agent: {error}")))?;
        }
        Ok(DeadLetterFilter {
            agent: self.agent.clone(),
            r#type: self.agent_type.clone(),
            method: self.method.clone(),
            reason: self.reason.clone(),
        })
    }

    /// For a filter that fits nothing.
    async fn check_names(&self, client: &Client) -> anyhow::Result<()> {
        check_names(client, &self.agent, &self.agent_type, &self.method).await
    }
}

#[derive(Args, Debug)]
#[command(group(
    ArgGroup::new("which").args(["names", "agent", "agent_type", "method", "reason", "all"]).required(true).multiple(true)
))]
struct SettleArgs {
    /// Their names, as 'list' prints them
    names: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// All there are
    #[arg(long, conflicts_with_all = ["names", "agent", "agent_type", "method", "reason"])]
    all: bool,
    /// Only show which it would be
    #[arg(long)]
    dry_run: bool,
    /// Why, for the audit log; needed unless it is a dry run
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    because: Option<String>,
    /// Who, for the audit log [default: the user's name, or uid-N]
    #[arg(long, env = environment::ACTOR)]
    actor: Option<String>,
    #[command(flatten)]
    endpoint: EndpointArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn run(args: DeadLetterArgs, output: &mut Output) -> anyhow::Result<u8> {
    match args.command {
        DeadLetterCommand::List { limit, filter, endpoint, output: OutputArgs { output: format } } => {
            let client = Client::connect(&endpoint).await?;
            list(&client, &filter, limit, format, output).await
        }
        DeadLetterCommand::Show { name, endpoint, output: OutputArgs { output: format } } => {
            let client = Client::connect(&endpoint).await?;
            show(&client, &name, format, output).await
        }
        DeadLetterCommand::Retry(args) => settle(args, Action::Retry, output).await,
        DeadLetterCommand::Drop(args) => settle(args, Action::Drop, output).await,
    }
}

/// All dead letters that fit, a page at a time; `take` says whether to go on.
async fn each_page(
    client: &Client,
    filter: &DeadLetterFilter,
    mut take: impl FnMut(Vec<DeadLetter>) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let mut page_token = String::new();
    loop {
        let request = ListDeadLettersRequest {
            filter: Some(filter.clone()),
            page_token,
            page_size: LIST_DEAD_LETTERS_MAX,
            name: String::new(),
        };
        let page =
            answer(client.dead_letters().list_dead_letters(request).await, client, "the dead letters")?;
        if !take(page.letters)? || page.next_page_token.is_empty() {
            return Ok(());
        }
        page_token = page.next_page_token;
    }
}

async fn list(
    client: &Client,
    filter: &FilterArgs,
    limit: usize,
    format: Format,
    output: &mut Output,
) -> anyhow::Result<u8> {
    let limit = if limit == 0 { usize::MAX } else { limit };
    let mut letters = Vec::new();
    each_page(client, &filter.filter()?, |page| {
        letters.extend(page);
        Ok(letters.len() <= limit)
    })
    .await?;
    if letters.is_empty() {
        filter.check_names(client).await?;
    }
    let more = letters.len() > limit;
    letters.truncate(limit);
    print(&letters, format, output)?;
    if more {
        tell(format_args!("the first {} are shown; --limit 0 shows all", grouped(letters.len() as u64)));
    }
    Ok(process::EXIT_OK)
}

fn print(letters: &[DeadLetter], format: Format, output: &mut Output) -> anyhow::Result<()> {
    if format == Format::Json {
        letters.iter().try_for_each(|letter| output.json_line(&as_json(letter)))?;
        return Ok(());
    }
    if letters.is_empty() {
        output.line("there are none")?;
        return Ok(());
    }
    let mut table = Table::new(&["NAME", "TO", "METHOD", "#ATTEMPTS", "REASON", "ERROR"]);
    for letter in letters {
        table.row([
            letter.name.clone(),
            letter.agent.clone(),
            letter.method.clone(),
            letter.attempts.to_string(),
            letter.reason.clone(),
            shortened(&letter.error),
        ]);
    }
    output.table(&table)?;
    Ok(())
}

/// Longest error in a table; `show` has all of it.
const ERROR_CHARS_MAX: usize = 60;

fn shortened(error: &str) -> String {
    if error.chars().count() <= ERROR_CHARS_MAX {
        return error.to_owned();
    }
    error.chars().take(ERROR_CHARS_MAX - 1).chain(['…']).collect()
}

fn as_json(letter: &DeadLetter) -> Value {
    json!({
        "name": letter.name, "agent": letter.agent, "method": letter.method,
        "sender": (!letter.sender.is_empty()).then_some(&letter.sender),
        "message_id": letter.message_id, "attempts": letter.attempts, "sent_ms": letter.sent_ms,
        "died_ms": letter.died_ms, "reason": letter.reason, "error": letter.error,
        "undelivered": letter.undelivered,
    })
}

async fn show(client: &Client, name: &str, format: Format, output: &mut Output) -> anyhow::Result<u8> {
    if name.is_empty() {
        return usage("the name is empty; names are as listed, such as 17@bank.v1.Account/alice");
    }
    let request = ListDeadLettersRequest { name: name.to_owned(), ..ListDeadLettersRequest::default() };
    let found = client.dead_letters().list_dead_letters(request).await;
    let Some(letter) = answer(found, client, "the dead letter")?.letters.pop() else {
        check_names(client, name.split_once('@').map_or("", |(_, agent)| agent), "", "").await?;
        return usage(format!(
            "there is no dead letter '{}'; see 'afdg dead-letter list'",
            name.escape_debug()
        ));
    };
    let request = request_shown(&fetch_types(client).await?, &letter);
    match format {
        Format::Json => {
            let mut shown = as_json(&letter);
            shown["request"] = request.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
            output.json(&shown)?;
        }
        Format::Table => {
            let mut facts = Table::facts();
            facts.fact("name", &letter.name).fact("to", &letter.agent).fact("method", &letter.method);
            let sender = if letter.sender.is_empty() { "a client" } else { &letter.sender };
            facts.fact("from", sender).fact("message id", &letter.message_id);
            facts.fact("sent", utc(letter.sent_ms)).fact("given up", utc(letter.died_ms));
            let side = if letter.undelivered { "to deliver it" } else { "turns" };
            facts.fact("attempts", format!("{} {side}", letter.attempts));
            facts.fact("reason", &letter.reason).fact("error", &letter.error);
            output.table(&facts)?;
            let bytes = letter.request.len() as u64;
            output.line(request.unwrap_or_else(|| format!("the request has {} bytes", grouped(bytes))))?;
        }
    }
    Ok(process::EXIT_OK)
}

/// The request as JSON, if the grid still has the method that it is for.
fn request_shown(types: &Types, letter: &DeadLetter) -> Option<String> {
    let agent_type = letter.agent.split('/').next()?;
    types.method(agent_type, &letter.method).ok()?.decode_request(&letter.request).ok()
}

async fn settle(args: SettleArgs, action: Action, output: &mut Output) -> anyhow::Result<u8> {
    if args.names.is_empty() && args.filter.is_empty() && !args.all {
        return usage("say which: by name, by --agent, --type, --method or --reason, or --all");
    }
    if !args.names.is_empty() && !args.filter.is_empty() {
        return usage("say which by name or by a filter, not by both");
    }
    let because = args.because.unwrap_or_default();
    if !args.dry_run && because.trim().is_empty() {
        return usage("--because is empty; say in a few words why, for the audit log");
    }
    let filter = args.filter.filter()?;
    let client = Client::connect(&args.endpoint).await?;
    let mut letters = Vec::new();
    each_page(&client, &filter, |page| {
        let wanted = |letter: &DeadLetter| args.names.is_empty() || args.names.contains(&letter.name);
        letters.extend(page.into_iter().filter(wanted));
        Ok(true)
    })
    .await?;
    let missing: Vec<_> =
        args.names.iter().filter(|name| !letters.iter().any(|letter| letter.name == **name)).collect();
    if let Some(name) = missing.first() {
        let text = format!("there is no dead letter '{}'; nothing was done", name.escape_debug());
        return usage(text);
    }
    if letters.is_empty() {
        args.filter.check_names(&client).await?;
    }
    let verb = if action == Action::Retry { "tried again" } else { "dropped" };
    if args.dry_run {
        print(&letters, args.output.output, output)?;
        tell(format_args!("{} would be {verb}", grouped(letters.len() as u64)));
        return Ok(process::EXIT_OK);
    }
    let mut settled = 0;
    let actor = crate::arguments::actor(args.actor);
    for part in letters.chunks(SETTLED_AT_ONCE) {
        let names = part.iter().map(|letter| letter.name.clone()).collect();
        let request = SettleDeadLettersRequest {
            names,
            action: action.into(),
            actor: actor.clone(),
            reason: because.clone(),
            filter: args.names.is_empty().then(|| filter.clone()),
        };
        let done = client.dead_letters().settle_dead_letters(request).await;
        settled += answer(done, &client, "to settle dead letters")?.settled;
    }
    match args.output.output {
        Format::Json => output.json(&match action {
            Action::Retry => json!({"retried": settled}),
            _ => json!({"dropped": settled}),
        })?,
        Format::Table => output.line(format_args!("{} {verb}", grouped(u64::from(settled))))?,
    }
    Ok(process::EXIT_OK)
}

/// As many as one request takes: each has a line in the audit log.
const SETTLED_AT_ONCE: usize = LIST_DEAD_LETTERS_MAX as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_errors_are_cut_at_a_character() {
        assert_eq!(shortened("short"), "short");
        let long = "ü".repeat(ERROR_CHARS_MAX + 1);
        assert_eq!(shortened(&long).chars().count(), ERROR_CHARS_MAX);
        assert_eq!(shortened(&long[2..]), long[2..]);
    }
}
