//! `afdg dev`: a whole grid in one process, for development.

mod ready;

pub use ready::Ready;

pub struct DevGrid;
impl DevGrid {
    pub async fn stop_node(&mut self, _: &str) -> anyhow::Result<()> {
        Ok(())
    }
    pub async fn start_node(&mut self, _: &str) -> anyhow::Result<()> {
        Ok(())
    }
}
