fn main() -> Result<(), afdg_agent_build::Error> {
    afdg_agent_build::compile(&["proto/counter/v1/counter.proto"], &["proto"])
}
