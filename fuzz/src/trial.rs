//! One input, and what must not come of it.

use std::any::Any;
use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use crate::corpus;

/// Tries inputs.
pub struct Trial<'a> {
    target: &'a str,
    memory: fn(usize) -> u64,
    check: &'a dyn Fn(&[u8]),
    traced: bool,
}

impl<'a> Trial<'a> {
    pub fn new(target: &'a str, memory: fn(usize) -> u64, check: &'a dyn Fn(&[u8])) -> Self {
        let traced = env::var_os("FUZZ_TRACE").is_some();
        Self {
            target,
            memory,
            check,
            traced,
        }
    }

    /// Tries an input.
    ///
    /// # Panics
    /// If the check panics, or needs more memory than it may.
    pub fn run(&self, input: &[u8], origin: &str) {
        if self.traced {
            save(&format!("{}-traced", self.target), input);
        }
        let mut ended = Ok(());
        let memory = allocation_counter::measure(|| {
            // What is caught here would leave the counter off balance.
            ended = catch_unwind(AssertUnwindSafe(|| (self.check)(input)));
        });
        let (most, may) = (memory.bytes_max, (self.memory)(input.len()));
        let reason = match ended {
            Err(panic) => words(&*panic),
            Ok(()) if most > may => format!("it held {most} bytes at a time, and may hold {may}"),
            Ok(()) => return,
        };
        let hash = {
            let mut hasher = DefaultHasher::new();
            input.hash(&mut hasher);
            hasher.finish()
        };
        let saved = save(&format!("{}-{hash:016x}", self.target), input);
        let length = input.len();
        panic!(
            "{}: {reason}\n{length} bytes ({origin}) do so: {}\nAgain: {}\nTo keep it: copy it to fuzz/corpus/{}",
            self.target,
            beginning(input),
            again(self.target, &saved),
            self.target,
        );
    }
}

/// Saves an input; where.
pub fn save(name: &str, input: &[u8]) -> PathBuf {
    let folder = corpus::failures();
    fs::create_dir_all(&folder).expect("target can be written");
    let folder = folder.canonicalize().expect("it was made");
    let path = folder.join(name);
    fs::write(&path, input).expect("target can be written");
    path
}

/// The command that tries a saved input again.
pub fn again(target: &str, saved: &std::path::Path) -> String {
    let package = env::var("CARGO_PKG_NAME").unwrap_or_else(|_| "cinderblock-fuzz".to_owned());
    let kind = match package.as_str() {
        "cinderblock-fuzz" => "",
        _ => " --lib",
    };
    format!(
        "FUZZ_INPUT={} cargo test -p {package}{kind} {target}",
        saved.display()
    )
}

fn beginning(input: &[u8]) -> String {
    const SHOWN: usize = 300;
    let shown = &input[..input.len().min(SHOWN)];
    let rest = if input.len() > SHOWN { "…" } else { "" };
    format!("{}{rest}", shown.escape_ascii())
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panics").chars().take(2_000).collect()
}
