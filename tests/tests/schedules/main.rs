//! Schedules through the whole grid: they ring once for each due time, whoever dies, and as they say where
//! due times were missed; they are listed and cancelled from elsewhere.

mod admin;
mod alarms;
mod at_once;
mod periods;
