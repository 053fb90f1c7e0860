//! Who may use the internal services: servers that carry the cluster's peer token.
//!
//! The token is one secret shared by all servers of a cluster (`peer_token` in their configuration). It
//! keeps strangers and servers of other clusters out; it does not hide traffic, which is what TLS is for.

use crate::status::of_grid_error;
use afdg_types::{GridError, Reason};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
};

/// Metadata key of the token.
pub const PEER_TOKEN_KEY: &str = "afdg-peer-token";
/// Longest token.
pub const PEER_TOKEN_BYTES_MAX: usize = 256;

/// The secret that the servers of one cluster share: 1 to 256 visible ASCII characters.
#[derive(Clone)]
pub struct PeerToken(MetadataValue<Ascii>);

impl PeerToken {
    pub fn new(token: &str) -> Result<Self, InvalidPeerToken> {
        let visible = !token.is_empty()
            && token.len() <= PEER_TOKEN_BYTES_MAX
            && token.bytes().all(|b| b.is_ascii_graphic());
        let value = visible.then(|| token.parse().ok()).flatten().ok_or(InvalidPeerToken)?;
        Ok(Self(value))
    }

    /// Compares in a time that does not depend on where the texts differ.
    fn matches(&self, given: &[u8]) -> bool {
        let own = self.0.as_encoded_bytes();
        own.len() == given.len() && own.iter().zip(given).fold(0, |acc, (a, b)| acc | (a ^ b)) == 0
    }
}

impl std::fmt::Debug for PeerToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PeerToken(hidden)")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPeerToken;

impl std::fmt::Display for InvalidPeerToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a peer token has 1 to {PEER_TOKEN_BYTES_MAX} visible ASCII characters without spaces")
    }
}

impl std::error::Error for InvalidPeerToken {}

/// For clients of internal services: adds the token to every request.
#[derive(Clone, Debug)]
pub struct ShowToken(pub PeerToken);

impl Interceptor for ShowToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(PEER_TOKEN_KEY, self.0.0.clone());
        Ok(request)
    }
}

/// For servers of internal services: refuses requests without the token.
#[derive(Clone, Debug)]
pub struct DemandToken(pub PeerToken);

impl Interceptor for DemandToken {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let given = request.metadata().get(PEER_TOKEN_KEY);
        if given.is_some_and(|given| self.0.matches(given.as_encoded_bytes())) {
            return Ok(request);
        }
        let what = if given.is_some() { "the peer token is wrong" } else { "the peer token is missing" };
        Err(of_grid_error(&GridError::new(
            Reason::NotAPeer,
            format!(
                "{what}: this service is for servers of the cluster; clients call agents through an extension"
            ),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_token_passes() {
        let token = PeerToken::new("s3cret").unwrap();
        let shown = |token: &PeerToken| ShowToken(token.clone()).call(Request::new(())).unwrap();
        assert!(DemandToken(token.clone()).call(shown(&token)).is_ok());
        for other in ["s3creT", "s3cre", "s3crett"] {
            assert!(DemandToken(token.clone()).call(shown(&PeerToken::new(other).unwrap())).is_err());
        }
        assert!(DemandToken(token).call(Request::new(())).is_err());
        assert!(
            PeerToken::new("").is_err() && PeerToken::new("a b").is_err() && PeerToken::new("ü").is_err()
        );
    }
}
