//! An administrator sets bounds of an agent type, or gives it back its defaults.

use super::record_action::check_who_and_why;
use crate::{AuditRecord, CatalogState, Refusal, Reply};
use afdg_types::TypeLimit;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetTypeLimits {
    pub actor: String,
    pub reason: String,
    pub agent_type: String,
    /// What changes; none for the default. The others stay as they are.
    pub limits: BTreeMap<TypeLimit, Option<u64>>,
    pub at_ms: u64,
}

impl SetTypeLimits {
    pub(crate) fn apply(self, state: &mut CatalogState, index: u64) -> Result<Reply, Refusal> {
        state.formed()?;
        check_who_and_why(&self.actor, &self.reason)?;
        let name = self.agent_type;
        if !state.types.contains_key(&name) {
            let name = name.chars().take(80).collect::<String>().escape_debug().to_string();
            return Err(Refusal::UnknownType { name });
        }
        if self.limits.is_empty() {
            return Err(Refusal::Invalid { field: "limits", problem: "are missing".to_owned() });
        }
        let mut limits = state.limits.get(&name).cloned().unwrap_or_default();
        let mut changes = Vec::new();
        for (limit, value) in self.limits {
            match value {
                Some(value) => {
                    let wrong = |error| Refusal::Invalid {
                        field: "limits",
                        problem: format!("can't be so: {error}"),
                    };
                    limit.check(value).map_err(wrong)?;
                    limits.insert(limit, value);
                    changes.push(format!("{limit} = {value}"));
                }
                None => {
                    limits.remove(&limit);
                    changes.push(format!("{limit} = default"));
                }
            }
        }
        let action = format!("set limits of {name}: {}", changes.join(", "));
        match limits.is_empty() {
            true => state.limits.remove(&name),
            false => state.limits.insert(name, limits),
        };
        state.audit(AuditRecord { index, at_ms: self.at_ms, actor: self.actor, reason: self.reason, action });
        Ok(Reply::Recorded { index })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, command::assert_frozen};

    #[test]
    fn stored_bytes_never_change() {
        assert_frozen(
            Command::SetTypeLimits(SetTypeLimits {
                actor: "ann".to_owned(),
                reason: "why".to_owned(),
                agent_type: "a.B".to_owned(),
                limits: [(TypeLimit::TurnMs, Some(250)), (TypeLimit::MailboxMessages, None)].into(),
                at_ms: 1_700_000_000_000,
            }),
            "010603616e6e0377687903612e420200000601fa0180d095ffbc31",
        );
    }
}
