//! From merged layers to typed values: finding, substituting, parsing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use figment::Figment;
use figment::value::{Dict, Value};

use super::error::{ConfigError, Origin, Reason};
use super::layers;
use super::options;
use super::options::keys::OF_SESSION;
use super::registry::{Default, OptionSpec};
use super::substitute::substitute;
use super::value::OptionType;

/// Defaults that are not constants.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Host name, as `gethostname()` tells it.
    pub hostname: String,
    /// Primary IP address.
    pub address: String,
    /// Name of the program: `cinder-backup`.
    pub program: String,
}

/// Reads options out of the merged layers.
pub(super) struct Reader<'a> {
    layers: &'a Figment,
    root: Dict,
    machine: &'a Machine,
    /// What a transport URL's query says about `[oslo_messaging_rabbit]`.
    query: Option<&'a BTreeMap<String, String>>,
    /// What cannot be used, so that all of it is told at once.
    noted: Rc<RefCell<Vec<ConfigError>>>,
}

/// That the reader has noted an error at least.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noted(());

/// The most values that one may refer to, with all that those refer to: a few options that each refer to the next
/// one twice would keep a start busy for ever.
const MOST_REFERENCES: usize = 1_000;

/// What it takes to notice substitutions without an end.
#[derive(Default)]
struct Trail {
    /// Options that are being substituted.
    open: Vec<(String, String)>,
    /// How many have been.
    count: usize,
}

impl<'a> Reader<'a> {
    /// A reader of `layers`, which give `section.option = [text, …]`.
    ///
    /// # Errors
    /// [`ConfigError::Layers`] when the layers cannot be merged.
    pub(super) fn new(layers: &'a Figment, machine: &'a Machine) -> Result<Self, ConfigError> {
        let profiles = figment::Provider::data(layers);
        let mut profiles = profiles.map_err(|error| ConfigError::Layers(error.to_string()))?;
        let mut root = profiles
            .remove(&figment::Profile::Default)
            .unwrap_or_default();
        follow_auth_sections(&mut root);
        Ok(Self {
            layers,
            root,
            machine,
            query: None,
            noted: Rc::default(),
        })
    }

    /// The same reader with the options in a transport URL's query above all others.
    pub(super) fn with_query(&self, query: &'a BTreeMap<String, String>) -> Self {
        Self {
            root: self.root.clone(),
            query: Some(query),
            noted: self.noted.clone(),
            ..*self
        }
    }

    /// The value, or a token of the error that is noted.
    pub(super) fn note<T>(&self, outcome: Result<T, ConfigError>) -> Result<T, Noted> {
        outcome.map_err(|error| {
            let mut noted = self.noted.borrow_mut();
            let same = |other: &ConfigError| other.to_string() == error.to_string();
            // Some options are read for two transports.
            if !noted.iter().any(same) {
                noted.push(error);
            }
            Noted(())
        })
    }

    /// Everything that was noted, as one error.
    pub(super) fn error_of(&self, _: Noted) -> ConfigError {
        let mut noted = self.noted.take();
        match noted.len() {
            1 => noted.remove(0),
            _ => ConfigError::Several(noted),
        }
    }

    /// The value of an option.
    ///
    /// # Errors
    /// [`ConfigError::Value`] when it cannot be substituted or parsed.
    pub(super) fn read<T: OptionType>(&self, spec: &OptionSpec) -> Result<T, ConfigError> {
        let overridden = self.query.and_then(|query| query.get(spec.name));
        let value = match overridden {
            Some(text) => T::parse(std::slice::from_ref(text), spec.limits),
            None => self
                .texts(spec, &mut Trail::default())
                .and_then(|texts| T::parse(&texts, spec.limits)),
        };
        value.map_err(|reason| match overridden {
            Some(_) => ConfigError::Value {
                group: spec.group,
                name: spec.name,
                origin: Origin::TransportUrl,
                reason,
            },
            None => self.error(spec.group, spec.name, reason),
        })
    }

    /// The error that an option's value in the layers cannot be used.
    pub(super) fn error(
        &self,
        group: &'static str,
        name: &'static str,
        reason: Reason,
    ) -> ConfigError {
        ConfigError::Value {
            group,
            name,
            origin: self.origin(group, name),
            reason,
        }
    }

    /// Where the value of an option comes from.
    pub(super) fn origin(&self, group: &str, name: &str) -> Origin {
        self.occurrences(group, name)
            .and_then(<[Value]>::last)
            .and_then(|value| self.layers.get_metadata(value.tag()))
            .map_or(Origin::Default, |metadata| {
                layers::origin(metadata, group, name)
            })
    }

