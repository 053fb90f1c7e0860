//! JSON to protobuf and back, by the descriptors that the catalog holds.

use crate::failure::{Usage, usage};
use afdg_proto::pb::admin::AgentType;
use anyhow::{Context, anyhow};
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor,
    MethodDescriptor, SerializeOptions, ServiceDescriptor, Value,
};
use serde_json::ser::Formatter;

/// Full names of the options in `afdg/options.proto`.
const KEY_OPTION: &str = "afdg.key";
const READ_ONLY_OPTION: &str = "afdg.read_only";
const REENTRANT_OPTION: &str = "afdg.reentrant";

/// The agent types that a grid knows.
pub struct Types(Vec<AgentType>);

impl Types {
    pub fn new(mut types: Vec<AgentType>) -> anyhow::Result<Self> {
        types.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self(types))
    }

    pub fn all(&self) -> &[AgentType] {
        &self.0
    }

    pub fn named(&self, name: &str) -> anyhow::Result<&AgentType> {
        if let Some(found) = self.0.iter().find(|known| known.name == name) {
            return Ok(found);
        }
        let known: Vec<_> = self.0.iter().map(|known| known.name.as_str()).collect();
        usage(format!("the grid has no agent type '{}'; it has: {}", name.escape_debug(), listed(&known)))
    }

    /// An error if no type has a method of that name.
    pub fn have_method(&self, method: &str) -> anyhow::Result<()> {
        if self.0.iter().any(|known| known.methods.iter().any(|known| known.name == method)) {
            return Ok(());
        }
        usage(format!(
            "no agent type of the grid has a method '{}'; 'afdg type list' shows them",
            method.escape_debug()
        ))
    }

    pub fn method(&self, agent_type: &str, method: &str) -> anyhow::Result<Method> {
        let service = self.service(agent_type)?;
        if let Some(found) = service.methods().find(|known| known.name() == method) {
            return Ok(Method { descriptor: found });
        }
        let known: Vec<_> = service.methods().map(|known| known.name().to_owned()).collect();
        let known: Vec<_> = known.iter().map(String::as_str).collect();
        usage(format!("{agent_type} has no method '{}'; it has: {}", method.escape_debug(), listed(&known)))
    }
}

/// What the type's option `(afdg.reentrant)` says, by the value's name; none if it is not set.
pub fn reentrancy(agent_type: &AgentType) -> anyhow::Result<Option<String>> {
    let service = service_of(agent_type)?;
    let Some(option) = service.parent_pool().get_extension_by_name(REENTRANT_OPTION) else { return Ok(None) };
    let number = service.options().get_extension(&option).as_enum_number().unwrap_or_default();
    let Kind::Enum(values) = option.kind() else { return Ok(None) };
    let name = values.get_value(number).map_or_else(|| number.to_string(), |value| value.name().to_owned());
    Ok((number != 0).then_some(name))
}

fn service_of(agent_type: &AgentType) -> anyhow::Result<ServiceDescriptor> {
    let name = &agent_type.name;
    // Each type has a pool of its own: two types may hold different versions of one file.
    let pool = DescriptorPool::decode(agent_type.descriptors.as_ref())
        .with_context(|| format!("the grid's descriptors of {name} can't be read"))?;
    pool.get_service_by_name(name)
        .ok_or_else(|| anyhow!("the grid's descriptors of {name} hold no such service"))
}

impl Types {
    fn service(&self, agent_type: &str) -> anyhow::Result<ServiceDescriptor> {
        service_of(self.named(agent_type)?)
    }
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// One method of an agent type.
#[derive(Debug)]
pub struct Method {
    descriptor: MethodDescriptor,
}

impl Method {
    pub fn name(&self) -> &str {
        self.descriptor.name()
    }

    pub fn read_only(&self) -> bool {
        let option = self.extension(READ_ONLY_OPTION);
        option.is_some_and(|option| flag(&self.descriptor.options(), &option))
    }

    /// The request as protobuf, with the agent's key filled in.
    pub fn encode(&self, key: &str, json: &str) -> anyhow::Result<Vec<u8>> {
        let mut message = self.read(json)?;
        if let Some(field) = self.key_field() {
            let given = message.get_field(&field);
            match given.as_str() {
                Some("") => message.set_field(&field, Value::String(key.to_owned())),
                Some(given) if given == key => {}
                _ => {
                    let name = field.json_name();
                    return usage(format!(
                        "the request's '{name}' is not the agent's key '{key}'; leave '{name}' out, or give the same"
                    ));
                }
            }
        }
        Ok(message.encode_to_vec())
    }

