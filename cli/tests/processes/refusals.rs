//! What a server does not start on: it says why on standard error, and its exit code says of which kind.

use crate::AFDG;
use afdg_tests::processes::{Options, Processes};
use anyhow::{Result, ensure};
use std::{fs, time::Duration};

/// The command line or the file is wrong; nothing was done.
const USAGE: i32 = 2;
/// The server could not start.
const SERVER_FAILED: i32 = 3;
/// A start that is refused takes a moment.
const LIMIT: Duration = Duration::from_secs(30);

/// Starts another server of the role, with a file that is a running one's with `changes`; it has to end
/// with `code` and say `what`.
async fn is_refused(
    grid: &mut Processes,
    like: (&str, &str),
    changes: &[(&str, &str)],
    code: i32,
    what: &str,
) -> Result<()> {
    let (role, server) = like;
    let mut text = fs::read_to_string(grid.folder().join(format!("{server}.toml")))?;
    for (before, after) in changes {
        ensure!(text.contains(before), "{server}'s file does not hold '{before}'");
        text = text.replacen(before, after, 1);
    }
    fs::write(grid.folder().join("refused.toml"), text)?;
    let arguments = ["server", role, "--config", "refused.toml"];
    let (status, told) = grid.run_to_end(&arguments, LIMIT).await?;
    ensure!(status.code() == Some(code), "with {changes:?} it ended with {status}, and told: {told}");
    ensure!(told.contains(what), "with {changes:?} it told nothing of '{what}': {told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_does_not_start_on_it_names() -> Result<()> {
    let mut grid = Processes::start(AFDG, Options::smallest()).await?;
    let listen = |grid: &Processes, server: &str| -> Result<String> {
        let text = fs::read_to_string(grid.folder().join(format!("{server}.toml")))?;
        Ok(text.lines().find(|line| line.starts_with("listen =")).unwrap_or_default().to_owned())
    };
    let (node, catalog) = (("region-node", "node-1"), ("catalog", "catalog-1"));
    let (node_listen, catalog_listen) = (listen(&grid, "node-1")?, listen(&grid, "catalog-1")?);
    let elsewhere = "listen = \"127.0.0.1:0\"";

    // Files.
    let unknown = [(node_listen.as_str(), "lisen = \"127.0.0.1:0\"")];
    is_refused(&mut grid, node, &unknown, USAGE, "unknown field `lisen`").await?;
    let wrong = [("zone = \"zone-1\"", "zone = \"zone-1\"\ncache_bytes = -1")];
    is_refused(&mut grid, node, &wrong, USAGE, "refused.toml:").await?;
    let missing = [("name = \"node-1\"\n", "")];
    is_refused(&mut grid, node, &missing, USAGE, "'name' is missing").await?;
    let not_among = [("id = 1\n", "id = 7\n")];
    is_refused(&mut grid, catalog, &not_among, USAGE, "7").await?;

    // A folder or an address that is in use: nothing of the running server is touched.
    let in_use = "is in use by a server that runs";
    is_refused(&mut grid, node, &[(&node_listen, elsewhere)], SERVER_FAILED, in_use).await?;
    is_refused(&mut grid, catalog, &[(&catalog_listen, elsewhere)], SERVER_FAILED, in_use).await?;
    let address_taken = [("data = \"node-1\"", "data = \"new\""), ("name = \"node-1\"", "name = \"new\"")];
    is_refused(&mut grid, node, &address_taken, SERVER_FAILED, "can't listen on").await?;

    // A folder of another server, of another cluster, of something else.
    grid.kill("node-1")?;
    let other_name = [("name = \"node-1\"", "name = \"node-2\"")];
    is_refused(&mut grid, node, &other_name, SERVER_FAILED, "holds the data of the region-node 'node-1'")
        .await?;
    let other_role = [("data = \"catalog-1\"", "data = \"node-1\"")];
    grid.kill("catalog-1")?;
    is_refused(&mut grid, catalog, &other_role, SERVER_FAILED, "holds the data of the region-node 'node-1'")
        .await?;
    fs::create_dir(grid.folder().join("photos"))?;
    fs::write(grid.folder().join("photos/photo.jpg"), "x")?;
    let photos = [("data = \"node-1\"", "data = \"photos\"")];
    is_refused(&mut grid, node, &photos, SERVER_FAILED, "is no server's data").await?;
    let listed: Vec<_> = fs::read_dir(grid.folder().join("photos"))?.collect();
    ensure!(listed.len() == 1, "something was put beside the photo: {listed:?}");
    // The catalog begins anew and forms another cluster, of which the node's data is not.
    fs::rename(grid.folder().join("catalog-1"), grid.folder().join("catalog-before"))?;
    grid.restart("catalog-1")?;
    is_refused(&mut grid, node, &[], SERVER_FAILED, "the data is of cluster").await?;

    // With what it had before, all is well: no refusal has changed anything.
    grid.kill("catalog-1")?;
    fs::remove_dir_all(grid.folder().join("catalog-1"))?;
    fs::rename(grid.folder().join("catalog-before"), grid.folder().join("catalog-1"))?;
    grid.start_all()?;
    grid.until_well().await?;
    grid.finish()
}
