fn main() -> Result<(), afdg_agent_build::Error> {
    afdg_agent_build::compile(&["proto/order/v1/order.proto"], &["proto"])
}
