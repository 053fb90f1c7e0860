//! The agent types among the services of compiled `.proto` files, checked.

use crate::Error;
use prost_reflect::{
    Cardinality, DescriptorPool, ExtensionDescriptor, FieldDescriptor, FileDescriptor, Kind,
    MessageDescriptor, MethodDescriptor, ServiceDescriptor, Value,
};
use std::collections::{BTreeMap, BTreeSet};

/// Agent types by their full names.
#[derive(Default)]
pub(crate) struct Agents {
    types: BTreeMap<String, AgentType>,
    files: BTreeMap<String, BTreeSet<String>>,
}

/// What an agent type has beyond an ordinary service.
#[derive(Clone, Debug)]
pub(crate) struct AgentType {
    pub(crate) methods: BTreeMap<String, Method>,
    /// `send_attempts_max`, `send_retry_ms_min`, `send_retry_ms_max`; 0 for the default.
    pub(crate) send_retry: [u32; 3],
    /// `(afdg.reentrant) = CALL_CHAIN`.
    pub(crate) reentrant: bool,
}

/// What an agent's method has beyond an ordinary one.
#[derive(Clone, Debug)]
pub(crate) struct Method {
    pub(crate) read_only: bool,
    pub(crate) key: Option<Key>,
    /// Full names.
    pub(crate) request: String,
    pub(crate) response: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) field: String,
    pub(crate) number: u32,
}

/// The options of `afdg/options.proto`; none of them is known when no file imports it.
struct Options {
    agent: Option<ExtensionDescriptor>,
    read_only: Option<ExtensionDescriptor>,
    key: Option<ExtensionDescriptor>,
    reentrant: Option<ExtensionDescriptor>,
}

/// Options of `afdg.AgentOptions` on messages that nobody waits for, and their greatest values.
const SEND_RETRY_OPTIONS: [(&str, u32); 3] =
    [("send_attempts_max", 1_000), ("send_retry_ms_min", 86_400_000), ("send_retry_ms_max", 86_400_000)];

/// Of `afdg.Reentrancy`.
const CALL_CHAIN: i32 = 1;

impl Agents {
    pub(crate) fn read(pool: &DescriptorPool, is_extern: impl Fn(&str) -> bool) -> Result<Self, Error> {
        let option = |name| pool.get_extension_by_name(name);
        let options = Options {
            agent: option("afdg.agent"),
            read_only: option("afdg.read_only"),
            key: option("afdg.key"),
            reentrant: option("afdg.reentrant"),
        };
        let mut agents = Agents::default();
        for file in pool.files().filter(|file| !is_extern(file.package_name())) {
            for service in file.services().filter(|service| options.is_agent(service)) {
                agents.add(&options, &file, &service)?;
            }
        }
        Ok(agents)
    }

    fn add(
        &mut self,
        options: &Options,
        file: &FileDescriptor,
        service: &ServiceDescriptor,
    ) -> Result<(), Error> {
        let package = file.package_name();
        if package.is_empty() {
            let (service, file) = (service.full_name().to_owned(), file.name().to_owned());
            return Err(Error::NoPackage { service, file });
        }
        let methods =
            service.methods().map(|method| Ok((method.name().to_owned(), options.method(&method)?)));
        let methods = methods.collect::<Result<_, Error>>()?;
        let send_retry = options.send_retry(service)?;
        let reentrant = options.is_reentrant(service)?;
        let agent_type = AgentType { methods, send_retry, reentrant };
        self.types.insert(service.full_name().to_owned(), agent_type);
        self.files.entry(package.to_owned()).or_default().insert(file.name().to_owned());
        Ok(())
    }

    /// The agent type of that name; none if the service is none.
    pub(crate) fn agent_type(&self, service: &str) -> Option<&AgentType> {
        self.types.get(service)
    }

    /// Packages with agent types, and the files that hold them.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &BTreeSet<String>)> {
        self.files.iter().map(|(package, files)| (package.as_str(), files))
    }
}

impl Options {
    fn is_agent(&self, service: &ServiceDescriptor) -> bool {
        self.agent.as_ref().is_some_and(|agent| service.options().has_extension(agent))
    }

    fn is_reentrant(&self, service: &ServiceDescriptor) -> Result<bool, Error> {
        let Some(reentrant) = &self.reentrant else { return Ok(false) };
        match service.options().get_extension(reentrant).as_enum_number() {
            None | Some(0) => Ok(false),
            Some(CALL_CHAIN) => Ok(true),
            Some(given) => Err(Error::UnknownReentrancy { service: service.full_name().to_owned(), given }),
        }
    }

    fn send_retry(&self, service: &ServiceDescriptor) -> Result<[u32; 3], Error> {
        let Some(agent) = &self.agent else { return Ok([0; 3]) };
        let options = service.options();
        let value = options.get_extension(agent);
        let mut found = [0; 3];
        for (place, (name, max)) in SEND_RETRY_OPTIONS.into_iter().enumerate() {
            let given = value.as_message().and_then(|message| message.get_field_by_name(name)?.as_u32());
            found[place] = given.unwrap_or(0);
            if found[place] > max {
                let (service, given) = (service.full_name().to_owned(), found[place]);
                return Err(Error::OptionTooLarge { service, option: name, given, max });
            }
        }
        Ok(found)
    }

    fn method(&self, method: &MethodDescriptor) -> Result<Method, Error> {
        let what = match (method.is_client_streaming(), method.is_server_streaming()) {
            (true, _) => Some("requests"),
            (_, true) => Some("responses"),
            _ => None,
        };
        if let Some(what) = what {
            return Err(Error::Streaming { method: method.full_name().to_owned(), what });
        }
        let read_only = self.read_only.as_ref();
        Ok(Method {
            read_only: read_only
                .is_some_and(|option| *method.options().get_extension(option) == Value::Bool(true)),
            key: self.key_of(&method.input())?,
            request: method.input().full_name().to_owned(),
            response: method.output().full_name().to_owned(),
        })
    }

    fn key_of(&self, message: &MessageDescriptor) -> Result<Option<Key>, Error> {
        let Some(option) = &self.key else { return Ok(None) };
        let is_key = |field: &FieldDescriptor| *field.options().get_extension(option) == Value::Bool(true);
        let mut marked = message.fields().filter(is_key);
        let Some(field) = marked.next() else { return Ok(None) };
        if let Some(second) = marked.next() {
            return Err(Error::KeyTwice {
                message: message.full_name().to_owned(),
                first: field.name().to_owned(),
                second: second.name().to_owned(),
            });
        }
        match not_a_plain_string(&field) {
            Some(kind) => Err(Error::KeyNotString { field: field.full_name().to_owned(), kind }),
            None => Ok(Some(Key { field: field.name().to_owned(), number: field.number() })),
        }
    }
}

fn not_a_plain_string(field: &FieldDescriptor) -> Option<String> {
    let kind = match field.kind() {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(values) => values.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    };
    // An optional field counts as one in a oneof of its own.
    if field.cardinality() == Cardinality::Repeated {
        Some(format!("a repeated {kind}"))
    } else if field.containing_oneof().is_some() {
        Some(format!("an optional {kind} or one in a oneof"))
    } else {
        (field.kind() != Kind::String).then(|| format!("of type {kind}"))
    }
}
