//! The commented sample file, in the style of oslo.config's generator.

use super::options;
use super::registry::{Default, OptionSpec};

const WIDTH: usize = 79;

const HEAD: &str = "\
# Options that this backup service knows, with their defaults. Those that are
# accepted without effect say so, and a start tells of each that is set to
# something else. Whatever else stands in cinder.conf is for Cinder's other
# services and is ignored here.
#
# This file is generated from the service's own declarations.
";

/// The sample file: every option with its help, type, limits, former names and default.
#[must_use]
pub fn sample() -> String {
    let mut out = HEAD.to_owned();
    let mut group = "";
    for spec in options::all() {
        if spec.group != group {
            group = spec.group;
            out.push_str("\n\n[");
            out.push_str(group);
            out.push_str("]\n");
        }
        out.push('\n');
        write_option(&mut out, spec);
    }
    out
}

fn write_option(out: &mut String, spec: &OptionSpec) {
    let mark = match spec.has_effect() {
        true => "",
        false => "Accepted, without effect. ",
    };
    comment(out, &format!("{mark}{} ({})", spec.prose(), spec.type_name));
    if let Some(min) = spec.limits.min {
        comment(out, &format!("Minimum value: {min}"));
    }
    if let Some(max) = spec.limits.max {
        comment(out, &format!("Maximum value: {max}"));
    }
    if !spec.choices.is_empty() {
        comment(
            out,
            &format!("Possible values: {}", spec.choices.join(", ")),
        );
    }
    for (group, name) in spec.old_names {
        comment(out, &format!("Deprecated group/name - [{group}]/{name}"));
    }
    let (value, varies) = match spec.default {
        Default::Text(text) => (text, false),
        Default::None if spec.multi => ("", false),
        Default::None => ("<None>", false),
        Default::Hostname => ("<host name of this machine>", true),
        Default::Address => ("<IP address of this machine>", true),
        Default::Program => ("cinder-backup", true),
    };
    if varies {
        comment(out, "The default depends on the machine and the program.");
    }
    out.push_str(format!("#{} = {value}", spec.name).trim_end());
    out.push('\n');
}

/// A comment, wrapped between words.
fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split(' ') {
        if line.len() + 1 + word.len() > WIDTH && line.len() > 1 {
            out.push_str(&line);
            out.push('\n');
            line.truncate(1);
        }
        line.push(' ');
        line.push_str(word);
    }

    out.push_str(&line);
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::super::ini::Ini;
    use super::*;

    #[test]
    fn is_a_file_without_effect() {
        let ini = Ini::parse(Path::new("sample"), &sample()).unwrap();
        assert!(ini.sections.values().all(|options| options.is_empty()));
    }

    #[test]
    fn shows_every_option_under_its_section() {
        let uncommented: String = sample()
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(option) if !option.starts_with(' ') && !option.is_empty() => option,
                _ => line,
            })
            .flat_map(|line| [line, "\n"])
            .collect();
        let ini = Ini::parse(Path::new("sample"), &uncommented).unwrap();
        for spec in options::all() {
            let texts = &ini.sections[spec.group][spec.name];
            assert_eq!(texts.len(), 1, "[{}] {}", spec.group, spec.name);
        }
        let shown: usize = ini.sections.values().map(|options| options.len()).sum();
        assert_eq!(shown, options::all().count());
    }

    #[test]
    fn no_section_comes_twice() {
        let sample = sample();
        let sections: Vec<&str> = sample.lines().filter(|l| l.starts_with('[')).collect();
        let distinct: BTreeSet<&&str> = sections.iter().collect();
        assert_eq!(sections.len(), distinct.len());
    }

    #[test]
    fn what_has_no_effect_is_marked() {
        let sample = sample();
        let marks = sample.matches("# Accepted, without effect. ").count();
        let ignored = options::all().filter(|spec| !spec.has_effect()).count();
        assert!(ignored > 0);
        assert_eq!(marks, ignored);
    }

    #[test]
    fn lines_are_short() {
        let sample = sample();
        // A default may be as long as it likes.
        let prose = |line: &&str| line.starts_with("# ");
        for line in sample.lines().filter(prose) {
            assert!(line.len() <= WIDTH, "{line}");
        }
    }
}
