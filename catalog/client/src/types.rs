//! Agent types as nodes describe them and routers use them.

use afdg_proto::pb::internal;
use afdg_types::TypeLimits;
use bytes::Bytes;
use std::collections::BTreeMap;

/// One agent type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeInfo {
    /// Full name of the protobuf service.
    pub name: String,
    /// Serialized `google.protobuf.FileDescriptorSet` with the service and all that it imports.
    pub descriptors: Bytes,
    pub methods: BTreeMap<String, MethodInfo>,
    pub limits: TypeLimits,
}

/// One method of an agent type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodInfo {
    pub read_only: bool,
    /// Number of the request's field that holds the agent's key, if one does.
    pub key_field: Option<u32>,
    /// Full name of the request message.
    pub request: String,
    /// Full name of the response message.
    pub response: String,
}

impl From<TypeInfo> for internal::TypeDescriptor {
    fn from(info: TypeInfo) -> Self {
        let methods = info.methods.into_iter().map(|(name, method)| internal::TypeMethod {
            name,
            read_only: method.read_only,
            key_field: method.key_field.unwrap_or(0),
            request: method.request,
            response: method.response,
        });
        let limits = Default::default();
        Self { name: info.name, descriptors: info.descriptors, methods: methods.collect(), limits }
    }
}

impl From<internal::TypeDescriptor> for TypeInfo {
    fn from(wire: internal::TypeDescriptor) -> Self {
        let methods = wire.methods.into_iter().map(|method| {
            let info = MethodInfo {
                read_only: method.read_only,
                key_field: (method.key_field > 0).then_some(method.key_field),
                request: method.request,
                response: method.response,
            };
            (method.name, info)
        });
        // A limit of a newer catalog that this server does not know can't be kept by it.
        let known = wire.limits.into_iter().filter_map(|(name, value)| Some((name.parse().ok()?, value)));
        let limits = TypeLimits::of(&known.collect());
        Self { name: wire.name, descriptors: wire.descriptors, methods: methods.collect(), limits }
    }
}
