//! Bars that show how far something is, on a terminal only.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::transfer::Progress;

/// How often a bar moves.
const TICK: Duration = Duration::from_millis(200);

/// The part of a terminal that bars are drawn in. What is written to it appears above them.
#[derive(Clone, Default)]
pub struct Bars(MultiProgress);

impl Bars {
    /// Shows how far a transfer is for as long as `work` takes.
    pub async fn show<T>(
        &self,
        name: String,
        progress: &Arc<Progress>,
        work: impl Future<Output = T>,
    ) -> T {
        let bar = self.add(
            name,
            "{binary_bytes:>11} {binary_bytes_per_sec:>13} {eta:>4}",
        );
        let moving = async {
            loop {
                // What is to be done is known in a moment.
                if progress.planned() > 0 {
                    bar.set_length(progress.planned());
                }
                bar.set_position(progress.done());
                bar.tick();
                tokio::time::sleep(TICK).await;
            }
        };
        let done = tokio::select! {
            done = work => done,
            () = moving => unreachable!("a bar moves until the work is done"),
        };
        self.remove(&bar);
        done
    }

    /// A bar that shows what is set, with a message behind it.
    pub fn add_told(&self, name: String) -> ProgressBar {
        self.add(name, "{msg}")
    }

    fn add(&self, name: String, behind: &str) -> ProgressBar {
        let style = format!("{{prefix}} [{{bar:30}}] {{percent:>3}} % {behind}");
        let style = ProgressStyle::with_template(&style).expect("a template that is right");
        let bar = ProgressBar::no_length().with_style(style.progress_chars("=> "));
        let bar = self.0.add(bar);
        bar.set_prefix(name);
        bar
    }

    /// Takes a bar away.
    pub fn remove(&self, bar: &ProgressBar) {
        bar.finish_and_clear();
        self.0.remove(bar);
    }

    /// Does something that writes to the terminal.
    pub fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.0.suspend(write)
    }
}

impl Write for Bars {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.aside(|| io::stderr().write(text))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
