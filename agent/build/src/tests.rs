use super::*;
use prost_reflect::DescriptorPool;
use std::fs;
use tempfile::TempDir;

const GOOD: &str = r#"
// Keeps a balance.
service Account {
  option (afdg.agent) = {};
  // Adds to it.
  rpc Deposit(DepositRequest) returns (Balance);
  rpc GetBalance(Named) returns (Balance) { option (afdg.read_only) = true; }
  rpc Ping(google.protobuf.Empty) returns (google.protobuf.Empty);
}
service Ordinary { rpc Watch(Balance) returns (stream Balance); }
message DepositRequest { string account = 3 [(afdg.key) = true]; int64 cents = 2; }
message Named { string type = 1 [(afdg.key) = true]; }
message Balance { int64 cents = 1; }
"#;

/// Compiles `body` as the package `test.v1` and returns the folder it was written to.
fn compiled(body: &str) -> Result<TempDir, Error> {
    compiled_file(&format!(
        "syntax = \"proto3\";\npackage test.v1;\nimport \"afdg/options.proto\";\n\
         import \"google/protobuf/empty.proto\";\n{body}"
    ))
}

fn compiled_file(text: &str) -> Result<TempDir, Error> {
    let folder = TempDir::new().unwrap();
    fs::create_dir_all(folder.path().join("test/v1")).unwrap();
    let proto = folder.path().join("test/v1/test.proto");
    fs::write(&proto, text).unwrap();
    Builder::new().out_dir(folder.path()).compile(&[proto], &[folder.path()])?;
    Ok(folder)
}

fn refusal(body: &str) -> String {
    compiled(body).expect_err("it was compiled").to_string()
}

fn service(rpc: &str, message: &str) -> String {
    format!(
        "service S {{ option (afdg.agent) = {{}}; rpc M{rpc}; }} message Q {{ {message} }} message R {{}}"
    )
}

#[test]
fn an_agent_gets_its_trait_its_registration_and_its_callers() {
    let folder = compiled(GOOD).unwrap();
    let rust = fs::read_to_string(folder.path().join("test.v1.rs")).unwrap();
    for part in [
        "pub trait AccountAgent: Send + Sync + 'static {",
        "/// Adds to it.",
        "async fn get_balance(",
        "pub fn account_agent(agent: impl AccountAgent) -> ::afdg_agent::AgentType {",
        "method(\"Deposit\", false, Some(3), \"test.v1.DepositRequest\", \"test.v1.Balance\")",
        "method(\"GetBalance\", true, Some(1), \"test.v1.Named\", \"test.v1.Balance\")",
        "method(\"Ping\", false, None, \"google.protobuf.Empty\", \"google.protobuf.Empty\")",
        "pub struct AccountCalls;",
        "&mut request.account",
        "&mut request.r#type",
    ] {
        let flat: String = rust.split_whitespace().collect::<Vec<_>>().join(" ");
        let squeeze = |text: &str| text.replace([' ', ',', '\n'], "");
        assert!(squeeze(&flat).contains(&squeeze(part)), "{part} is not in\n{rust}");
    }
    assert!(!rust.contains("Ordinary"), "a service that is no agent type was taken");
    assert!(!folder.path().join("afdg.rs").exists());
    assert!(!folder.path().join("google.protobuf.rs").exists());
}

