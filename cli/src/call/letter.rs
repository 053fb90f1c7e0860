//! Whether a message that has failed for good stands among the dead letters: its failure does not tell.

use crate::client::{CallFailure, Client, LetterKnown};
use afdg_proto::pb::admin::{DeadLetterFilter, ListDeadLettersRequest};
use afdg_types::{Reason, Retry, limits::LIST_DEAD_LETTERS_MAX};
use std::time::Duration;
use tokio::time::Instant;
use tonic::Request;

/// The failure is known already: what makes it clearer is not waited for any longer than this.
const SEARCH_TIME_MAX: Duration = Duration::from_secs(3);

/// Adds to a failure whether its message is a dead letter. Without an agent, all dead letters are looked through.
pub async fn look_for(client: &Client, agent: &str, message_id: &str, failure: &mut CallFailure) {
    // All else is about the request, or may pass.
    if failure.retry == Retry::Never && !failure.is_malformed() {
        let found = search(client, agent, message_id, Instant::now() + SEARCH_TIME_MAX).await;
        // One that no agent has got may lie with its sender. If not, it was never given up.
        // And one of another request under the same key says nothing of this one.
        let says_nothing = [Reason::NotFound, Reason::IdReused].map(Reason::as_str);
        let is_other = !failure.by_agent && says_nothing.contains(&&*failure.reason);
        failure.letter = Some(found).filter(|found| !is_other || *found != LetterKnown::IsNot);
    }
}

async fn search(client: &Client, agent: &str, message_id: &str, until: Instant) -> LetterKnown {
    let filter = DeadLetterFilter { agent: agent.to_owned(), ..DeadLetterFilter::default() };
    let mut page_token = String::new();
    loop {
        let mut request = Request::new(ListDeadLettersRequest {
            filter: Some(filter.clone()),
            page_token,
            page_size: LIST_DEAD_LETTERS_MAX,
            name: String::new(),
        });
        let left = until.saturating_duration_since(Instant::now());
        request.set_timeout(left);
        let Ok(Ok(page)) = tokio::time::timeout(left, client.dead_letters().list_dead_letters(request)).await
        else {
            return LetterKnown::NotAsked;
        };
        let page = page.into_inner();
        if let Some(letter) = page.letters.into_iter().find(|letter| letter.message_id == message_id) {
            return LetterKnown::Is(letter.name);
        }
        if page.next_page_token.is_empty() {
            return LetterKnown::IsNot;
        }
        page_token = page.next_page_token;
    }
}
