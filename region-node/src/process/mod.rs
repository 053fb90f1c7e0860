//! A region node as a process of its own. [`run`] is all that a program has to call that hosts its own
//! agents; [`resolve`] and [`serve`] are its parts, for programs with a command line of their own.

mod command_line;
mod run;
mod settings;

pub use run::{run, serve};
pub use settings::{File, resolve};