#[test]
fn descriptors_keep_the_options_and_hold_all_imports() {
    let folder = compiled(GOOD).unwrap();
    let bytes = fs::read(folder.path().join("test.v1.descriptors.bin")).unwrap();
    let pool = DescriptorPool::decode(&bytes[..]).unwrap();
    let names: Vec<_> = pool.files().map(|file| file.name().to_owned()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    let agents = Agents::read(&pool, |_| false).unwrap();
    let methods = &agents.agent_type("test.v1.Account").unwrap().methods;
    assert!(methods["GetBalance"].read_only && !methods["Deposit"].read_only);
    assert_eq!(methods["Deposit"].key.as_ref().unwrap().number, 3);
    assert!(methods["Ping"].key.is_none());
    assert!(agents.agent_type("test.v1.Ordinary").is_none());
}

#[test]
fn a_type_may_let_its_call_chain_enter() {
    let with = |option: &str| {
        let body = format!(
            "service S {{ option (afdg.agent) = {{}}; {option} rpc M(Q) returns (Q); }} message Q {{}}"
        );
        fs::read_to_string(compiled(&body)?.path().join("test.v1.rs")).map_err(|_| Error::NoOutDir)
    };
    let let_in = with("option (afdg.reentrant) = CALL_CHAIN;").unwrap();
    assert!(let_in.contains("Reentrancy::CallChain"), "{let_in}");
    for option in ["", "option (afdg.reentrant) = REENTRANCY_UNSPECIFIED;"] {
        let not = with(option).unwrap();
        assert!(not.contains("Reentrancy::None") && !not.contains("CallChain"), "{not}");
    }
    let unknown = with("option (afdg.reentrant) = ALWAYS;").unwrap_err().to_string();
    assert!(unknown.contains("ALWAYS"), "{unknown}");
}

#[test]
fn wrong_keys_are_refused() {
    let unary = "(Q) returns (R)";
    assert_eq!(
        refusal(&service(unary, "int64 id = 1 [(afdg.key) = true];")),
        "test.v1.Q.id is marked (afdg.key) but is of type int64; an agent's key is a plain string field: \
         not optional, repeated or in a oneof"
    );
    for (field, kind) in [
        ("repeated string id = 1 [(afdg.key) = true];", "is a repeated string;"),
        ("optional string id = 1 [(afdg.key) = true];", "is an optional string or one in a oneof;"),
        ("oneof o { string id = 1 [(afdg.key) = true]; }", "is an optional string or one in a oneof;"),
        ("bytes id = 1 [(afdg.key) = true];", "is of type bytes;"),
        ("R id = 1 [(afdg.key) = true];", "is of type test.v1.R;"),
    ] {
        let refusal = refusal(&service(unary, field));
        assert!(refusal.contains(kind), "{field}: {refusal}");
    }
    assert_eq!(
        refusal(&service(unary, "string a = 1 [(afdg.key) = true]; string b = 2 [(afdg.key) = true];")),
        "test.v1.Q marks both 'a' and 'b' as (afdg.key); a request has one key"
    );
    compiled(&service(unary, "string a = 1 [(afdg.key) = true]; string b = 2 [(afdg.key) = false];"))
        .unwrap();
}

#[test]
fn streams_are_refused() {
    assert_eq!(
        refusal(&service("(stream Q) returns (R)", "")),
        "test.v1.S.M streams its requests; an agent's method takes one message and returns one"
    );
    let responses = refusal(&service("(Q) returns (stream R)", ""));
    assert!(responses.starts_with("test.v1.S.M streams its responses;"), "{responses}");
}

#[test]
fn errors_of_the_proto_itself_say_where() {
    let unknown = refusal(&service("(Missing) returns (R)", ""));
    assert!(unknown.contains("test/v1/test.proto:5:") && unknown.contains("Missing"), "{unknown}");
    let syntax = refusal("message {");
    assert!(syntax.contains("test/v1/test.proto:5:"), "{syntax}");
    let missing = Builder::new().out_dir("unused").compile(&["no-such.proto"], &["no-such-folder"]);
    assert!(missing.unwrap_err().to_string().contains("no-such.proto"));
    let no_package =
        "syntax = \"proto3\"; import \"afdg/options.proto\"; service S { option (afdg.agent) = {}; }";
    assert_eq!(
        compiled_file(no_package).unwrap_err().to_string(),
        "the service S is an agent type but stands in no package; add `package ...;` to test/v1/test.proto"
    );
}

#[test]
fn services_that_are_no_agents_are_left_alone() {
    let plain = "syntax = \"proto3\"; package plain; message E {} service S { rpc M(E) returns (stream E); }";
    let folder = compiled_file(plain).unwrap();
    let rust = fs::read_to_string(folder.path().join("plain.rs")).unwrap();
    assert!(rust.contains("struct E") && !rust.contains("Agent"));
    compiled_file("syntax = \"proto3\"; package empty; service S {}").unwrap();
}
