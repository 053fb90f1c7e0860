fn main() -> Result<(), afdg_agent_build::Error> {
    afdg_agent_build::compile(&["proto/register/v1/register.proto"], &["proto"])
}
