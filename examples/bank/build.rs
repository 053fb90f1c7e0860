fn main() -> Result<(), afdg_agent_build::Error> {
    afdg_agent_build::compile(&["proto/bank/v1/bank.proto"], &["proto"])
}
