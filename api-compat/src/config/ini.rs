//! oslo.config's INI dialect (`oslo_config/iniparser.py`), which no INI crate reads as it does.
//!
//! Comments start in column 0 only; a comment sign inside a value belongs to it. An indented line
//! continues the value above it, even if it looks like a comment. One pair of matching quotes
//! around the value's first line is removed. Section names are case-insensitive except `DEFAULT`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use super::error::ConfigError;

/// Section → option → every value that the file gives it, in order.
pub type Sections = BTreeMap<String, BTreeMap<String, Vec<String>>>;

/// A parsed file: a figment provider of `section.option = [value, …]`.
#[derive(Clone)]
pub struct Ini {
    /// Where the text came from.
    pub path: PathBuf,
    /// What it says.
    pub sections: Sections,
}

/// Why a line breaks the grammar, in oslo.config's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxReason {
    /// An indented line that follows no assignment.
    #[error("Unexpected continuation line")]
    UnexpectedContinuation,
    /// Neither a comment nor a section nor an assignment.
    #[error("No ':' or '=' found in assignment")]
    NoSeparator,
    /// Nothing before the separator.
    #[error("Key cannot be empty")]
    EmptyKey,
    /// `[name` without its end.
    #[error("Invalid section (must end with ])")]
    UnclosedSection,
    /// `[]`.
    #[error("Empty section name")]
    EmptySection,
    /// An assignment above the first section.
    #[error("Section must be started before assignment")]
    NoSection,
}

impl Ini {
    /// Parses the text of the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`] with the first line that breaks the grammar.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut parser = Parser::default();
        for line in lines(text) {
            parser.number += 1;
            parser
                .line(trim_end(line))
                .map_err(|reason| ConfigError::Syntax {
                    file: path.to_owned(),
                    line: parser.number,
                    reason,
                })?;
        }
        parser.flush();
        Ok(Self {
            path: path.to_owned(),
            sections: parser.sections,
        })
    }
}

impl Provider for Ini {
    fn metadata(&self) -> Metadata {
        Metadata::from("oslo.config file", self.path.as_path())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let sections = self.sections.iter().map(|(name, options)| {
            let options = options
                .iter()
                .map(|(name, values)| (name.clone(), Value::from(values.clone())));
            (name.clone(), Value::from(options.collect::<Dict>()))
        });
        Ok(Profile::Default.collect(sections.collect()))
    }
}

#[derive(Default)]
struct Parser {
    number: usize,
    section: Option<String>,
    /// Option and value lines of an assignment that may still be continued.
    open: Option<(String, Vec<String>)>,
    sections: Sections,
}

impl Parser {
    fn line(&mut self, line: &str) -> Result<(), SyntaxReason> {
        if line.is_empty() {
            self.flush();
        } else if line.starts_with([' ', '\t']) {
            let (_, value) = self
                .open
                .as_mut()
                .ok_or(SyntaxReason::UnexpectedContinuation)?;
            value.push(trim_start(line).to_owned());
        } else {
            self.flush();
            if line.starts_with('[') {
                self.start_section(line)?;
            } else if !line.starts_with(['#', ';']) {
                self.open = Some(self.assignment(line)?);
            }
        }
        Ok(())
    }

    fn start_section(&mut self, line: &str) -> Result<(), SyntaxReason> {
        let name = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .ok_or(SyntaxReason::UnclosedSection)?;
        if name.is_empty() {
            return Err(SyntaxReason::EmptySection);
        }
        let name = normalized(name);
        self.sections.entry(name.clone()).or_default();
        self.section = Some(name);
        Ok(())
    }

    fn assignment(&self, line: &str) -> Result<(String, Vec<String>), SyntaxReason> {
        let (name, value) = line
            .split_once(['=', ':'])
            .ok_or(SyntaxReason::NoSeparator)?;
        let name = trim(name);
        if name.is_empty() {
            return Err(SyntaxReason::EmptyKey);
        }
        if self.section.is_none() {
            return Err(SyntaxReason::NoSection);
        }
        Ok((name.to_owned(), vec![unquoted(trim(value)).to_owned()]))
    }

