//! No bytes bring a server down, whoever sends or stores them: every decoder takes bytes by chance, and
//! right ones that were changed, cut off or made longer. `tests/fuzz` goes on with the same bodies.

use afdg_tests::decoders::all;
use proptest::{prelude::*, sample::Index, test_runner::TestRunner};

/// Right bytes, then changed at some places, cut off, or made longer.
fn mutated(right: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<Index>(), any::<u8>()), 0..4);
    let end = prop::collection::vec(any::<u8>(), 0..4);
    (any::<Index>(), changes, any::<Option<Index>>(), end).prop_map(move |(which, changes, cut, end)| {
        let mut bytes = which.get(&right).clone();
        for (place, byte) in changes {
            if !bytes.is_empty() {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        bytes.extend(end);
        bytes
    })
}

#[test]
fn no_bytes_bring_a_decoder_down() {
    for (name, body, right) in all() {
        let right = right();
        // What the bodies want of right bytes holds of them as they are.
        right.iter().for_each(|bytes| body(bytes));
        let by_chance = prop::collection::vec(any::<u8>(), 0..200);
        // Most formats begin with a version.
        let versioned = (0..4_u8, by_chance.clone()).prop_map(|(version, mut bytes)| {
            bytes.insert(0, version);
            bytes
        });
        let bytes = if right.is_empty() {
            prop_oneof![by_chance, versioned].boxed()
        } else {
            prop_oneof![1 => by_chance, 1 => versioned, 4 => mutated(right)].boxed()
        };
        let config = ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() };
        let mut runner = TestRunner::new(config);
        let result = runner.run(&bytes, |bytes| {
            body(&bytes);
            Ok(())
        });
        assert!(result.is_ok(), "{name}: {}", result.unwrap_err());
    }
}
