//! Compiles the .proto files with protox, so that no `protoc` is needed.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "afdg/options.proto",
        "afdg/v1/grid.proto",
        "afdg/admin/v1/admin.proto",
        "afdg/internal/v1/region.proto",
        "afdg/internal/v1/peer.proto",
        "afdg/internal/v1/catalog.proto",
    ];
    for folder in ["afdg", "google"] {
        println!("cargo:rerun-if-changed={folder}");
    }
    let descriptors = protox::compile(files, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // Bytes for what clients and tools may see through reflection.
    let public = protox::compile(["afdg/v1/grid.proto"], ["."])?;
    std::fs::write(out.join("public.bin"), prost::Message::encode_to_vec(&public))?;

    tonic_prost_build::configure()
        .bytes(".afdg")
        .extern_path(".google.rpc", "::tonic_types::pb")
        .build_transport(true)
        .compile_fds(descriptors)?;
    Ok(())
}
