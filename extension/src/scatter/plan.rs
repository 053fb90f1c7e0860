//! What a client asks for, checked once.

use super::progress::Progress;
use crate::{
    caller::deadline_of,
    config::{SCATTER_PARALLEL_DEFAULT, SCATTER_PARALLEL_MAX, SCATTER_REGIONS_MAX},
    headers, key_field,
    region_questions::bounded,
};
use afdg_proto::pb::{internal::ScatterStart, v1::ScatterRequest};
use afdg_router::{Router, too_large, unknown_method};
use afdg_types::{
    AgentRef, CallError, GridError, Reason, RegionId, Slot,
    limits::{AGENT_KEY_BYTES_MAX, MESSAGE_BYTES_MAX, SCATTER_REGION_PARALLEL_MAX},
};
use std::collections::BTreeSet;
use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

/// What the agent's key adds to a request besides itself.
const KEY_FIELD_BYTES_MAX: usize = 16;

pub(super) struct Plan {
    /// For every region, whose own parts are left out.
    pub(super) start: ScatterStart,
    pub(super) progress: Progress,
    pub(super) deadline: Instant,
    /// Regions that are asked at the same time.
    pub(super) regions_max: usize,
    pub(super) read_only: bool,
}

impl Plan {
    pub(super) async fn new(
        router: &Router,
        request: ScatterRequest,
        transport_deadline: Option<Instant>,
    ) -> Result<Self, CallError> {
        let deadline = deadline_of(request.timeout_ms, transport_deadline);
        let parallel =
            bounded("parallel_max", request.parallel_max, SCATTER_PARALLEL_DEFAULT, SCATTER_PARALLEL_MAX)?;
        check_prefix(&request.key_prefix)?;
        if !request.idempotency_key.is_empty() {
            headers::check_idempotency_key(&request.idempotency_key)?;
        }
        let info = router.agent_type(&request.r#type, deadline).await?;
        let method = info.methods.get(&request.method);
        let method = method.ok_or_else(|| unknown_method(&info, &request.method))?;
        let bytes = request.request.len();
        if bytes + AGENT_KEY_BYTES_MAX + KEY_FIELD_BYTES_MAX > MESSAGE_BYTES_MAX {
            return Err(too_large(bytes).into());
        }
        if let Some(number) = method.key_field
            && key_field::find(&request.request, number)?.is_some()
        {
            let text =
                "the request holds the key of one agent; leave that field empty, it is filled in for each";
            return Err(GridError::new(Reason::RequestMalformed, text).with("field", "request").into());
        }
        let regions = regions_of(router, &request)?;
        let digest = digest(&request);
        let progress = match &*request.resume_token {
            [] => {
                let key = Some(request.idempotency_key).filter(|key| !key.is_empty());
                // Whoever names no key has one all the same, by which a resumed stream repeats nothing.
                let key = key.unwrap_or_else(|| format!("scatter-{}", router.new_message_id()));
                Progress::new(digest, key, regions)
            }
            token => Progress::resume(token, digest, &request.idempotency_key, regions)?,
        };
        let regions_max = SCATTER_REGIONS_MAX.min(parallel as usize).min(progress.regions_left()).max(1);
        let in_region = (parallel as usize / regions_max).clamp(1, SCATTER_REGION_PARALLEL_MAX);
        let start = ScatterStart {
            region: 0,
            r#type: request.r#type,
            key_prefix: request.key_prefix,
            method: request.method,
            request: request.request,
            key_field: method.key_field.unwrap_or(0),
            idempotency_key: progress.idempotency_key().to_owned(),
            timeout_ms: 0,
            parallel_max: in_region as u32,
            after: String::new(),
            send: request.send,
        };
        Ok(Self { start, progress, deadline, regions_max, read_only: method.read_only })
    }
}

fn check_prefix(prefix: &str) -> Result<(), GridError> {
    let wrong = |text: String| Err(GridError::new(Reason::InvalidRequest, text).with("field", "key_prefix"));
    if prefix.len() > AGENT_KEY_BYTES_MAX {
        return wrong(format!("no key begins so: a key has at most {AGENT_KEY_BYTES_MAX} bytes"));
    }
    match prefix.chars().find(|c| c.is_control()) {
        Some(control) => {
            let code = u32::from(control);
            wrong(format!("no key begins so: keys hold no control characters, and this one U+{code:04X}"))
        }
        None => Ok(()),
    }
}

/// Those in which the agents may be.
fn regions_of(router: &Router, request: &ScatterRequest) -> Result<BTreeSet<RegionId>, GridError> {
    if Slot::of_prefix(&request.r#type, &request.key_prefix).is_none() {
        return Ok(router.routes().regions.keys().copied().collect());
    }
    // All keys with the prefix are in the slot of the prefix itself.
    let agent = AgentRef::new(&request.r#type, &request.key_prefix);
    let agent = agent.map_err(|error| key_field::refusal(&error))?;
    let region = router.region_of(&agent);
    let region =
        region.ok_or_else(|| GridError::new(Reason::NoLeader, "the prefix's slot is in no region yet"))?;
    Ok([region].into())
}

/// Tells requests apart with which a token must not be mixed up.
fn digest(request: &ScatterRequest) -> u64 {
    let mut hasher = Xxh3::new();
    let parts = [request.r#type.as_bytes(), request.key_prefix.as_bytes(), request.method.as_bytes()];
    for part in parts.into_iter().chain([&*request.request]) {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.update(&[u8::from(request.send)]);
    hasher.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_of_all_that_decides_who_gets_what() {
        let request = ScatterRequest {
            r#type: "a.B".to_owned(),
            key_prefix: "k".to_owned(),
            method: "M".to_owned(),
            request: "r".into(),
            ..ScatterRequest::default()
        };
        let others = [
            ScatterRequest { r#type: "a.Bk".to_owned(), key_prefix: String::new(), ..request.clone() },
            ScatterRequest { method: "Mr".to_owned(), request: "".into(), ..request.clone() },
            ScatterRequest { request: "s".into(), ..request.clone() },
            ScatterRequest { send: true, ..request.clone() },
        ];
        let same = ScatterRequest { timeout_ms: 5, parallel_max: 7, ..request.clone() };
        assert_eq!(digest(&same), digest(&request));
        // Tokens outlive a server, and are read by others.
        assert_eq!(digest(&request), 9_669_573_898_356_985_503);
        assert!(others.iter().all(|other| digest(other) != digest(&request)));
    }

    #[test]
    fn a_prefix_with_which_no_key_begins_is_refused() {
        assert!(check_prefix("").is_ok() && check_prefix("de-*").is_ok());
        for prefix in ["a\nb".to_owned(), "x".repeat(AGENT_KEY_BYTES_MAX + 1)] {
            assert_eq!(check_prefix(&prefix).unwrap_err().reason, Reason::InvalidRequest);
        }
    }
}
