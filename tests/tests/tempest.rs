//! What OpenStack's own integration tests say of backups.

use anyhow::{Context, Result, ensure};
use cinderblock_tests::Lab;

#[tokio::test]
async fn openstacks_own_tests_pass() -> Result<()> {
    let lab = Lab::from_env()?;
    let said = lab.command(&["tempest"]).await?;
    println!("{said}");
    // Nothing but what the lab itself leaves out and names: a test that is skipped shows nothing.
    ensure!(count(&said, "Skipped")? == 0, "some tests were skipped");
    ensure!(count(&said, "Passed")? > 0, "no test was run");
    Ok(())
}

/// The number in one line of the totals, such as ` - Passed: 38`.
fn count(said: &str, what: &str) -> Result<u32> {
    let prefix = format!(" - {what}: ");
    let mut lines = said.lines().filter_map(|line| line.strip_prefix(&prefix));
    Ok(lines.next().context("no totals")?.parse()?)
}
