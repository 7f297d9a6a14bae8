//! The inputs that a target begins with.

use std::fs;
use std::path::{Path, PathBuf};

fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Where failing inputs are saved.
pub fn failures() -> PathBuf {
    here().join("../target/fuzz")
}

pub fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The entries of a target's folder by their names, and what is too large or too dull for a file.
///
/// # Panics
/// If there are none: a target without a corpus reaches nothing.
pub fn entries(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = here().join("corpus").join(target);
    let found =
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut entries: Vec<(String, Vec<u8>)> = found
        .map(|entry| entry.expect("the corpus can be listed").path())
        .map(|path| (path.display().to_string(), read(&path)))
        .collect();
    assert!(!entries.is_empty(), "{} is empty", folder.display());
    // In whatever order the folder has them, a seed must lead to the same mutants.
    entries.sort();
    entries.extend(made_up());
    entries
}

fn made_up() -> impl Iterator<Item = (String, Vec<u8>)> {
    const DEEP: usize = 10_000;
    const LONG: usize = 1 << 18;
    let deep = |open: &str, inner: &str, close: &str| {
        [&open.repeat(DEEP), inner, &close.repeat(DEEP)]
            .concat()
            .into_bytes()
    };
    [
        ("nothing", Vec::new()),
        ("a deep list", deep("[", "", "]")),
        ("a deep object", deep("{\"a\":", "1", "}")),
        ("a deep object without an end", deep("{\"a\":[", "", "")),
        ("zeros", vec![0; LONG]),
        ("ones", vec![0xff; LONG]),
        (
            "small objects",
            [b"[".to_vec(), b"{\"\":0},".repeat(LONG / 8), b"0]".to_vec()].concat(),
        ),
        ("many digits", vec![b'9'; LONG]),
        ("many line feeds", vec![b'\n'; LONG]),
        ("many brackets", vec![b'['; LONG]),
    ]
    .map(|(name, input)| (name.to_owned(), input))
    .into_iter()
}
