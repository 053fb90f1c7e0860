//! Whose data a folder holds.
//!
//! A small text file with a checksum, written before anything else in the folder, says which role and which
//! server it belongs to, and of which cluster once that is known. A server that finds another's refuses to start,
//! so that a wrong path or a volume mounted in the wrong place can't mix two servers' data.

use afdg_runtime::{Disk, FolderLock, seal, unseal};
use afdg_types::ClusterId;
use bytes::Bytes;
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

const FILE: &str = "IDENTITY";
/// Found in the root of a freshly made file system.
const IGNORED: &[&str] = &["lost+found"];
/// Version of the folder's layout. The first had no checksum in this file.
const FORMAT_VERSION: u32 = 2;
const FIRST_SEALED_VERSION: u32 = 2;
const FILE_BYTES_MAX: usize = 4_096;

/// What the file says. As long as it or its lock lives, no other server uses the folder.
#[derive(Debug)]
pub struct Identity {
    pub role: String,
    /// Names the server among those of its role.
    pub server: String,
    pub cluster: Option<ClusterId>,
    folder: PathBuf,
    lock: Arc<dyn FolderLock>,
}

/// Why a folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(
        "{folder} holds the data of the {found_role} '{found}', and this is the {role} '{own}': give each server a folder of its own{}",
        unused(.is_unused)
    )]
    OtherServer {
        folder: String,
        found_role: String,
        found: String,
        role: String,
        own: String,
        is_unused: bool,
    },
    #[error(
        "{folder} is in use by a server that runs: stop it first, or give each server a folder of its own"
    )]
    InUse { folder: String },
    #[error("{folder} holds data of format {found}, and this server knows up to {known}: start a newer one")]
    Newer { folder: String, found: u32, known: u32 },
    #[error("{folder} holds data of cluster {found}, and this server is of cluster {own}")]
    OtherCluster { folder: String, found: ClusterId, own: ClusterId },
    #[error(
        "{folder} holds files ('{file}' is one) and no {FILE} file, so it is no server's data: give an empty folder"
    )]
    Stranger { folder: String, file: String },
    #[error("{folder}/{FILE} can't be understood: {problem}")]
    Malformed { folder: String, problem: String },
    #[error("{folder}: {error}")]
    Io { folder: String, error: io::Error },
}

/// What helps if a folder is another's and nothing is in it yet.
fn unused(is_unused: &bool) -> &'static str {
    match is_unused {
        true => ". It has joined no cluster yet: if it was made under a wrong name, remove it",
        false => "",
    }
}

