//! The first byte says which decoder takes the rest: libFuzzer finds by itself which are worth its time.
//!
//! ```text
//! cargo install cargo-fuzz
//! cd tests && RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir fuzz --sanitizer none decoders -- -max_total_time=60
//! ```

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static ALL: LazyLock<Vec<afdg_tests::decoders::Decoder>> = LazyLock::new(afdg_tests::decoders::all);

fuzz_target!(|data: &[u8]| {
    let Some((which, data)) = data.split_first() else { return };
    let (_, body, _) = ALL[usize::from(*which) % ALL.len()];
    body(data);
});
