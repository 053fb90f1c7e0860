//! Bugs that the simulator plants, to show that it would find them, and a fault that it can't bring about
//! from outside.
//!
//! They exist only in a build with the feature `planted-bugs`, which the simulator's own workspace switches
//! on and nothing else may. In every other build [`planted`] and [`stragglers`] are false at compile time,
//! and what depends on them is left out.

macro_rules! bugs {
    ($($(#[doc = $doc:literal])* $bug:ident = $name:literal;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Bug {
            $($(#[doc = $doc])* $bug,)*
        }

        impl Bug {
            pub const ALL: &'static [Bug] = &[$(Bug::$bug),*];

            pub fn name(self) -> &'static str {
                match self { $(Bug::$bug => $name,)* }
            }

            /// What it is, in words.
            pub fn words(self) -> &'static str {
                match self { $(Bug::$bug => concat!($($doc),*),)* }
            }
        }
    };
}

bugs! {
    /// A write of the log is acknowledged before it is on disk.
    AcknowledgeBeforeFsync = "acknowledge-before-fsync";
    /// An entry is applied without a look at the term and the place that it was proposed for.
    ApplyWithoutFence = "apply-without-fence";
    /// A turn's reply is recorded, but not its effects, for one id in eight.
    ReplyWithoutEffects = "reply-without-effects";
    /// A snapshot lacks the replies.
    SnapshotWithoutReplies = "snapshot-without-replies";
    /// A read-only turn sees what is not committed.
    ReadUncommitted = "read-uncommitted";
    /// A reply leaves before its entry is committed.
    ReplyBeforeCommit = "reply-before-commit";
    /// A read is answered without a check that this replica still leads.
    ReadWithoutLease = "read-without-lease";
    /// A checkpoint is taken for durable before it is.
    CheckpointNotDurable = "checkpoint-not-durable";
    /// The log is purged past the last checkpoint.
    PurgePastCheckpoint = "purge-past-checkpoint";
    /// Recorded replies are not looked up: an id that is known is run again.
    RunKnownIdAgain = "run-known-id-again";
    /// The id of an agent's call depends on the time.
    CallIdFromTime = "call-id-from-time";
    /// A follower applies two commands in the wrong order.
    ApplyOutOfOrder = "apply-out-of-order";
    /// A vote is not written.
    VoteNotWritten = "vote-not-written";
    /// A turn's first call leaves before the turn is recorded.
    CallBeforeRecord = "call-before-record";
    /// A new leader does not run again what stands in the mailbox.
    RecordedTurnForgotten = "recorded-turn-forgotten";
    /// The router says that nothing happened when it does not know.
    UnknownToldAsNothing = "unknown-told-as-nothing";
    /// Conflicting entries are cut off in memory and not on disk.
    TruncateNotWritten = "truncate-not-written";
    /// A peer's rows take the place of lost ones though they end before the log begins.
    RebuildBehindLog = "rebuild-behind-log";
    /// A send is said to be accepted before its entry is committed.
    AcceptBeforeCommit = "accept-before-commit";
    /// A new leader does not look for accepted sends in the inbox.
    InboxForgotten = "inbox-forgotten";
    /// A new leader does not look for sends in the outbox.
    OutboxForgotten = "outbox-forgotten";
    /// A send is accepted though the one before it is not known.
    AcceptOutOfOrder = "accept-out-of-order";
    /// A send does not wait for the one before it, whose turn failed.
    FailedOvertaken = "failed-overtaken";
    /// A send stays in the inbox though its turn is committed.
    InboxNotLeft = "inbox-not-left";
    /// Nobody looks for agents that wait for one another in a ring.
    RingsLeft = "rings-left";
    /// A new leader does not look for the schedules.
    SchedulesForgotten = "schedules-forgotten";
    /// A schedule sends its message twice, under two ids.
    FiredAgain = "fired-again";
}

#[cfg(feature = "planted-bugs")]
static PLANTED: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(u8::MAX);

/// Plants one bug in this process.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Bug) {
    PLANTED.store(bug as u8, std::sync::atomic::Ordering::SeqCst);
}

/// Whether this bug is planted.
#[cfg(feature = "planted-bugs")]
pub fn planted(bug: Bug) -> bool {
    PLANTED.load(std::sync::atomic::Ordering::Relaxed) == bug as u8
}

/// Whether a proposal that failed comes once more, later, as one would that was held up on its way.
#[cfg(feature = "planted-bugs")]
pub const fn stragglers() -> bool {
    true
}

/// Whether a proposal that failed comes once more: never.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn stragglers() -> bool {
    false
}

/// Whether this bug is planted: never.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn planted(_: Bug) -> bool {
    false
}
