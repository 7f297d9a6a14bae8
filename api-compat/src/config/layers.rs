//! The layers that are merged: files below the environment below the command line.

use std::collections::BTreeMap;

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::error::Origin;
use super::ini::Ini;
use super::options;

const ENVIRONMENT: &str = "environment";
const COMMAND_LINE: &str = "command line";

/// Merges what the sources say: later files over earlier ones, the environment over the files,
/// the command line over all. All occurrences of an option in files are kept, in order.
pub(super) fn merge(
    files: Vec<Ini>,
    environment: &BTreeMap<String, String>,
    command_line: &[(String, String)],
) -> Figment {
    let files = files.into_iter().fold(Figment::new(), Figment::admerge);
    let environment = options::all().filter_map(|spec| {
        let text = environment.get(&variable(spec.group, spec.name))?;
        Some((spec.group, spec.name, text.as_str()))
    });
    let command_line = command_line
        .iter()
        .map(|(name, text)| ("DEFAULT", name.as_str(), text.as_str()));
    files
        .merge(Layer::new(ENVIRONMENT, environment))
        .merge(Layer::new(COMMAND_LINE, command_line))
}

/// The environment variable of an option.
fn variable(group: &str, name: &str) -> String {
    format!("OS_{group}__{name}").to_uppercase()
}

/// Where the layer with this metadata found the option.
pub(super) fn origin(metadata: &Metadata, group: &str, name: &str) -> Origin {
    match metadata.source.as_ref().and_then(|s| s.file_path()) {
        Some(path) => Origin::File(path.to_owned()),
        None if metadata.name == ENVIRONMENT => Origin::Environment(variable(group, name)),
        None => Origin::CommandLine,
    }
}

/// One text per option.
struct Layer {
    name: &'static str,
    sections: Dict,
}

impl Layer {
    fn new<'a>(
        name: &'static str,
        options: impl Iterator<Item = (&'a str, &'a str, &'a str)>,
    ) -> Self {
        let mut sections: BTreeMap<String, Dict> = BTreeMap::new();
        for (group, name, text) in options {
            let section = sections.entry(group.to_owned()).or_default();
            section.insert(name.to_owned(), Value::from(vec![text]));
        }
        let sections = sections
            .into_iter()
            .map(|(name, section)| (name, Value::from(section)))
            .collect();
        Self { name, sections }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.sections.clone()))
    }
}
