//! Rust text for one agent type: the trait, its registration and its callers.

use crate::{
    agents::{AgentType, Agents, Method},
    descriptors_file,
};
use heck::ToSnakeCase;
use prost_build::{Comments, Service, ServiceGenerator};
use std::{collections::BTreeMap, fmt::Write};

/// Goes before each generated item: the author's lints are about the author's code.
pub(crate) const ALLOW: &str =
    "#[allow(dead_code, missing_docs, clippy::all, clippy::pedantic, clippy::nursery, clippy::restriction)]";

pub(crate) struct AgentGenerator {
    agents: Agents,
}

impl AgentGenerator {
    pub(crate) fn new(agents: Agents) -> Self {
        Self { agents }
    }
}

impl ServiceGenerator for AgentGenerator {
    fn generate(&mut self, service: Service, out: &mut String) {
        let type_name = format!("{}.{}", service.package, service.proto_name);
        match self.agents.agent_type(&type_name) {
            Some(AgentType { methods, send_retry, reentrant }) => {
                let agent =
                    Agent { service: &service, type_name, methods, send_retry, reentrant: *reentrant };
                // Writing to a String can't fail.
                let _ = agent.write(out);
            }
            // Not nothing: prost-build takes it that a package with a service has some text.
            None => out.push_str("const _: () = ();\n"),
        }
    }
}

struct Agent<'a> {
    service: &'a Service,
    type_name: String,
    methods: &'a BTreeMap<String, Method>,
    send_retry: &'a [u32; 3],
    reentrant: bool,
}

