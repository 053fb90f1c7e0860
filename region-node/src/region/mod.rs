//! One region on this node: its replica, and the owner task that holds its control state.
//!
//! | file | a message's hop |
//! | --- | --- |
//! | `admission` | what comes in, and where its answer goes |
//! | `arrivals` | those that the owner has not looked at yet; types take turns |
//! | `owner` | the task: takes events, decides, never waits for one message |
//! | `begin` | the start of a leadership: what earlier leaders did not finish |
//! | `leading` | what the owner keeps while its replica leads |
//! | `load`, `mailbox_queue` | what is in flight, by agent type and by agent, and what may still come in |
//! | `pace` | how many messages of a type are taken on, so that none waits long for the region |
//! | `admit` | am I the leader, is the slot mine, is the id known, is there room |
//! | `run` | starts turns, takes in how they ended |
//! | `propose` | effects of many turns become one entry |
//! | `dispatch` | once committed: replies leave, turns may touch others |
//! | `sends` | messages that nobody waits for: into the inbox, tried again, given up |
//! | `held` | how many sends lie in the inbox and the outbox, by agent type |
//! | `due` | accepted sends whose time has come: into their agents' queues, as far as there is room |
//! | `lanes` | the sends of committed turns: out of the outbox, in order |
//! | `schedules` | messages that are sent at set times: which are due, and what they send |
//! | `reentry` | messages of a call chain enter while a turn of their agent waits for it |
//! | `rings` | agents that wait for one another are found and set free |
//! | `cancel` | what nobody waits for any more is cut short |
//! | `by_id` | messages of which only the id is known |
//! | `activity` | what agents are doing and wait for, for people |
//! | `measures` | how much a region has under way |
//! | `reads` | read-only turns beside the others, on committed state |

mod activity;
mod admission;
mod admit;
mod arrivals;
mod begin;
mod by_id;
mod cancel;
mod dispatch;
mod due;
mod held;
mod lanes;
mod leading;
mod load;
mod mailbox_queue;
mod measures;
mod owner;
mod pace;
mod propose;
mod reads;
mod reentry;
mod rings;
mod run;
mod schedules;
mod sends;
mod steps;
mod window;

pub use admission::{Admission, Outgoing, ReplyTo};
pub use by_id::of_other_method;
pub use measures::Measures;
pub use owner::{RecordTurn, RegionHandle, Surroundings, start};