    /// The request as protobuf, without a key: the grid fills in each agent's.
    pub fn encode_for_many(&self, json: &str) -> anyhow::Result<Vec<u8>> {
        let message = self.read(json)?;
        match self.key_field() {
            Some(field) if message.get_field(&field).as_str() != Some("") => {
                let name = field.json_name();
                usage(format!(
                    "the request's '{name}' is one agent's key; leave '{name}' out for many agents"
                ))
            }
            _ => Ok(message.encode_to_vec()),
        }
    }

    fn read(&self, json: &str) -> anyhow::Result<DynamicMessage> {
        let input = self.descriptor.input();
        let mut reader = serde_json::Deserializer::from_str(json);
        let message = DynamicMessage::deserialize(input.clone(), &mut reader)
            .and_then(|message| reader.end().map(|()| message));
        let message = message.map_err(|error| {
            Usage(format!(
                "the request is no {} in JSON: {error}; {}",
                input.full_name(),
                fields_of(&input, self.key_field().as_ref())
            ))
        })?;
        Ok(message)
    }

    /// A response as JSON, fields with default values included.
    pub fn decode(&self, response: &[u8]) -> anyhow::Result<String> {
        let output = self.descriptor.output();
        as_json(&output, response)
            .with_context(|| format!("the agent's response is no {}", output.full_name()))
    }

    /// The same, where the response may be of another method: a field that it does not have is an error.
    pub fn decode_strictly(&self, response: &[u8]) -> anyhow::Result<String> {
        let output = self.descriptor.output();
        let message = DynamicMessage::decode(output.clone(), response);
        if message.is_ok_and(|message| has_unknown_fields(&message)) {
            return Err(anyhow!(
                "the response is no {}: it has fields that {} does not have",
                output.full_name(),
                output.name()
            ));
        }
        self.decode(response)
    }

    /// A response as JSON on one line.
    pub fn decode_line(&self, response: &[u8]) -> anyhow::Result<String> {
        let output = self.descriptor.output();
        let mut text = Vec::new();
        let written = write_json(&output, response, &mut serde_json::Serializer::new(&mut text));
        written.with_context(|| format!("the agent's response is no {}", output.full_name()))?;
        Ok(String::from_utf8(text)?)
    }

    /// A request as JSON, fields with default values included.
    pub fn decode_request(&self, request: &[u8]) -> anyhow::Result<String> {
        let input = self.descriptor.input();
        as_json(&input, request).with_context(|| format!("the request is no {}", input.full_name()))
    }

    /// The request's field that holds the agent's key, if one is marked.
    fn key_field(&self) -> Option<FieldDescriptor> {
        let option = self.extension(KEY_OPTION)?;
        self.descriptor
            .input()
            .fields()
            .find(|field| matches!(field.kind(), Kind::String) && flag(&field.options(), &option))
    }

