//! Every bound of the grid, named, with its unit last. Past a bound the sender gets an error at once.

/// Longest agent type name, a protobuf full name such as `bank.v1.Account`.
pub const AGENT_TYPE_BYTES_MAX: usize = 255;
/// Longest agent key.
pub const AGENT_KEY_BYTES_MAX: usize = 512;
/// Longest method name.
pub const METHOD_BYTES_MAX: usize = 255;
/// Longest idempotency key that a caller may choose.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;
/// Largest request or response message of an agent.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest gRPC message between servers: a full frame of messages.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A sender starts another frame past this many bytes of messages.
pub const FRAME_BYTES_TARGET: usize = 1024 * 1024;
/// Largest item of an entity.
pub const ITEM_BYTES_MAX: usize = 1024 * 1024;
/// Longest entity key.
pub const ENTITY_KEY_BYTES_MAX: usize = 255;
/// Largest sum of rows that one turn may write.
pub const TURN_EFFECT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most agents that may wait for one another in one chain of calls.
pub const CALL_CHAIN_AGENTS_MAX: usize = 32;
/// Most calls and sends that one turn may make.
pub const TURN_CALLS_MAX: u32 = 10_000;
/// Most calls of one turn in flight at the same time.
pub const TURN_CALLS_PARALLEL_MAX: usize = 256;
/// Most calls in one `CallMany`.
pub const CALL_MANY_CALLS_MAX: usize = 1_000;
/// Messages that may wait for one agent's turn.
pub const AGENT_MAILBOX_MESSAGES_MAX: usize = 1_024;
/// Messages admitted by one region and not yet answered.
pub const REGION_IN_FLIGHT_MESSAGES_MAX: usize = 16_384;
/// Request bytes admitted by one region and not yet answered.
pub const REGION_IN_FLIGHT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Request bytes admitted by all regions of one node and not yet answered.
pub const NODE_IN_FLIGHT_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Messages that one extension has in flight.
pub const ROUTER_IN_FLIGHT_MESSAGES_MAX: usize = 65_536;
/// Request bytes that one extension has in flight.
pub const ROUTER_IN_FLIGHT_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Calls in flight on one `Pipe` stream.
pub const PIPE_IN_FLIGHT_CALLS_MAX: usize = 4_096;
/// Longest name of a region node.
pub const NODE_NAME_BYTES_MAX: usize = 128;
/// Deadline of a call whose caller named none.
pub const CALL_TIMEOUT_MS_DEFAULT: u64 = 30_000;
/// Longest deadline that a caller may ask for; a longer one is cut to this.
pub const CALL_TIMEOUT_MS_MAX: u64 = 10 * 60 * 1_000;
/// Longest run of one turn's handler, calls included, before it is failed. A recorded turn has none.
pub const TURN_MS_MAX: u64 = 60_000;
/// How long the id of a message is kept where the router made it.
pub const ROUTER_ID_KEPT_MS: u64 = 15 * 60 * 1_000;
/// How long an id is kept after a caller's idempotency key, or an agent's call, was last seen.
pub const LASTING_ID_KEPT_MS: u64 = 24 * 60 * 60 * 1_000;
/// A turn that has touched others and can't be finished is given up after this.
pub const RECORDED_TURN_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// How long a message may be held back.
pub const SEND_DELAY_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1_000;
/// Turns that an accepted send gets before it becomes a dead letter.
pub const SEND_ATTEMPTS_MAX: u32 = 16;
/// Pause before a send that failed is tried again, the first time; it doubles from then on.
pub const SEND_RETRY_MS_MIN: u64 = 50;
/// Longest pause before a send that failed is tried again.
pub const SEND_RETRY_MS_MAX: u64 = 60_000;
/// How long a committed turn's send is tried to be delivered before it becomes a dead letter.
pub const SEND_DELIVERY_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// Sends that one region has accepted and that wait for their turn, delayed ones included. One agent type may have
/// half of it, here and in the three that follow.
pub const REGION_INBOX_MESSAGES_MAX: usize = 262_144;
/// Request bytes of the sends that one region has accepted and that wait for their turn.
pub const REGION_INBOX_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Sends of one region's turns on their way to their receivers; past it the region takes no new messages
/// but those that only read, calls of agents that wait, and sends of agents.
pub const REGION_OUTBOX_MESSAGES_MAX: usize = 262_144;
/// Request bytes of those.
pub const REGION_OUTBOX_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Dead letters of one region. While it has as many, no more sends are given up: they are tried again, at the longest
/// pause. What is given up in the entries under way comes on top.
pub const REGION_DEAD_LETTERS_MAX: usize = 100_000;
/// Pairs of sender and receiver between which one region delivers sends at the same time.
pub const REGION_LANES_MAX: usize = 256;
/// Sends of one pair of sender and receiver that are on their way at the same time.
pub const LANE_IN_FLIGHT_MESSAGES_MAX: usize = 64;
/// Longest name of a schedule.
pub const SCHEDULE_NAME_BYTES_MAX: usize = 128;
/// Longest text of a schedule's calendar.
pub const SCHEDULE_CRON_BYTES_MAX: usize = 256;
/// Longest name of a schedule's time zone.
pub const SCHEDULE_ZONE_BYTES_MAX: usize = 64;
/// Largest request that a schedule sends.
pub const SCHEDULE_REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Shortest period of a schedule.
pub const SCHEDULE_PERIOD_MS_MIN: u64 = 100;
/// Longest period of a schedule, and how far ahead it may start.
pub const SCHEDULE_PERIOD_MS_MAX: u64 = 10 * 366 * 24 * 60 * 60 * 1_000;
/// How late a due time may fire whose schedule skips those that were missed.
pub const SCHEDULE_LATE_MS_MAX: u64 = 60 * 1_000;
/// Due times of one schedule that fire with one operation.
pub const SCHEDULE_FIRINGS_AT_ONCE_MAX: usize = 64;
/// Schedules that one agent has.
pub const AGENT_SCHEDULES_MAX: usize = 64;
/// Schedules that one turn sets and cancels.
pub const TURN_SCHEDULE_CHANGES_MAX: usize = 256;
/// Schedules of one region's agents.
pub const REGION_SCHEDULES_MAX: usize = 262_144;
/// Schedules returned by one page of a listing, and cancelled by one request.
pub const LIST_SCHEDULES_MAX: u32 = 1_000;
/// Items returned by one paged read through the admin interface.
pub const INSPECT_ITEMS_MAX: u32 = 1_000;
/// Agents returned by one page of a listing.
pub const LIST_AGENTS_MAX: u32 = 1_000;
/// Agents that wait for others returned by one listing.
pub const LIST_BLOCKED_AGENTS_MAX: u32 = 1_000;
/// Dead letters returned by one page of a listing, and settled by one request.
pub const LIST_DEAD_LETTERS_MAX: u32 = 1_000;
/// Turns in one replicated entry.
pub const ENTRY_TURNS_MAX: usize = 1_024;
/// Effect bytes past which a replicated entry takes no more turns.
pub const ENTRY_BYTES_TARGET: usize = 1024 * 1024;
/// Replicated entries of one region under way at the same time. How many operations they have together depends on
/// whether processors are short.
pub const REGION_ENTRIES_IN_FLIGHT_MAX: usize = 4;
/// How far ahead of the node's clock the time in a message id may be.
pub const CLOCK_SKEW_MS_MAX: u64 = 10_000;
/// Agents of one region that one scatter calls at the same time.
pub const SCATTER_REGION_PARALLEL_MAX: usize = 256;
/// How far a scatter gets ahead of the slowest agent of a region, in agents.
pub const SCATTER_WINDOW_AGENTS_MAX: usize = 1_024;
/// Outcomes in one page of a scatter.
pub const SCATTER_PAGE_OUTCOMES_MAX: usize = 256;
/// Bytes of responses past which a page of a scatter takes no more of them.
pub const SCATTER_PAGE_BYTES_TARGET: usize = 256 * 1024;
