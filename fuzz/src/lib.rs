//! Hostile input for every decoder: what was recorded, what was made up, and mutants of both.
//!
//! A target is a test that gives [`run`] a name and a check. The check gets bytes and must hold for any of them.
//! Beyond what it asserts itself, it must not panic, not need more memory than goes with the length of its
//! input, and not hang. Random bytes end at a decoder's first line: inputs begin with an entry of
//! `fuzz/corpus/<target>` and are changed from there.
//!
//! | variable | means |
//! |---|---|
//! | `FUZZ_SECONDS` | how long each target is tried, from a new seed; otherwise some thousand inputs, always the same ones |
//! | `FUZZ_SEED` | the seed, to repeat a run |
//! | `FUZZ_INPUT` | a file to try instead: what a failure has saved |
//! | `FUZZ_TRACE` | whether each input is saved before it is tried, for what ends the whole process |

mod corpus;
mod mutate;
mod trial;
mod watch;
mod words;

use std::env;
use std::fmt::Display;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mutate::Mutator;
use trial::Trial;
use watch::Watch;

/// Inputs of a run that always tries the same ones.
const FEW: u64 = 5_000;

/// And how long that may take.
const SHORT: Duration = Duration::from_secs(2);

/// The longest message that an error may have, in characters: it becomes a line of the log.
const MESSAGE: usize = 2_000;

/// Bytes that a decoder may hold at a time for an input of so many bytes: a tree of JSON takes up to a hundred
/// times its text, and nothing more than what is there may be asked for.
#[must_use]
pub fn in_proportion(length: usize) -> u64 {
    (256 << 10) + 160 * length as u64
}

/// Tries a target with its corpus and with mutants of that.
///
/// # Panics
/// With the first input that fails, which is saved.
pub fn run(target: &str, check: impl Fn(&[u8])) {
    run_within(target, in_proportion, check);
}

/// The same with another limit of memory.
///
/// # Panics
/// With the first input that fails, which is saved.
pub fn run_within(target: &str, memory: fn(usize) -> u64, check: impl Fn(&[u8])) {
    let trial = Trial::new(target, memory, &check);
    if let Some(path) = env::var_os("FUZZ_INPUT") {
        trial.run(&corpus::read(&PathBuf::from(path)), "the file");
        return;
    }
    let watch = Watch::start(target);
    let entries = corpus::entries(target);
    for (name, input) in &entries {
        watch.sees(input);
        trial.run(input, name);
    }
    let seconds = env::var("FUZZ_SECONDS").ok();
    let seconds = seconds.map(|text| text.parse().expect("FUZZ_SECONDS is a number"));
    let seed = match (env::var("FUZZ_SEED"), seconds) {
        (Ok(text), _) => text.parse().expect("FUZZ_SEED is a number"),
        (Err(_), Some(_)) => fastrand::u64(..),
        (Err(_), None) => 7,
    };
    let (most, time) = match seconds {
        Some(seconds) => (u64::MAX, Duration::from_secs(seconds)),
        None => (FEW, SHORT),
    };
    let origin = format!("a mutant of seed {seed}");
    let mut mutator = Mutator::new(seed, entries.into_iter().map(|(_, input)| input).collect());
    let (begun, mut tried) = (Instant::now(), 0);
    while tried < most && begun.elapsed() < time {
        let input = mutator.next();
        watch.sees(&input);
        trial.run(&input, &origin);
        tried += 1;
    }
    println!(
        "{target}: {tried} inputs of seed {seed} in {:.1?}",
        begun.elapsed()
    );
}

/// Asserts that a text can be told as it is: not longer than a line of the log may be.
///
/// # Panics
/// If it is longer.
pub fn assert_short(error: &dyn Display) {
    let length = error.to_string().chars().count();
    assert!(length <= MESSAGE, "a message of {length} characters");
}