    /// Where an option is set to something else than its default, if it is.
    pub(super) fn changed(&self, spec: &OptionSpec) -> Option<Origin> {
        let set = self.raw(spec.group, spec.name)?;
        let typed = |texts: &[String]| {
            let text = (spec.text)(texts, spec.limits).ok().flatten();
            // Of a list, and of what the option cannot hold.
            let text = text.unwrap_or_else(|| texts.concat());
            // Files cannot hold the blanks that some defaults end with.
            text.trim_end().to_owned()
        };
        let default = match spec.default {
            Default::Text(text) => typed(&[text.to_owned()]),
            _ => typed(&[]),
        };
        (typed(&set) != default).then(|| self.origin(spec.group, spec.name))
    }

    fn occurrences(&self, group: &str, name: &str) -> Option<&[Value]> {
        self.root.get(group)?.as_dict()?.get(name)?.as_array()
    }

    fn raw(&self, group: &str, name: &str) -> Option<Vec<String>> {
        let values = self.occurrences(group, name)?;
        let texts = values.iter().filter_map(Value::as_str).map(str::to_owned);
        Some(texts.collect())
    }

    /// The texts that an option has, references substituted.
    fn texts(&self, spec: &OptionSpec, trail: &mut Trail) -> Result<Vec<String>, Reason> {
        let machine = self.machine;
        let texts = match (self.raw(spec.group, spec.name), spec.default) {
            (Some(texts), _) => texts,
            (None, Default::None) => Vec::new(),
            (None, Default::Text(text)) => vec![text.to_owned()],
            (None, Default::Hostname) => return Ok(vec![machine.hostname.clone()]),
            (None, Default::Address) => return Ok(vec![machine.address.clone()]),
            (None, Default::Program) => return Ok(vec![machine.program.clone()]),
        };
        self.substituted(spec.group, spec.name, texts, trail)
            .map_err(|reason| match reason {
                Reason::UnknownReference(_) if spec.secret => Reason::UnknownReferenceInSecret,
                reason => reason,
            })
    }

    fn substituted(
        &self,
        group: &str,
        name: &str,
        texts: Vec<String>,
        trail: &mut Trail,
    ) -> Result<Vec<String>, Reason> {
        let place = (group.to_owned(), name.to_owned());
        if trail.open.contains(&place) {
            return Err(Reason::Recursion);
        }
        trail.count += 1;
        if trail.count > MOST_REFERENCES {
            return Err(Reason::TooManyReferences(MOST_REFERENCES));
        }
        trail.open.push(place);
        let texts = texts
            .iter()
            .map(|text| substitute(text, |name| self.resolve(group, name, trail)))
            .collect();
        trail.open.pop();
        texts
    }

    /// What `$reference` in an option of `group` stands for. oslo.config looks into the same
    /// section first, then into DEFAULT; `section.name` says where to look
    /// (`ConfigOpts.StrSubWrapper`).
    fn resolve(&self, group: &str, reference: &str, trail: &mut Trail) -> Result<String, Reason> {
        let places = match reference.split_once('.') {
            Some(("DEFAULT", _)) => vec![],
            Some(place) => vec![place],
            None => vec![(group, reference), ("DEFAULT", reference)],
        };
        for (group, name) in places {
            if let Some(spec) = options::find(group, name) {
                let texts = self.texts(spec, trail)?;
                return (spec.text)(&texts, spec.limits)?
                    .ok_or_else(|| Reason::NoText(reference.to_owned()));
            }
            // An option of another service, whose type is not known here.
            if let Some(texts) = self.raw(group, name) {
                let texts = self.substituted(group, name, texts, trail)?;
                return Ok(texts.into_iter().next_back().unwrap_or_default());
            }
        }
        Err(Reason::UnknownReference(reference.to_owned()))
    }
}

