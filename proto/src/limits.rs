//! Limits of agent types as operators see them.

use crate::pb::admin;
use afdg_types::{TypeLimit, TypeLimits};

/// All limits that there are, as they hold.
pub fn type_limits(limits: &TypeLimits) -> Vec<admin::TypeLimit> {
    let shown = TypeLimit::ALL.into_iter().map(|limit| {
        let facts = limit.facts();
        admin::TypeLimit {
            name: facts.name.to_owned(),
            value: limits.get(limit),
            default: facts.default,
            min: facts.min,
            max: facts.max,
            meaning: facts.meaning.to_owned(),
            set: limits.is_set(limit),
        }
    });
    shown.collect()
}