    fn extension(&self, name: &str) -> Option<ExtensionDescriptor> {
        self.descriptor.parent_pool().get_extension_by_name(name)
    }
}

fn as_json(message: &MessageDescriptor, bytes: &[u8]) -> anyhow::Result<String> {
    let mut text = Vec::new();
    write_json(message, bytes, &mut serde_json::Serializer::pretty(&mut text))?;
    Ok(String::from_utf8(text)?)
}

fn write_json<F: Formatter>(
    message: &MessageDescriptor,
    bytes: &[u8],
    writer: &mut serde_json::Serializer<&mut Vec<u8>, F>,
) -> anyhow::Result<()> {
    let message = DynamicMessage::decode(message.clone(), bytes)?;
    message.serialize_with_options(writer, &SerializeOptions::new().skip_default_fields(false))?;
    Ok(())
}

fn has_unknown_fields(message: &DynamicMessage) -> bool {
    let inside = |value: &Value| match value {
        Value::Message(message) => has_unknown_fields(message),
        _ => false,
    };
    message.unknown_fields().next().is_some()
        || message.fields().any(|(_, value)| match value {
            Value::List(values) => values.iter().any(inside),
            Value::Map(values) => values.values().any(inside),
            value => inside(value),
        })
}

fn flag(options: &DynamicMessage, option: &ExtensionDescriptor) -> bool {
    options.get_extension(option).as_bool().unwrap_or(false)
}

/// What a request may hold, for who got it wrong: `its fields are: cents (int64)`.
fn fields_of(message: &MessageDescriptor, key: Option<&FieldDescriptor>) -> String {
    let fields: Vec<_> = message
        .fields()
        .filter(|field| Some(field) != key)
        .map(|field| format!("{} ({})", field.json_name(), kind(&field)))
        .collect();
    if fields.is_empty() {
        "it has no fields".to_owned()
    } else {
        format!("its fields are: {}", fields.join(", "))
    }
}

fn kind(field: &FieldDescriptor) -> String {
    let kind = match field.kind() {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(known) => known.full_name().to_owned(),
        other => format!("{other:?}").to_lowercase(),
    };
    if field.is_map() {
        "map".to_owned()
    } else if field.is_list() {
        format!("list of {kind}")
    } else {
        kind
    }
}

/// One method for people: its name, whether it is read-only, and the fields of its messages.
pub struct MethodShown {
    pub name: String,
    pub read_only: bool,
    pub request: String,
    pub response: String,
}

/// The methods of a type, in the order of its `.proto`.
pub fn methods_shown(agent_type: &AgentType) -> anyhow::Result<Vec<MethodShown>> {
    let types = Types(vec![agent_type.clone()]);
    let mut shown = Vec::new();
    for method in types.service(&agent_type.name)?.methods() {
        let method = Method { descriptor: method };
        let key = method.key_field();
        let braces = |message: MessageDescriptor| {
            let fields: Vec<_> = message
                .fields()
                .map(|field| {
                    let is_key = if key.as_ref() == Some(&field) { " (the key)" } else { "" };
                    format!("{}: {}{is_key}", field.json_name(), kind(&field))
                })
                .collect();
            format!("{{{}}}", fields.join(", "))
        };
        shown.push(MethodShown {
            name: method.name().to_owned(),
            read_only: method.read_only(),
            request: braces(method.descriptor.input()),
            response: braces(method.descriptor.output()),
        });
    }
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use afdg_proto::pb::admin;
    use serde_json::{Value as Json, json};

    const OPTIONS: &str = include_str!("../../../proto/afdg/options.proto");
    const BANK: &str = r#"
        syntax = "proto3";
        package test.v1;
        import "afdg/options.proto";
        service Account {
          option (afdg.agent) = {};
          rpc Deposit(DepositRequest) returns (Balance);
          rpc Get(GetRequest) returns (Balance) { option (afdg.read_only) = true; }
        }
        message DepositRequest {
          string account = 1 [(afdg.key) = true];
          int64 cents = 2;
          repeated string tags = 3;
          optional string note_text = 4;
        }
        message GetRequest { string name = 1; }
        message Balance { int64 cents = 1; Kind kind = 2; }
        enum Kind { KIND_UNSPECIFIED = 0; KIND_SAVINGS = 1; }
    "#;

    fn types() -> Types {
        types_of(BANK)
    }

    fn types_of(proto: &str) -> Types {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("afdg")).unwrap();
        std::fs::write(folder.path().join("afdg/options.proto"), OPTIONS).unwrap();
        std::fs::write(folder.path().join("bank.proto"), proto).unwrap();
        let files = protox::Compiler::new([folder.path()])
            .unwrap()
            .include_imports(true)
            .open_file("bank.proto")
            .unwrap()
            .encode_file_descriptor_set();
        let method = |name: &str, read_only| admin::Method {
            name: name.into(),
            read_only,
            request: String::new(),
            response: String::new(),
        };
        Types::new(vec![AgentType {
            name: "test.v1.Account".into(),
            methods: vec![method("Deposit", false), method("Get", true)],
            version: String::new(),
            descriptors: files.into(),
            limits: Vec::new(),
        }])
        .unwrap()
    }

