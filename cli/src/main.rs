//! The command `afdg`: grid servers, a development grid, calls, admin, demo and bench.

mod admin;
mod arguments;
mod bench;
mod call;
mod cli;
mod client;
mod demo;
mod dev;
mod environment;
mod failure;
mod output;
mod random;
mod server;

/// Turns and entries are many small allocations that one thread makes and another frees.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