/// Puts what tells who logs in to Keystone where it is read: from the section that `auth_section`
/// names (keystoneauth's `loading/conf.py`).
fn follow_auth_sections(root: &mut Dict) {
    let groups = options::all().filter(|spec| spec.name == "auth_section");
    for group in groups.map(|spec| spec.group) {
        let named = |root: &Dict| {
            let values = root.get(group)?.as_dict()?.get("auth_section")?;
            let name = values.as_array()?.last()?.as_str()?.trim();
            (!name.is_empty() && name != group).then(|| name.to_owned())
        };
        let Some(other) = named(root) else {
            continue;
        };
        let other = root.get(&other).or_else(|| root.get(&other.to_lowercase()));
        let other = other.and_then(Value::as_dict).cloned().unwrap_or_default();
        let Some(Value::Dict(_, own)) = root.get_mut(group) else {
            continue;
        };
        let moved = |spec: &&OptionSpec| spec.group == group && !OF_SESSION.contains(&spec.name);
        for spec in options::all().filter(moved) {
            let former = spec.old_names.iter().map(|(_, name)| *name);
            let mut names = std::iter::once(spec.name).chain(former);
            match names.find_map(|name| other.get(name)) {
                Some(values) => own.insert(spec.name.to_owned(), values.clone()),
                None => own.remove(spec.name),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde::Deserialize;

    use super::super::ini::Ini;
    use super::super::registry::default;
    use super::*;

    fn machine() -> Machine {
        Machine {
            hostname: "node1".to_owned(),
            address: "192.0.2.1".to_owned(),
            program: "cinder-backup".to_owned(),
        }
    }

    fn layers(text: &str) -> Figment {
        Figment::from(Ini::parse(Path::new("/etc/x.conf"), text).unwrap())
    }

    #[derive(Deserialize)]
    struct Case {
        group: String,
        template: String,
        value: Option<String>,
    }

    #[test]
    fn substitutes_as_the_real_library_does() {
        let cases = include_str!("../../tests/fixtures/oslo_config/substitution.json");
        let cases: Vec<Case> = serde_json::from_str(cases).unwrap();
        let machine = machine();
        let layers = layers(include_str!(
            "../../tests/fixtures/oslo_config/substitution.conf"
        ));
        let reader = Reader::new(&layers, &machine).unwrap();
        for case in cases {
            let texts = vec![case.template.clone()];
            let value = reader.substituted(&case.group, "the option", texts, &mut Trail::default());
            let value = value.ok().map(|texts| texts.concat());
            assert_eq!(value, case.value, "[{}] {}", case.group, case.template);
        }
    }

    const HOST: OptionSpec = default("h").named::<String>("DEFAULT", "some_host", &["x"]);
    const COUNT: OptionSpec = default("1").named::<u32>("database", "count", &["x"]);

    #[test]
    fn defaults_apply_only_where_nothing_is_set() {
        let machine = machine();
        let layers = layers("[DEFAULT]\nsome_host =\n");
        let reader = Reader::new(&layers, &machine).unwrap();
        assert_eq!(reader.read::<String>(&HOST).unwrap(), "");
        assert_eq!(reader.read::<u32>(&COUNT).unwrap(), 1);
    }

    #[test]
    fn errors_name_section_option_and_file() {
        let machine = machine();
        let layers = layers("[DataBase]\ncount = 1\ncount = 7s\n");
        let reader = Reader::new(&layers, &machine).unwrap();
        assert_eq!(
            reader.read::<u32>(&COUNT).unwrap_err().to_string(),
            "[database] count (in /etc/x.conf): \
             \"7s\" is not an integer from 0 to 4294967295"
        );
    }

    #[test]
    fn an_unknown_name_in_a_secret_is_not_shown() {
        let machine = machine();
        let layers = layers("[DEFAULT]\ntransport_url = rabbit://u:p$ss@h\n");
        let reader = Reader::new(&layers, &machine).unwrap();
        let spec = options::find("DEFAULT", "transport_url").unwrap();
        let error = reader.read::<super::super::TransportUrl>(spec).unwrap_err();
        assert!(error.to_string().contains("unknown option"), "{error}");
        assert!(!error.to_string().contains("ss@"), "{error}");
        assert!(!error.to_string().contains("$ss"), "{error}");
    }

    #[test]
    fn the_query_is_above_everything_and_not_substituted() {
        let machine = machine();
        let layers = layers("[DEFAULT]\nsome_host = a\n");
        let reader = Reader::new(&layers, &machine).unwrap();
        let query = BTreeMap::from([("some_host".to_owned(), "$b".to_owned())]);
        assert_eq!(
            reader.with_query(&query).read::<String>(&HOST).unwrap(),
            "$b"
        );
    }

    #[test]
    fn another_section_may_tell_who_logs_in() {
        let text = "[keystone_authtoken]\nauth_section = the-service\nusername = nobody\n\
                    password = own\ncafile = /ca\n\
                    [the-service]\nuser-name = cinder\npassword = hunter2\n\
                    auth_plugin = v3password\ncafile = /other\ntls_ciphers = x\n";
        let machine = machine();
        let layers = layers(text);
        let reader = Reader::new(&layers, &machine).unwrap();
        let read = |name: &str| {
            let spec = options::find("keystone_authtoken", name).unwrap();
            reader.read::<Option<String>>(spec).unwrap()
        };
        assert_eq!(read("username").as_deref(), Some("cinder"));
        assert_eq!(read("auth_type").as_deref(), Some("v3password"));
        assert_eq!(read("cafile").as_deref(), Some("/ca"));
        assert_eq!(read("auth_section").as_deref(), Some("the-service"));
    }
}
