//! Turns an agent's `.proto` into Rust at build time: messages, the trait to implement, callers.
//!
//! In an agent crate's `build.rs`:
//!
//! ```no_run
//! fn main() -> Result<(), afdg_agent_build::Error> {
//!     afdg_agent_build::compile(&["proto/bank/v1/bank.proto"], &["proto"])
//! }
//! ```
//!
//! and in its `lib.rs` `afdg_agent::include_agent!("bank.v1");`. No `protoc` is needed, nor a copy of
//! `afdg/options.proto`: it is part of this crate. The agent crate depends on `afdg-agent` only.
//!
//! For `service Account` with `option (afdg.agent) = {}` the package's file holds, beside the messages:
//!
//! | item | what it is for |
//! | --- | --- |
//! | `trait AccountAgent` | one async method per rpc; the author implements it |
//! | `fn account_agent(impl AccountAgent) -> AgentType` | what a host runs: `NativeHost::new().with(..)` |
//! | `struct AccountCalls` | one function per rpc that makes a `Call` for `ctx.call` |
//!
//! A service without the option is left alone. The descriptors that a host shows to the catalog lie
//! beside it as `<package>.descriptors.bin`, with the options in them.

mod agents;
mod generate;

use agents::Agents;
use generate::AgentGenerator;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver};
use std::{
    fmt,
    path::{Path, PathBuf},
};

const OPTIONS_PROTO: &str = include_str!("../../../proto/afdg/options.proto");
const OPTIONS_PROTO_NAME: &str = "afdg/options.proto";

/// Compiles `protos`, found under `includes`, and what they import, into `OUT_DIR`.
pub fn compile(protos: &[impl AsRef<Path>], includes: &[impl AsRef<Path>]) -> Result<(), Error> {
    Builder::new().compile(protos, includes)
}

/// [`compile`] with settings.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    out_dir: Option<PathBuf>,
    extern_paths: Vec<(String, String)>,
}

impl Builder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Where to write, in place of `OUT_DIR`.
    pub fn out_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.out_dir = Some(folder.into());
        self
    }

    /// An imported package whose Rust lies elsewhere: `extern_package("bank.v1", "::bank_agent")`.
    pub fn extern_package(mut self, package: impl Into<String>, rust_path: impl Into<String>) -> Self {
        self.extern_paths.push((package.into(), rust_path.into()));
        self
    }

    pub fn compile(self, protos: &[impl AsRef<Path>], includes: &[impl AsRef<Path>]) -> Result<(), Error> {
        let out_dir = match self.out_dir.clone().or_else(|| std::env::var_os("OUT_DIR").map(Into::into)) {
            Some(folder) => folder,
            None => return Err(Error::NoOutDir),
        };
        let mut compiler = compiler(includes);
        compiler.include_imports(true).include_source_info(true);
        for proto in protos {
            compiler.open_file(proto).map_err(proto_error)?;
        }
        rerun_if_changed(&compiler);
        let agents = Agents::read(&compiler.descriptor_pool(), |package| self.is_extern(package))?;
        for (package, files) in agents.files() {
            let path = out_dir.join(descriptors_file(package));
            let bytes = descriptors(includes, files)?;
            std::fs::write(&path, bytes).map_err(|error| Error::Write { path, error })?;
        }
        let mut descriptors = compiler.file_descriptor_set();
        descriptors.file.retain(|file| !is_shipped(file.package()) && !self.is_extern(file.package()));
        let mut config = prost_build::Config::new();
        config
            .out_dir(&out_dir)
            .prost_path("::afdg_agent::prost")
            .prost_types_path("::afdg_agent::prost_types")
            .type_attribute(".", generate::ALLOW)
            .service_generator(Box::new(AgentGenerator::new(agents)));
        for (package, rust_path) in &self.extern_paths {
            config.extern_path(format!(".{package}"), rust_path);
        }
        config.compile_fds(descriptors).map_err(|error| Error::Write { path: out_dir, error })
    }

    fn is_extern(&self, package: &str) -> bool {
        self.extern_paths.iter().any(|(known, _)| known == package)
    }
}

/// Packages that come with this crate or with protobuf.
fn is_shipped(package: &str) -> bool {
    package == "afdg" || package == "google.protobuf"
}

fn descriptors_file(package: &str) -> String {
    format!("{package}.descriptors.bin")
}

/// A `FileDescriptorSet` of these files and all that they import. It goes through protox's own
/// encoding: `prost-types` knows no extensions and would drop the options.
fn descriptors<'a>(
    includes: &[impl AsRef<Path>],
    files: impl IntoIterator<Item = &'a String>,
) -> Result<Vec<u8>, Error> {
    let mut compiler = compiler(includes);
    compiler.include_imports(true);
    for file in files {
        compiler.open_file(file).map_err(proto_error)?;
    }
    Ok(compiler.encode_file_descriptor_set())
}

fn compiler(includes: &[impl AsRef<Path>]) -> protox::Compiler {
    let mut resolver = ChainFileResolver::new();
    // First, so that an old copy in an author's folder can't stand in for it.
    resolver.add(Shipped);
    for include in includes {
        resolver.add(IncludeFileResolver::new(include.as_ref().to_owned()));
    }
    resolver.add(GoogleFileResolver::new());
    protox::Compiler::with_file_resolver(resolver)
}

/// `afdg/options.proto`, as it was when this crate was built.
struct Shipped;

impl FileResolver for Shipped {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match name {
            OPTIONS_PROTO_NAME => File::from_source(name, OPTIONS_PROTO),
            _ => Err(protox::Error::file_not_found(name)),
        }
    }
}

#[allow(clippy::print_stdout, reason = "this is how a build script tells cargo")]
fn rerun_if_changed(compiler: &protox::Compiler) {
    for path in compiler.files().filter_map(|file| file.path()) {
        println!("cargo:rerun-if-changed={}", path.display());
    }
}

/// Why no Rust was made. Shown the same by `{}` and `{:?}`, since a build script prints the latter.
#[derive(thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Proto(String),
    #[error(
        "{field} is marked (afdg.key) but is {kind}; an agent's key is a plain string field: \
         not optional, repeated or in a oneof"
    )]
    KeyNotString { field: String, kind: String },
    #[error("{message} marks both '{first}' and '{second}' as (afdg.key); a request has one key")]
    KeyTwice { message: String, first: String, second: String },
    #[error("{service} sets {option} to {given}; at most {max} is possible")]
    OptionTooLarge { service: String, option: &'static str, given: u32, max: u32 },
    #[error("{service} sets (afdg.reentrant) to {given}, which this version does not know; take CALL_CHAIN")]
    UnknownReentrancy { service: String, given: i32 },
    #[error("{method} streams its {what}; an agent's method takes one message and returns one")]
    Streaming { method: String, what: &'static str },
    #[error("the service {service} is an agent type but stands in no package; add `package ...;` to {file}")]
    NoPackage { service: String, file: String },
    #[error("OUT_DIR is not set; call this from a build script, or set Builder::out_dir")]
    NoOutDir,
    #[error("{path} can't be written: {error}", path = path.display())]
    Write { path: PathBuf, error: std::io::Error },
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn proto_error(error: protox::Error) -> Error {
    // Its Debug holds the file, the line and the column, its Display does not.
    Error::Proto(format!("{error:?}"))
}

#[cfg(test)]
mod tests;