impl Agent<'_> {
    fn write(&self, out: &mut String) -> std::fmt::Result {
        self.write_trait(out)?;
        self.write_registration(out)?;
        self.write_handlers(out)?;
        self.write_callers(out)
    }

    fn write_trait(&self, out: &mut String) -> std::fmt::Result {
        let name = &self.service.name;
        write_comments(out, &self.service.comments)?;
        writeln!(out, "{ALLOW}\n#[::afdg_agent::async_trait]")?;
        writeln!(out, "pub trait {name}Agent: Send + Sync + 'static {{")?;
        for method in &self.service.methods {
            write_comments(out, &method.comments)?;
            writeln!(
                out,
                "async fn {}(&self, ctx: &mut ::afdg_agent::Context, request: {}) \
                 -> Result<{}, ::afdg_agent::AgentError>;",
                method.name, method.input_type, method.output_type
            )?;
        }
        writeln!(out, "}}")
    }

    fn write_registration(&self, out: &mut String) -> std::fmt::Result {
        let (name, type_name) = (&self.service.name, &self.type_name);
        let function = name.trim_start_matches("r#").to_snake_case();
        let descriptors = descriptors_file(&self.service.package);
        writeln!(
            out,
            "/// The agent type `{type_name}` with these handlers, for a host to run.
             {ALLOW}
             pub fn {function}_agent(agent: impl {name}Agent) -> ::afdg_agent::AgentType {{
                 const DESCRIPTORS: &[u8] = include_bytes!(\"{descriptors}\");
                 let method = |name: &str, read_only, key_field, request: &str, response: &str| {{
                     ::afdg_agent::host::MethodDescription {{
                         name: name.to_owned(),
                         read_only,
                         key_field,
                         request: request.to_owned(),
                         response: response.to_owned(),
                     }}
                 }};
                 let description = ::afdg_agent::host::TypeDescription {{
                     name: {type_name:?}.to_owned(),
                     descriptors: ::afdg_agent::bytes::Bytes::from_static(DESCRIPTORS),
                     methods: vec!["
        )?;
        for method in &self.service.methods {
            let Method { read_only, key, request, response } = &self.methods[&method.proto_name];
            let key = key.as_ref().map(|key| key.number);
            let proto_name = &method.proto_name;
            writeln!(out, "method({proto_name:?}, {read_only}, {key:?}, {request:?}, {response:?}),")?;
        }
        let [attempts, pause_min, pause_max] = self.send_retry;
        let reentrancy = if self.reentrant { "CallChain" } else { "None" };
        writeln!(
            out,
            "        ],
                     send_retry: ::afdg_agent::host::SendRetry::new({attempts}, {pause_min}, {pause_max}),
                     reentrancy: ::afdg_agent::host::Reentrancy::{reentrancy},
                 }};
                 ::afdg_agent::AgentType::new(description, {name}Handlers(agent))
             }}"
        )
    }

    fn write_handlers(&self, out: &mut String) -> std::fmt::Result {
        let name = &self.service.name;
        writeln!(
            out,
            "{ALLOW}
             struct {name}Handlers<A>(A);
             {ALLOW}
             #[::afdg_agent::async_trait]
             impl<A: {name}Agent> ::afdg_agent::native::Handlers for {name}Handlers<A> {{
                 async fn handle(
                     &self,
                     context: &mut ::afdg_agent::Context,
                     method: &str,
                     request: ::afdg_agent::bytes::Bytes,
                 ) -> Result<::afdg_agent::native::Reply, ::afdg_agent::host::TurnFailure> {{
                     Ok(match method {{"
        )?;
        for method in &self.service.methods {
            let (proto_name, function) = (&method.proto_name, &method.name);
            let message = &self.methods[proto_name].request;
            writeln!(
                out,
                "{proto_name:?} => {{
                     let request = ::afdg_agent::native::decode(request, {message:?})?;
                     ::afdg_agent::native::encode(self.0.{function}(context, request).await)
                 }}"
            )?;
        }
        writeln!(
            out,
            "            other => return Err(
                             ::afdg_agent::host::TurnFailure::UnknownMethod(other.to_owned())
                         ),
                     }})
                 }}
             }}"
        )
    }

    fn write_callers(&self, out: &mut String) -> std::fmt::Result {
        let (name, type_name) = (&self.service.name, &self.type_name);
        writeln!(
            out,
            "/// Calls to agents of type `{type_name}`, for `ctx.call`. The key may be left out of requests.
             {ALLOW}
             pub struct {name}Calls;
             {ALLOW}
             impl {name}Calls {{"
        )?;
        for method in &self.service.methods {
            let (function, proto_name) = (&method.name, &method.proto_name);
            let (request, response) = (&method.input_type, &method.output_type);
            let body = match &self.methods[proto_name].key {
                None => format!("new({type_name:?}, key, {proto_name:?}, &request)"),
                Some(key) => format!(
                    "keyed({type_name:?}, key, {proto_name:?}, request, |request| &mut request.{})",
                    field_name(&key.field)
                ),
            };
            write_comments(out, &method.comments)?;
            writeln!(
                out,
                "pub fn {function}(key: &str, request: {request}) -> ::afdg_agent::Call<{response}> {{
                     ::afdg_agent::Call::{body}
                 }}"
            )?;
        }
        writeln!(out, "}}")
    }
}

fn write_comments(out: &mut String, comments: &Comments) -> std::fmt::Result {
    comments.append_with_indent(0, out);
    Ok(())
}

/// A field's name in Rust, as prost-build makes it.
fn field_name(field: &str) -> String {
    let name = field.to_snake_case();
    match name.as_str() {
        "as" | "break" | "const" | "continue" | "else" | "enum" | "false" | "fn" | "for" | "if" | "impl"
        | "in" | "let" | "loop" | "match" | "mod" | "move" | "mut" | "pub" | "ref" | "return" | "static"
        | "struct" | "trait" | "true" | "type" | "unsafe" | "use" | "where" | "while" | "dyn"
        | "abstract" | "become" | "box" | "do" | "final" | "macro" | "override" | "priv" | "typeof"
        | "unsized" | "virtual" | "yield" | "async" | "await" | "try" | "gen" => format!("r#{name}"),
        "_" | "super" | "self" | "extern" | "crate" => format!("{name}_"),
        _ if name.starts_with(|first: char| first.is_numeric()) => format!("_{name}"),
        _ => name,
    }
}
