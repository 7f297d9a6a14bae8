//! Why a configuration cannot be used.

use std::fmt;
use std::path::PathBuf;

use super::database_url::DatabaseUrlError;
use super::transport_url::TransportUrlError;

/// A configuration that cannot be used. Every kind means the same to the program: say this text
/// and exit. No text holds the value of a secret option.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Files named on the command line do not exist.
    #[error("Failed to find some config files: {}", paths(.0))]
    FilesNotFound(Vec<PathBuf>),
    /// Files exist that this user may not read.
    #[error("Failed to open some config files: {}", paths(.0))]
    PermissionDenied(Vec<PathBuf>),
    /// A directory named on the command line does not exist.
    #[error("Failed to read config file directory: {}", .0.display())]
    DirectoryNotFound(PathBuf),
    /// A file or directory could not be read.
    // Not as a source: whoever prints the chain of sources would print it twice.
    #[error("Failed to read {}: {error}", .path.display())]
    Unreadable {
        /// What was to be read.
        path: PathBuf,
        /// The operating system's answer.
        error: std::io::Error,
    },
    /// A file holds bytes that are not UTF-8.
    #[error("Failed to parse {}: it is not UTF-8", .0.display())]
    NotUtf8(PathBuf),
    /// A line breaks the grammar. The line's text is left out: it may hold a password.
    #[error("Failed to parse {}:{line}: {reason}", .file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: super::ini::SyntaxReason,
    },
    /// What the sources say cannot be merged.
    #[error("Failed to merge the configuration: {0}")]
    Layers(String),
    /// An option's value cannot be used.
    #[error("[{group}] {name} ({origin}): {reason}")]
    Value {
        /// Section of the option.
        group: &'static str,
        /// Name of the option.
        name: &'static str,
        /// Where the value comes from.
        origin: Origin,
        /// What is wrong with it.
        reason: Reason,
    },
    /// A transport URL's query names something that is not an option of `[oslo_messaging_rabbit]`.
    #[error("[{group}] transport_url: its query sets {name:?}, which is no option")]
    UnknownQueryOption {
        /// Section of the URL.
        group: &'static str,
        /// The name in the query.
        name: String,
    },
    /// Several options cannot be used; all of them, two at least.
    #[error("{} options cannot be used:\n  {}", .0.len(), lines(.0))]
    Several(Vec<ConfigError>),
}

fn lines(errors: &[ConfigError]) -> String {
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    errors.join("\n  ")
}

fn paths(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    paths.join(",")
}

/// Where a value comes from, as an operator would look for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A configuration file.
    File(PathBuf),
    /// An environment variable, by name.
    Environment(String),
    /// An option on the command line.
    CommandLine,
    /// The query of a transport URL.
    TransportUrl,
    /// The option's default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(out, "in {}", path.display()),
            Self::Environment(name) => write!(out, "environment variable {name}"),
            Self::CommandLine => out.write_str("on the command line"),
            Self::TransportUrl => out.write_str("in the query of transport_url"),
            Self::Default => out.write_str("default"),
        }
    }
}

/// The integers that an option can hold, both ends inclusive. An end that only computers know is
/// none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The smallest.
    pub min: Option<i64>,
    /// The largest.
    pub max: Option<i64>,
}

impl fmt::Display for Range {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min, self.max) {
            (Some(min), Some(max)) => write!(out, " from {min} to {max}"),
            (Some(min), None) => write!(out, " that is {min} or more"),
            (None, Some(max)) => write!(out, " that is {max} or less"),
            (None, None) => Ok(()),
        }
    }
}

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Reason {
    /// Nothing stands where a value is needed.
    #[error("a value is required")]
    Missing,
    /// Not one of oslo.config's spellings of true and false.
    #[error("unexpected boolean value {0:?}: use true or false")]
    NotABoolean(String),
    /// Not a decimal integer of the option's size.
    #[error("{text:?} is not an integer{range}")]
    NotAnInteger {
        /// What stands there.
        text: String,
        /// What may stand there.
        range: Range,
    },
    /// Not a finite decimal number.
    #[error("{0:?} is not a number")]
    NotANumber(String),
    /// Not the address of a host with a port.
    #[error("{0:?} is no address with a port, as 127.0.0.1:9754 or [::]:9754")]
    NotAnAddress(String),
    /// Below the option's minimum.
    #[error("should be greater than or equal to {0}")]
    TooSmall(f64),
    /// Above the option's maximum.
    #[error("should be less than or equal to {0}")]
    TooLarge(f64),
    /// Not one of the option's choices.
    #[error("valid values are {}, but found {found:?}", .choices.join(", "))]
    NotAChoice {
        /// What may stand here.
        choices: &'static [&'static str],
        /// What stands here.
        found: String,
    },
    /// `$name` of an option that is neither known nor set in any file.
    #[error("refers to an unknown option ${0} (a literal $ is written $$)")]
    UnknownReference(String),
    /// As [`Reason::UnknownReference`] in a secret, of which the name may be a part.
    #[error("refers to an unknown option (a literal $ is written $$)")]
    UnknownReferenceInSecret,
    /// `$name` leads back to itself.
    #[error("refers to itself")]
    Recursion,
    /// `$name` stands for what refers to more and more.
    #[error("refers to more than {0} values, with all that those refer to")]
    TooManyReferences(usize),
    /// `$name` of an option that is no single text, as a list.
    #[error("refers to ${0}, which is no single text")]
    NoText(String),
    /// A transport URL that cannot be used.
    #[error(transparent)]
    TransportUrl(#[from] TransportUrlError),
    /// A database URL that cannot be used.
    #[error(transparent)]
    DatabaseUrl(#[from] DatabaseUrlError),
    /// A value of the right type that the service cannot work with.
    #[error("{0}")]
    Unusable(String),
}
