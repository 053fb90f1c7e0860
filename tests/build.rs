fn main() -> Result<(), afdg_agent_build::Error> {
    afdg_agent_build::compile(
        &[
            "proto/register/v1/register.proto",
            "proto/mail/v1/mail.proto",
            "proto/alarm/v1/alarm.proto",
            "proto/relay/v1/relay.proto",
            "proto/visit/v1/visit.proto",
        ],
        &["proto"],
    )
}