    #[test]
    fn a_request_gets_the_agents_key_and_a_response_reads_as_json() {
        let deposit = types().method("test.v1.Account", "Deposit").unwrap();
        assert!(!deposit.read_only());
        let bytes = deposit.encode("alice", r#"{"cents": 500, "tags": ["a"], "noteText": "n"}"#).unwrap();
        assert_eq!(bytes, b"\x0a\x05alice\x10\xf4\x03\x1a\x01a\x22\x01n");
        assert_eq!(deposit.encode("alice", r#"{"cents":"500","account":"alice"}"#).unwrap(), &bytes[..10]);
        let text = deposit.decode(b"\x08\xf4\x03\x10\x01").unwrap();
        assert_eq!(
            serde_json::from_str::<Json>(&text).unwrap(),
            json!({"cents": "500", "kind": "KIND_SAVINGS"})
        );
        assert_eq!(
            deposit.decode_line(b"\x08\xf4\x03").unwrap(),
            r#"{"cents":"500","kind":"KIND_UNSPECIFIED"}"#
        );
        assert_eq!(deposit.encode_for_many(r#"{"cents": 500}"#).unwrap(), b"\x10\xf4\x03");
        let named = deposit.encode_for_many(r#"{"account":"alice"}"#).unwrap_err().to_string();
        assert!(named.contains("leave 'account' out"), "{named}");
        // A balance of zero is shown, although protobuf leaves it out.
        assert_eq!(serde_json::from_str::<Json>(&deposit.decode(b"").unwrap()).unwrap()["cents"], "0");
    }

    #[test]
    fn a_response_of_another_method_is_not_read_as_this_ones() {
        let proto = BANK.replace("Kind kind = 2; }", "Kind kind = 2; repeated Balance parts = 3; }");
        let deposit = types_of(&proto).method("test.v1.Account", "Deposit").unwrap();
        let known = b"\x08\xf4\x03\x1a\x02\x08\x01";
        assert_eq!(deposit.decode_strictly(known).unwrap(), deposit.decode(known).unwrap());
        for other in [&b"\x48\x01"[..], b"\x1a\x02\x48\x01", b"\x0a\x01a"] {
            let error = deposit.decode_strictly(other).unwrap_err().to_string();
            assert!(error.contains("no test.v1.Balance"), "{error}");
        }
    }

    #[test]
    fn a_request_without_a_key_field_stays_as_it_is() {
        let get = types().method("test.v1.Account", "Get").unwrap();
        assert!(get.read_only());
        assert_eq!(get.encode("alice", "{}").unwrap(), b"");
        assert_eq!(get.encode("alice", r#"{"name":"x"}"#).unwrap(), b"\x0a\x01x");
    }

    #[test]
    fn a_wrong_request_is_told_what_would_be_right() {
        let deposit = types().method("test.v1.Account", "Deposit").unwrap();
        let error = |json: &str| deposit.encode("alice", json).unwrap_err().to_string();
        for json in ["", "{", "[]", "{} {}", r#"{"cent":1}"#, r#"{"cents":"x"}"#, r#"{"cents":1.5}"#] {
            assert!(error(json).contains("cents (int64), tags (list of string)"), "{json}: {}", error(json));
        }
        assert!(error(r#"{"account":"bob"}"#).contains("is not the agent's key 'alice'"));
    }

    #[test]
    fn unknown_names_are_told_the_known_ones() {
        let error = types().method("test.v1.Bank", "Get").unwrap_err().to_string();
        assert!(error.contains("it has: test.v1.Account"), "{error}");
        let error = types().method("test.v1.Account", "Put").unwrap_err().to_string();
        assert!(error.contains("it has: Deposit, Get"), "{error}");
    }

    #[test]
    fn what_may_enter_is_told_by_the_options_name() {
        let shown = |option: &str| {
            let proto = BANK.replace("service Account {", &format!("service Account {{ {option}"));
            reentrancy(types_of(&proto).named("test.v1.Account").unwrap()).unwrap()
        };
        assert_eq!(shown("option (afdg.reentrant) = CALL_CHAIN;").as_deref(), Some("CALL_CHAIN"));
        assert_eq!(shown("option (afdg.reentrant) = REENTRANCY_UNSPECIFIED;"), None);
        assert_eq!(shown(""), None);
    }

    #[test]
    fn methods_are_described_with_their_fields() {
        let methods = methods_shown(types().named("test.v1.Account").unwrap()).unwrap();
        let [deposit, get] = &methods[..] else { panic!("{} methods", methods.len()) };
        assert_eq!(
            deposit.request,
            "{account: string (the key), cents: int64, tags: list of string, noteText: string}"
        );
        assert!(!deposit.read_only && get.read_only);
        assert_eq!((get.name.as_str(), get.request.as_str()), ("Get", "{name: string}"));
        assert_eq!(get.response, "{cents: int64, kind: test.v1.Kind}");
    }
}
