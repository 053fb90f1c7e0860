//! AFDG's .proto files, the code generated from them, and the one place that makes or reads a gRPC status.

pub mod pb {
    //! Generated code, one module a proto package.
    #![allow(clippy::all, clippy::unwrap_used, missing_docs)]
    pub mod v1 {
        tonic::include_proto!("afdg.v1");
    }
    pub mod admin {
        tonic::include_proto!("afdg.admin.v1");
    }
    pub mod internal {
        tonic::include_proto!("afdg.internal.v1");
    }
}

pub mod key_field;
pub mod limits;
pub mod peer_auth;
pub mod status;

/// Serialized descriptors of what clients may call: `afdg.v1`.
pub const PUBLIC_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/public.bin"));
