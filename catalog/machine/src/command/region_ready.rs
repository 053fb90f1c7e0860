//! A replica has reported that it leads a region that was being created: the group has formed.

use crate::{CatalogState, Refusal, RegionPhase, Reply};
use afdg_types::RegionId;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionReady {
    pub region: RegionId,
    pub at_ms: u64,
}

impl RegionReady {
    /// Saying it twice is as good as once.
    pub(crate) fn apply(self, state: &mut CatalogState) -> Result<Reply, Refusal> {
        let region = self.region;
        state.regions.get_mut(&region).ok_or(Refusal::UnknownRegion { region })?.phase = RegionPhase::Ready;
        Ok(Reply::RegionReady { region })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, command::assert_frozen};

    #[test]
    fn stored_bytes_never_change() {
        assert_frozen(
            Command::RegionReady(RegionReady { region: RegionId(300), at_ms: 1_700_000_000_000 }),
            "0104ac0280d095ffbc31",
        );
    }
}
