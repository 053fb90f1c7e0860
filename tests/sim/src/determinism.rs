//! Chance and time of the C library, for what is not passed in: keys of hash maps, the generator of
//! openraft's timeouts, tokio's choice between branches that are ready, `std::time::Instant`.
//!
//! The linker takes these two functions instead of the C library's. A process simulates one seed, so both
//! are global. Before [`begin`] they ask the kernel, as the originals do.

#![allow(unsafe_code)]

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use rand::{RngCore, SeedableRng, rngs::StdRng};

static SIMULATING: AtomicBool = AtomicBool::new(false);
static NOW_NS: AtomicU64 = AtomicU64::new(0);
static CHANCE: Mutex<Option<StdRng>> = Mutex::new(None);

/// What the monotonic clock shows when a simulation begins: far enough from 0 to subtract from.
const EPOCH_NS: u64 = 1_000_000 * 1_000_000_000;

/// From here on this process takes chance from `seed`, and time from [`set_now`].
pub fn begin(seed: u64) {
    *CHANCE.lock().unwrap_or_else(PoisonError::into_inner) = Some(StdRng::seed_from_u64(seed));
    SIMULATING.store(true, Ordering::SeqCst);
}

/// Simulated time since the simulation began.
pub fn set_now(ns: u64) {
    NOW_NS.store(ns, Ordering::SeqCst);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, flags: u32) -> isize {
    if SIMULATING.load(Ordering::SeqCst) && !buffer.is_null() {
        // SAFETY: the caller owns `length` bytes from `buffer` on.
        let bytes = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
        let mut chance = CHANCE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(chance) = chance.as_mut() {
            chance.fill_bytes(bytes);
            return length as isize;
        }
    }
    // SAFETY: the kernel checks the pointer.
    unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as isize }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    if SIMULATING.load(Ordering::SeqCst) && !time.is_null() {
        let ns = EPOCH_NS + NOW_NS.load(Ordering::SeqCst);
        // SAFETY: the caller owns `time`.
        unsafe {
            (*time).tv_sec = (ns / 1_000_000_000) as libc::time_t;
            (*time).tv_nsec = (ns % 1_000_000_000) as libc::c_long;
        }
        return 0;
    }
    // SAFETY: the kernel checks the pointer.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as libc::c_int }
}