    fn flush(&mut self) {
        if let (Some((name, value)), Some(section)) = (self.open.take(), &self.section) {
            let options = self.sections.entry(section.clone()).or_default();
            options.entry(name).or_default().push(value.join("\n"));
        }
    }
}

/// A section's name as it is looked up.
pub(super) fn normalized(section: &str) -> String {
    if section == "DEFAULT" {
        section.to_owned()
    } else {
        section.to_lowercase()
    }
}

/// Python's universal newlines: `\n`, `\r\n` and a lone `\r` end a line, nothing else does.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| {
        let line = line.strip_suffix('\r').unwrap_or(line);
        line.split('\r')
    })
}

fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(rest) = value.strip_prefix(quote) {
            // A single quote sign alone is both ends of itself.
            return match rest.strip_suffix(quote) {
                Some(inner) => inner,
                None if rest.is_empty() => "",
                None => value,
            };
        }
    }
    value
}

/// What Python's `str.strip` takes for white space.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

fn trim(text: &str) -> &str {
    text.trim_matches(is_space)
}

fn trim_start(text: &str) -> &str {
    text.trim_start_matches(is_space)
}

fn trim_end(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Case {
        text: String,
        sections: Option<Sections>,
        error: Option<String>,
        line: Option<usize>,
    }

    #[test]
    fn reads_what_the_real_parser_reads() {
        let cases = include_str!("../../tests/fixtures/oslo_config/ini.json");
        let cases: Vec<Case> = serde_json::from_str(cases).unwrap();
        for case in cases {
            let parsed = Ini::parse(Path::new("x.conf"), &case.text);
            match (parsed, case.sections, case.error) {
                (Ok(ini), Some(expected), None) => {
                    assert_eq!(ini.sections, expected, "{:?}", case.text);
                }
                (Err(ConfigError::Syntax { line, reason, .. }), None, Some(expected)) => {
                    assert_eq!(reason.to_string(), expected, "{:?}", case.text);
                    // Python tells the line where it noticed a missing section: the next one.
                    if reason != SyntaxReason::NoSection {
                        assert_eq!(Some(line), case.line, "{:?}", case.text);
                    }
                }
                (parsed, ..) => panic!("{:?}: {:?}", case.text, parsed.map(|ini| ini.sections)),
            }
        }
    }

    #[test]
    fn errors_name_file_and_line_but_not_the_text() {
        let text = "[DEFAULT]\n\n  connection = mysql://u:hunter2@h/db\n";
        let error = Ini::parse(Path::new("/etc/x.conf"), text).err().unwrap();
        assert_eq!(
            error.to_string(),
            "Failed to parse /etc/x.conf:3: Unexpected continuation line"
        );
    }

    #[test]
    fn provider_gives_every_occurrence_and_its_file() {
        let ini = Ini::parse(Path::new("/x.conf"), "[n]\nd = 1\nd = 2\n").unwrap();
        let figment = figment::Figment::from(ini);
        let value = figment.find_value("n.d").unwrap();
        assert_eq!(
            value.as_array().unwrap().len(),
            2,
            "both occurrences are kept"
        );
        let metadata = figment.get_metadata(value.tag()).unwrap();
        let file = metadata.source.as_ref().and_then(|s| s.file_path());
        assert_eq!(file, Some(Path::new("/x.conf")));
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<String>()) {
            let _ = Ini::parse(Path::new("x"), &text);
        }

        #[test]
        fn never_panics_on_what_looks_like_a_file(text in "([\\[\\]=:#;'\" \t\r\nab]|é){0,80}") {
            let _ = Ini::parse(Path::new("x"), &text);
        }

        #[test]
        fn simple_values_come_back(
            section in "[a-z_]{1,8}",
            values in prop::collection::btree_map(
                "[a-z][a-z_0-9]{0,12}",
                prop::collection::vec("[a-zA-Z0-9/$%#;:=,.@]([ -~]{0,20}[a-zA-Z0-9/$%#;:=,.@])?", 1..4),
                1..6,
            ),
        ) {
            let mut text = format!("[{section}]\n");
            for (name, occurrences) in &values {
                for value in occurrences {
                    text.push_str(&format!("{name} = {value}\n"));
                }
            }
            let ini = Ini::parse(Path::new("x"), &text).unwrap();
            prop_assert_eq!(&ini.sections[&section], &values);
        }
    }
}
