//! What holds of every state, stated as comparisons.

use crate::{
    CatalogState, NodeState,
    limits::{AUDIT_RECORDS_MAX, NODES_MAX, REGIONS_MAX, TYPES_BYTES_MAX, TYPES_MAX},
};
use afdg_types::SLOTS;
use std::collections::BTreeSet;

/// A state that must not be: a defect of this crate. The message holds every value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the catalog's state is broken: {0}")]
pub struct InvariantBroken(pub String);

macro_rules! hold {
    ($holds:expr, $($text:tt)*) => {
        if !$holds {
            return Err(InvariantBroken(format!($($text)*)));
        }
    };
}

impl CatalogState {
    /// Checks the state by itself.
    pub fn validate(&self) -> Result<(), InvariantBroken> {
        self.validate_nodes()?;
        self.validate_regions()?;
        self.validate_rest()
    }

    /// Checks the state as the follower of `before`.
    pub fn validate_after(&self, before: &CatalogState) -> Result<(), InvariantBroken> {
        self.validate()?;
        let (old, new) = (before.epoch, self.epoch);
        let same_types = self.types == before.types && self.limits == before.limits;
        let same = self.nodes == before.nodes && self.regions == before.regions && same_types;
        hold!(if same { new == old } else { new > old }, "epoch {old} -> {new}, same table: {same}");
        let types_epoch = (before.types_epoch, self.types_epoch);
        hold!(types_epoch.0 <= types_epoch.1, "types epoch {types_epoch:?}");
        let ids = (before.node_id_last, self.node_id_last);
        hold!(ids.0 <= ids.1, "last node id {ids:?}");
        hold!(before.cluster.is_none() || self.cluster.is_some(), "the cluster is gone");
        Ok(())
    }

    fn validate_nodes(&self) -> Result<(), InvariantBroken> {
        hold!(self.nodes.len() <= NODES_MAX, "{} nodes", self.nodes.len());
        let mut incarnations = BTreeSet::new();
        let mut names = BTreeSet::new();
        for (id, node) in &self.nodes {
            let last = self.node_id_last;
            hold!(id.0 >= 1 && id.0 <= last, "node {id} with the last id {last}");
            hold!(incarnations.insert(&node.incarnation), "node {id} has another's incarnation");
            match node.replaced_by {
                None => hold!(names.insert(&node.name), "node {id} has another's name '{}'", node.name),
                Some(by) => {
                    hold!(node.state == NodeState::Dead, "node {id} is replaced and {}", node.state);
                    hold!(self.nodes.contains_key(&by) && by != *id, "node {id} is replaced by {by}");
                }
            }
            for name in &node.types {
                hold!(self.types.contains_key(name), "node {id} hosts the unknown type '{name}'");
            }
        }
        Ok(())
    }

    fn validate_regions(&self) -> Result<(), InvariantBroken> {
        hold!(self.regions.len() <= usize::from(REGIONS_MAX), "{} regions", self.regions.len());
        let mut owners = vec![None; usize::from(SLOTS)];
        for (id, region) in &self.regions {
            hold!(id.0 >= 1, "region {id}");
            let distinct: BTreeSet<_> = region.replicas.iter().collect();
            let known = distinct.iter().all(|node| self.nodes.contains_key(node));
            let right = !distinct.is_empty() && distinct.len() == region.replicas.len() && known;
            hold!(right, "region {id} lies on {:?}", region.replicas);
            for range in &region.slots {
                let (first, last) = (range.first.0, range.last.0);
                hold!(first <= last && last < SLOTS, "region {id} has slots {first} to {last}");
                for slot in first..=last {
                    let owner = &mut owners[usize::from(slot)];
                    hold!(owner.is_none(), "slot {slot} is in region {owner:?} and in region {id}");
                    *owner = Some(*id);
                }
            }
        }
        let without = owners.iter().position(Option::is_none);
        hold!(self.regions.is_empty() || without.is_none(), "slot {without:?} is in no region");
        Ok(())
    }

    fn validate_rest(&self) -> Result<(), InvariantBroken> {
        let empty = self.nodes.is_empty() && self.regions.is_empty();
        hold!(self.cluster.is_some() || empty, "nodes or regions without a cluster");
        hold!(self.types_epoch <= self.epoch, "types epoch {} > epoch {}", self.types_epoch, self.epoch);
        let bytes: usize = self.types.values().map(|t| t.size_bytes()).sum();
        let count = self.types.len();
        hold!(count <= TYPES_MAX && bytes <= TYPES_BYTES_MAX, "{count} types of {bytes} bytes");
        hold!(self.types.iter().all(|(name, t)| *name == t.name), "a type stands under another name");
        for (name, limits) in &self.limits {
            hold!(self.types.contains_key(name), "limits of the unknown type '{name}'");
            let right = limits.iter().all(|(limit, value)| limit.check(*value).is_ok());
            hold!(right && !limits.is_empty(), "limits of '{name}': {limits:?}");
        }
        let indexes: Vec<u64> = self.audit.iter().map(|record| record.index).collect();
        hold!(indexes.len() <= AUDIT_RECORDS_MAX, "{} audit records", indexes.len());
        hold!(indexes.is_sorted_by(|a, b| a < b), "audit records out of order: {indexes:?}");
        Ok(())
    }
}
