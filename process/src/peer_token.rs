//! The secret that the servers of a cluster share.

use crate::{Settings, SettingsError, environment};
use afdg_proto::peer_auth::PeerToken;

pub fn peer_token(in_file: Option<String>, settings: &mut Settings<'_>) -> Result<PeerToken, SettingsError> {
    let text = settings.secret("peer_token", in_file, environment::PEER_TOKEN)?;
    match PeerToken::new(&text) {
        Ok(token) => Ok(token),
        Err(error) => settings.wrong("peer_token", format!("is not usable: {error}")),
    }
}