impl Identity {
    /// Reads who owns `folder`, or makes it `role`'s `server`'s if it is empty or missing.
    pub async fn open(
        disk: &dyn Disk,
        folder: &Path,
        role: &str,
        server: &str,
    ) -> Result<Identity, IdentityError> {
        let name = folder.display().to_string();
        let io_error = |error| IdentityError::Io { folder: name.clone(), error };
        disk.create_folder(folder).await.map_err(io_error)?;
        // Before anything is read: what another server is about to write must not be taken for its end.
        let lock = disk.lock_folder(folder).await.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => IdentityError::InUse { folder: name.clone() },
            _ => io_error(error),
        })?;
        let found = match disk.read(&folder.join(FILE)).await {
            Ok(content) => Self::parse(folder, &content, lock)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let files = disk.list(folder).await.map_err(io_error)?;
                // A file of ours that was not yet renamed into place is left from an interrupted first start.
                let is_strange = |file: &String| !file.starts_with(FILE) && !IGNORED.contains(&file.as_str());
                if let Some(file) = files.into_iter().find(is_strange) {
                    return Err(IdentityError::Stranger { folder: name, file });
                }
                let new = Identity {
                    role: role.to_owned(),
                    server: server.to_owned(),
                    cluster: None,
                    folder: folder.to_owned(),
                    lock,
                };
                new.write(disk).await?;
                new
            }
            Err(error) => return Err(io_error(error)),
        };
        if found.role != role || found.server != server {
            let (role, own) = (role.to_owned(), server.to_owned());
            let (is_unused, found_role, found) = (found.cluster.is_none(), found.role, found.server);
            return Err(IdentityError::OtherServer { folder: name, found_role, found, role, own, is_unused });
        }
        Ok(found)
    }

    /// Notes the cluster that the folder's data is of; refuses another than noted before.
    pub async fn join_cluster(&mut self, disk: &dyn Disk, cluster: &ClusterId) -> Result<(), IdentityError> {
        match &self.cluster {
            Some(found) if found == cluster => Ok(()),
            Some(found) => Err(IdentityError::OtherCluster {
                folder: self.folder.display().to_string(),
                found: found.clone(),
                own: cluster.clone(),
            }),
            None => {
                self.cluster = Some(cluster.clone());
                self.write(disk).await
            }
        }
    }

    async fn write(&self, disk: &dyn Disk) -> Result<(), IdentityError> {
        disk.write(&self.folder.join(FILE), self.render())
            .await
            .map_err(|error| IdentityError::Io { folder: self.folder.display().to_string(), error })
    }

    fn render(&self) -> Bytes {
        let cluster = self.cluster.as_ref().map(|id| format!("cluster = {id}\n")).unwrap_or_default();
        seal(&format!("format = {FORMAT_VERSION}\nrole = {}\nserver = {}\n{cluster}", self.role, self.server))
    }

    /// Keeps others out of the folder; to be held until the server has stopped.
    pub fn lock(&self) -> Arc<dyn FolderLock> {
        Arc::clone(&self.lock)
    }

    fn parse(folder: &Path, content: &[u8], lock: Arc<dyn FolderLock>) -> Result<Identity, IdentityError> {
        let name = folder.display().to_string();
        let malformed = |problem: &str| IdentityError::Malformed {
            folder: folder.display().to_string(),
            problem: problem.to_owned(),
        };
        if content.len() > FILE_BYTES_MAX {
            return Err(malformed("it is too long"));
        }
        let (text, sealed) = unseal(content).map_err(|error| malformed(&error.to_string()))?;
        let value_of = |key: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once('='));
            lines.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned())
        };
        let format = value_of("format").ok_or_else(|| malformed("'format' is missing"))?;
        let format_version: u32 = format.parse().map_err(|_| malformed("'format' is no number"))?;
        if format_version > FORMAT_VERSION {
            return Err(IdentityError::Newer { folder: name, found: format_version, known: FORMAT_VERSION });
        }
        if format_version >= FIRST_SEALED_VERSION && !sealed {
            return Err(malformed("it has no checksum: it was damaged, or changed by hand"));
        }
        Ok(Identity {
            role: value_of("role").ok_or_else(|| malformed("'role' is missing"))?,
            server: value_of("server").ok_or_else(|| malformed("'server' is missing"))?,
            cluster: value_of("cluster").map(ClusterId),
            folder: folder.to_owned(),
            lock,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use afdg_runtime::RealDisk;

    #[tokio::test]
    async fn a_folder_is_one_servers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let mut own = Identity::open(&RealDisk, &path, "catalog", "1").await.unwrap();
        assert_eq!(own.cluster, None);
        own.join_cluster(&RealDisk, &ClusterId("c".to_owned())).await.unwrap();
        let lock = own.lock();
        drop(own);
        let in_use = Identity::open(&RealDisk, &path, "catalog", "1").await.unwrap_err();
        assert!(matches!(in_use, IdentityError::InUse { .. }), "{in_use}");
        drop(lock);
        let mut again = Identity::open(&RealDisk, &path, "catalog", "1").await.unwrap();
        assert_eq!(again.cluster, Some(ClusterId("c".to_owned())));
        assert!(matches!(
            again.join_cluster(&RealDisk, &ClusterId("d".to_owned())).await,
            Err(IdentityError::OtherCluster { .. })
        ));
        drop(again);
        for (role, server) in [("catalog", "2"), ("region-node", "1")] {
            let error = Identity::open(&RealDisk, &path, role, server).await.unwrap_err();
            assert!(matches!(error, IdentityError::OtherServer { .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn a_folder_of_something_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("lost+found")).unwrap();
        std::fs::write(folder.path().join("photo.jpg"), b"x").unwrap();
        let open = || Identity::open(&RealDisk, folder.path(), "catalog", "1");
        assert!(matches!(open().await, Err(IdentityError::Stranger { .. })));
        std::fs::remove_file(folder.path().join("photo.jpg")).unwrap();
        open().await.unwrap();
        std::fs::write(folder.path().join(FILE), b"format = 3\nrole = catalog\nserver = 1\n").unwrap();
        assert!(matches!(open().await, Err(IdentityError::Newer { found: 3, known: 2, .. })));
        std::fs::write(folder.path().join(FILE), b"format = 1\nrole = catalog\nserver = 1\n").unwrap();
        open().await.unwrap();
        let unsealed = &b"format = 2\nrole = catalog\nserver = 1\n"[..];
        let damaged = b"format = 2\nrole = catalog\nserver = 1\ncrc32c = 00000000\n";
        for content in [&b""[..], b"\xff", b"format = x", b"format = 1\nrole = catalog", unsealed, damaged] {
            std::fs::write(folder.path().join(FILE), content).unwrap();
            assert!(matches!(open().await, Err(IdentityError::Malformed { .. })), "{content:?}");
        }
    }
}
