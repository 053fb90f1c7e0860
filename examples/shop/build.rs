fn main() -> Result<(), afdg_agent_build::Error> {
    afdg_agent_build::compile(&["proto/shop/v1/shop.proto"], &["proto"])
}
