//! What must hold of the catalog's entries, whatever their bytes: for property tests and fuzzers
//! (`tests/tests/decoders.rs`, `tests/fuzz`). Only with the feature `fuzzing`.

use crate::{CatalogMachine, Command};
use std::collections::BTreeMap;

/// A machine takes any bytes, and what it then holds is read from its rows as it is.
pub fn command(data: &[u8]) {
    if let Ok(command) = Command::decode(data) {
        let encoded = command.encode();
        let again = encoded.as_ref().ok().and_then(|bytes| Command::decode(bytes).ok());
        assert_eq!(again, Some(command));
    }
    let mut rows = BTreeMap::new();
    let mut machine = CatalogMachine::new();
    assert!(machine.apply(1, data, &mut rows).is_ok());
    let mut restored = CatalogMachine::new();
    assert!(restored.restore(&rows).is_ok());
    assert_eq!(machine.state(), restored.state());
}
