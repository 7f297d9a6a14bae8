//! One declaration per option: its name, type, default, limits, old names and help.
//!
//! The macro `options!` makes a struct of typed fields out of such declarations, a constructor
//! that reads them, and a table of [`OptionSpec`] from which the sample file, the environment
//! variables and the old names are derived.

use super::error::Reason;
use super::value::{Limits, OptionType};

/// Where the value of an option comes from that nobody set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Default {
    /// There is none.
    None,
    /// A text in the syntax of a configuration file; `$name` is substituted.
    Text(&'static str),
    /// The machine's host name.
    Hostname,
    /// The machine's primary IP address.
    Address,
    /// The program's name.
    Program,
}

/// What an option does here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// What it says.
    Honoured,
    /// Nothing, although somebody who sets it may miss what it does for Python's worker.
    Missing,
    /// Nothing, and nobody misses it.
    Needless,
}

/// An option before its name and type are known: what stands behind `=` in `options!`.
#[derive(Debug, Clone, Copy)]
pub struct Declaration {
    default: Default,
    limits: Limits,
    old_names: &'static [(&'static str, &'static str)],
}

/// Declares an option with a default.
pub(super) const fn default(text: &'static str) -> Declaration {
    from(Default::Text(text))
}

/// Declares an option without a default.
pub(super) const fn unset() -> Declaration {
    from(Default::None)
}

/// Declares an option whose default is not a constant.
pub(super) const fn from(default: Default) -> Declaration {
    let (min, max) = (None, None);
    Declaration {
        default,
        limits: Limits { min, max },
        old_names: &[],
    }
}

impl Declaration {
    /// Smallest value allowed.
    pub(super) const fn min(mut self, min: f64) -> Self {
        self.limits.min = Some(min);
        self
    }

    /// Largest value allowed.
    pub(super) const fn max(mut self, max: f64) -> Self {
        self.limits.max = Some(max);
        self
    }

    /// Sections and names under which releases since Zed accept the option as well.
    pub(super) const fn formerly(mut self, names: &'static [(&'static str, &'static str)]) -> Self {
        self.old_names = names;
        self
    }

    /// The option as type `T`, which is accepted and has no effect here, and somebody may miss it.
    pub(super) const fn missing<T: OptionType>(
        self,
        group: &'static str,
        name: &'static str,
        help: &'static [&'static str],
    ) -> OptionSpec {
        OptionSpec {
            effect: Effect::Missing,
            ..self.named::<T>(group, name, help)
        }
    }

    /// The same of one that nobody misses.
    pub(super) const fn needless<T: OptionType>(
        self,
        group: &'static str,
        name: &'static str,
        help: &'static [&'static str],
    ) -> OptionSpec {
        OptionSpec {
            effect: Effect::Needless,
            ..self.named::<T>(group, name, help)
        }
    }

    /// The option as type `T`.
    pub(super) const fn named<T: OptionType>(
        self,
        group: &'static str,
        name: &'static str,
        help: &'static [&'static str],
    ) -> OptionSpec {
        OptionSpec {
            group,
            name,
            help,
            default: self.default,
            limits: self.limits,
            old_names: self.old_names,
            effect: Effect::Honoured,
            type_name: T::TYPE_NAME,
            choices: T::CHOICES,
            secret: T::SECRET,
            multi: T::MULTI,
            text: |texts, limits| T::parse(texts, limits).map(|value| value.text()),
        }
    }
}

/// Everything known about an option.
#[derive(Debug, Clone, Copy)]
pub struct OptionSpec {
    /// Section, as it is looked up: `DEFAULT` or lower case.
    pub group: &'static str,
    /// Name.
    pub name: &'static str,
    /// What it does, in lines of prose; what counts instead, if it has no effect.
    pub help: &'static [&'static str],
    /// Its default.
    pub default: Default,
    /// Bounds of a number.
    pub limits: Limits,
    /// Sections and names under which it is accepted as well.
    pub old_names: &'static [(&'static str, &'static str)],
    /// Whether the service does what it says.
    pub effect: Effect,
    /// oslo.config's name for its type.
    pub type_name: &'static str,
    /// What may stand there, if that is a closed list.
    pub choices: &'static [&'static str],
    /// Whether its value must never be shown.
    pub secret: bool,
    /// Whether all its occurrences count.
    pub multi: bool,
    /// Checks the texts and tells what `$name` of this option stands for, if for anything.
    pub(super) text: fn(&[String], Limits) -> Result<Option<String>, Reason>,
}

impl OptionSpec {
    /// Whether the service does what it says.
    #[must_use]
    pub fn has_effect(&self) -> bool {
        self.effect == Effect::Honoured
    }

    /// The help as one text.
    pub(super) fn prose(&self) -> String {
        let lines: Vec<&str> = self.help.iter().map(|line| line.trim()).collect();
        lines.join(" ")
    }
}

/// Declares the options of one topic as a struct.
macro_rules! options {
    (
        $(#[$doc:meta])*
        pub struct $section:ident in $group:literal {
            $($(#[doc = $help:literal])+ $name:ident: $type:ty = $declaration:expr,)+
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $section {
            $($(#[doc = $help])+ pub $name: $type,)+
        }

        impl $section {
            /// The declarations behind the fields.
            pub const OPTIONS: &'static [$crate::config::registry::OptionSpec] = &[
                $($declaration.named::<$type>($group, stringify!($name), &[$($help),+]),)+
            ];

            /// Notes every value that cannot be used.
            pub(in $crate::config) fn read(
                reader: &$crate::config::reader::Reader<'_>,
            ) -> Result<Self, $crate::config::reader::Noted> {
                $(let $name = reader.note(reader.read(
                    &$declaration.named::<$type>($group, stringify!($name), &[$($help),+]),
                ));)+
                Ok(Self { $($name: $name?,)+ })
            }
        }
    };
}
pub(super) use options;
