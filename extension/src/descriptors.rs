//! What reflection tells of: the files of the public services and of all agent types.
//!
//! The files' bytes are passed on as their authors' compilers made them: decoding and encoding again
//! would drop options that this program does not know.

use crate::wire::{self, Value};
use afdg_catalog_client::TypeInfo;
use prost::Message;
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

#[derive(Default)]
pub(crate) struct Descriptors {
    services: BTreeSet<String>,
    /// Each set is closed in itself: two types may bring different files of one name.
    sets: Vec<BTreeMap<String, File>>,
    /// Set and file name, by the full name of what the file declares.
    symbols: BTreeMap<String, (usize, String)>,
    extensions: BTreeMap<String, BTreeMap<i32, (usize, String)>>,
}

struct File {
    bytes: Vec<u8>,
    imports: Vec<String>,
}

impl Descriptors {
    /// `public` are encoded `FileDescriptorSet`s whose services are all served here. Of a type's set only
    /// the type itself is listed.
    pub(crate) fn new(public: &[&[u8]], types: &BTreeMap<String, Arc<TypeInfo>>) -> Self {
        let mut all = Self::default();
        for set in public {
            all.add_set(set, true);
        }
        for (name, info) in types {
            all.add_set(&info.descriptors, false);
            all.services.insert(name.clone());
        }
        all
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = &str> {
        self.services.iter().map(String::as_str)
    }

    pub(crate) fn file_by_name(&self, name: &str) -> Option<Vec<Vec<u8>>> {
        let set = self.sets.iter().find(|set| set.contains_key(name))?;
        Some(with_imports(set, name))
    }

    pub(crate) fn file_with_symbol(&self, symbol: &str) -> Option<Vec<Vec<u8>>> {
        let (set, name) = self.symbols.get(symbol.trim_start_matches('.'))?;
        Some(with_imports(self.sets.get(*set)?, name))
    }

    pub(crate) fn file_with_extension(&self, extended: &str, number: i32) -> Option<Vec<Vec<u8>>> {
        let (set, name) = self.extensions.get(extended.trim_start_matches('.'))?.get(&number)?;
        Some(with_imports(self.sets.get(*set)?, name))
    }

    /// None if no such message is known.
    pub(crate) fn extension_numbers(&self, extended: &str) -> Option<Vec<i32>> {
        let extended = extended.trim_start_matches('.');
        match self.extensions.get(extended) {
            Some(numbers) => Some(numbers.keys().copied().collect()),
            None => self.symbols.contains_key(extended).then(Vec::new),
        }
    }

    fn add_set(&mut self, encoded: &[u8], list_services: bool) {
        let place = self.sets.len();
        let mut set = BTreeMap::new();
        for field in wire::fields(encoded) {
            // The catalog took the set, so it is well-formed; what is not is only missing here.
            let Ok(wire::Field { number: 1, value: Value::Bytes(bytes) }) = field else { continue };
            let Ok(file) = FileDescriptorProto::decode(bytes) else { continue };
            let name = file.name().to_owned();
            if list_services {
                self.services.extend(file.service.iter().map(|service| join(file.package(), service.name())));
            }
            self.index(&file, &(place, name.clone()));
            set.insert(name, File { bytes: bytes.to_vec(), imports: file.dependency });
        }
        self.sets.push(set);
    }

    fn index(&mut self, file: &FileDescriptorProto, at: &(usize, String)) {
        let package = file.package();
        for service in &file.service {
            let name = join(package, service.name());
            for method in &service.method {
                self.symbol(join(&name, method.name()), at);
            }
            self.symbol(name, at);
        }
        for message in &file.message_type {
            self.index_message(package, message, at);
        }
        for one in &file.enum_type {
            self.index_enum(package, one, at);
        }
        self.index_extensions(package, &file.extension, at);
    }

    fn index_message(&mut self, scope: &str, message: &DescriptorProto, at: &(usize, String)) {
        // Nesting is as deep as the author wrote it; decoding has bounded it already.
        let name = join(scope, message.name());
        for field in &message.field {
            self.symbol(join(&name, field.name()), at);
        }
        for oneof in &message.oneof_decl {
            self.symbol(join(&name, oneof.name()), at);
        }
        for nested in &message.nested_type {
            self.index_message(&name, nested, at);
        }
        for nested in &message.enum_type {
            self.index_enum(&name, nested, at);
        }
        self.index_extensions(&name, &message.extension, at);
        self.symbol(name, at);
    }

    /// An enum's values stand beside it, not in it.
    fn index_enum(&mut self, scope: &str, one: &EnumDescriptorProto, at: &(usize, String)) {
        for value in &one.value {
            self.symbol(join(scope, value.name()), at);
        }
        self.symbol(join(scope, one.name()), at);
    }

    fn index_extensions(&mut self, scope: &str, fields: &[FieldDescriptorProto], at: &(usize, String)) {
        for field in fields {
            self.symbol(join(scope, field.name()), at);
            let extended = field.extendee().trim_start_matches('.').to_owned();
            let numbers = self.extensions.entry(extended).or_default();
            numbers.entry(field.number()).or_insert_with(|| at.clone());
        }
    }

    fn symbol(&mut self, name: String, at: &(usize, String)) {
        self.symbols.entry(name).or_insert_with(|| at.clone());
    }
}

fn join(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") }
}

/// The file and all that it imports, each once, so that a client needs no further question.
fn with_imports(set: &BTreeMap<String, File>, name: &str) -> Vec<Vec<u8>> {
    let mut seen = BTreeSet::from([name]);
    let mut to_visit = VecDeque::from([name]);
    let mut files = Vec::new();
    while let Some(file) = to_visit.pop_front().and_then(|name| set.get(name)) {
        files.push(file.bytes.clone());
        for import in file.imports.iter().filter(|import| set.contains_key(*import)) {
            if seen.insert(import) {
                to_visit.push_back(import);
            }
        }
    }
    files
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use prost_reflect::DescriptorPool;

    const ACCOUNT: &str = r#"
        syntax = "proto3";
        package bank.v1;
        import "money.proto";
        import "google/protobuf/descriptor.proto";
        extend google.protobuf.FieldOptions { string hint = 50999; }
        service Account { rpc Deposit(DepositRequest) returns (Money); }
        service Helper { rpc Help(Money) returns (Money); }
        message DepositRequest {
            string account = 1 [(hint) = "the key"];
            message Inner { enum Kind { KIND_UNSPECIFIED = 0; } }
        }
    "#;
    const MONEY: &str = r#"syntax = "proto3"; package bank.v1; message Money { int64 cents = 1; }"#;

    struct Sources;

    impl protox::file::FileResolver for Sources {
        fn open_file(&self, name: &str) -> Result<protox::file::File, protox::Error> {
            match name {
                "account.proto" => protox::file::File::from_source(name, ACCOUNT),
                "money.proto" => protox::file::File::from_source(name, MONEY),
                name => protox::file::GoogleFileResolver::new().open_file(name),
            }
        }
    }

    /// The encoded set of `bank.v1.Account`, with options that only its author knows.
    pub(crate) fn account_set() -> Vec<u8> {
        let mut compiler = protox::Compiler::with_file_resolver(Sources);
        compiler.include_imports(true).open_file("account.proto").unwrap();
        compiler.encode_file_descriptor_set()
    }

    pub(crate) fn descriptors() -> Descriptors {
        let info = TypeInfo {
            name: "bank.v1.Account".to_owned(),
            descriptors: account_set().into(),
            methods: BTreeMap::new(),
            limits: Default::default(),
        };
        let types = [("bank.v1.Account".to_owned(), Arc::new(info))].into();
        Descriptors::new(&[afdg_proto::PUBLIC_DESCRIPTORS], &types)
    }

    #[test]
    fn types_and_public_services_are_listed() {
        let descriptors = descriptors();
        assert_eq!(descriptors.services().collect::<Vec<_>>(), ["afdg.v1.Grid", "bank.v1.Account"]);
    }

    #[test]
    fn a_symbol_brings_its_file_unchanged_with_all_imports() {
        let descriptors = descriptors();
        for symbol in [
            "bank.v1.Account",
            "bank.v1.Account.Deposit",
            "bank.v1.DepositRequest.Inner.Kind",
            "bank.v1.DepositRequest.Inner.KIND_UNSPECIFIED",
            "bank.v1.DepositRequest.account",
            "bank.v1.hint",
        ] {
            let files = descriptors.file_with_symbol(symbol).unwrap();
            assert_eq!(files.len(), 3, "{symbol}");
            let mut set = Vec::new();
            files.iter().rev().for_each(|file| wire::put_bytes_field(&mut set, 1, file));
            let pool = DescriptorPool::decode(set.as_slice()).unwrap();
            let message = pool.get_message_by_name("bank.v1.DepositRequest").unwrap();
            let hint = pool.get_extension_by_name("bank.v1.hint").unwrap();
            let options = message.get_field(1).unwrap().options();
            assert_eq!(options.get_extension(&hint).as_str(), Some("the key"));
        }
        assert!(descriptors.file_with_symbol("bank.v1.Nothing").is_none());
        assert_eq!(descriptors.file_by_name("money.proto").unwrap().len(), 1);
        assert!(descriptors.file_by_name("nothing.proto").is_none());
    }

    #[test]
    fn extensions_are_found_by_what_they_extend() {
        let descriptors = descriptors();
        let options = "google.protobuf.FieldOptions";
        assert_eq!(descriptors.extension_numbers(options), Some(vec![50999]));
        assert_eq!(descriptors.extension_numbers("bank.v1.Money"), Some(vec![]));
        assert_eq!(descriptors.extension_numbers("bank.v1.Nothing"), None);
        assert!(descriptors.file_with_extension(options, 50999).is_some());
        assert!(descriptors.file_with_extension(options, 1).is_none());
    }
}
