//! Questions that operators ask of the nodes that lead regions.

use afdg_region_client::RegionClient;
use afdg_router::Router;
pub(crate) use afdg_router::ask_leader;
use afdg_types::{CallError, GridError, Reason, RegionId};
use bytes::Bytes;
use std::time::Duration;
use tokio::time::Instant;

/// Pages of a region that one listing looks through for what fits.
const PAGES_LOOKED_AT_MAX: u32 = 100;

/// A page of a listing that goes on from region to region, and the token of the next one; `ask` is told the
/// region, where its page begins and how much is wanted, and answers with what fits and where the next page
/// of the region begins, empty at its end.
pub(crate) async fn listing<T, F>(
    router: &Router,
    page_token: &str,
    wanted: u32,
    until: Instant,
    ask: impl Fn(RegionClient, Duration, RegionId, Bytes, u32) -> F,
) -> Result<(Vec<T>, String), CallError>
where
    F: Future<Output = Result<(Vec<T>, Bytes), CallError>>,
{
    let start = PageToken::parse(page_token)?;
    let routes = router.routes();
    let mut found = Vec::new();
    let (mut from, mut pages) = (start.after, 0);
    for region in routes.regions.range(start.region..).map(|(id, _)| *id) {
        if region != start.region {
            from.clear();
        }
        loop {
            let left = wanted.saturating_sub(found.len() as u32);
            if left == 0 || pages >= PAGES_LOOKED_AT_MAX {
                return Ok((found, PageToken { region, after: from }.to_string()));
            }
            let start = Bytes::from(from);
            let ask = |node, time| ask(node, time, region, start.clone(), left);
            let (_, (fitting, next)) = ask_leader(router, region, until, ask).await?;
            pages += 1;
            found.extend(fitting);
            from = next.to_vec();
            if from.is_empty() {
                break;
            }
        }
    }
    Ok((found, String::new()))
}

pub(crate) fn bounded(field: &str, given: u32, default: u32, max: u32) -> Result<u32, GridError> {
    match given {
        0 => Ok(default),
        given if given <= max => Ok(given),
        given => {
            let message = format!("{field} is at most {max}; got {given}");
            Err(GridError::new(Reason::InvalidRequest, message).with("field", field))
        }
    }
}

/// Where the next page begins: a region, and a place in it that its node gave. Opaque to clients.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PageToken {
    pub(crate) region: RegionId,
    pub(crate) after: Vec<u8>,
}

impl PageToken {
    pub(crate) fn parse(text: &str) -> Result<Self, GridError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let parse = || {
            let (region, after) = text.split_once('-')?;
            let digits: Option<Vec<u32>> = after.chars().map(|digit| digit.to_digit(16)).collect();
            let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
            let after = digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect();
            Some(Self { region: RegionId(region.parse().ok()?), after })
        };
        parse().ok_or_else(|| {
            let message = "page_token is none that this service has given out";
            GridError::new(Reason::InvalidRequest, message).with("field", "page_token")
        })
    }
}

impl std::fmt::Display for PageToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-", self.region)?;
        self.after.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_tokens_read_back_and_others_are_refused() {
        for token in [
            PageToken { region: RegionId(7), after: vec![0, 255, 16] },
            PageToken { region: RegionId(1), after: Vec::new() },
        ] {
            assert_eq!(PageToken::parse(&token.to_string()), Ok(token));
        }
        assert_eq!(PageToken::parse(""), Ok(PageToken::default()));
        for bad in ["x", "7", "7-0", "7-0g", "-", "-00", "7-ü0", "99999999999999999999-00"] {
            assert!(PageToken::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_a_default_and_a_bound() {
        assert_eq!(bounded("page_size", 0, 100, 1_000), Ok(100));
        assert_eq!(bounded("page_size", 1_000, 100, 1_000), Ok(1_000));
        assert!(bounded("page_size", 1_001, 100, 1_000).is_err());
    }
}
