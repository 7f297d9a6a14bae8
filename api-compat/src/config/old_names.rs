//! Former names of options. A file may use them; today's name wins within the file, and a later
//! file wins over an earlier one whatever the name (`_Namespace._get_file_value`).

use super::ini::Ini;
use super::options;
use super::registry::OptionSpec;
use super::warning::Warning;

/// Moves every value under a former name to today's name, and tells of each.
pub(super) fn translate(file: &mut Ini) -> Vec<Warning> {
    options::all()
        .flat_map(|spec| spec.old_names.iter().map(move |old| (spec, *old)))
        .filter_map(|(spec, old)| move_value(file, spec, old))
        .collect()
}

fn move_value(file: &mut Ini, spec: &OptionSpec, old: (&str, &str)) -> Option<Warning> {
    let mut values = file.sections.get_mut(old.0)?.remove(old.1)?;
    let section = file.sections.entry(spec.group.to_owned()).or_default();
    let current = section.entry(spec.name.to_owned()).or_default();
    if current.is_empty() {
        *current = values;
    } else if spec.multi {
        values.append(current);
        *current = values;
    } else {
        // Today's name stands beside the former one.
        return None;
    }
    Some(Warning::Deprecated {
        file: file.path.clone(),
        old: format!("[{}] {}", old.0, old.1),
        new: format!("[{}] {}", spec.group, spec.name),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn translated(text: &str) -> (Ini, usize) {
        let mut file = Ini::parse(Path::new("x"), text).unwrap();
        let warnings = translate(&mut file);
        (file, warnings.len())
    }

    #[test]
    fn a_former_name_is_moved_and_told() {
        let (file, warnings) = translated("[DATABASE]\nsql_max_retries = -1\n");
        assert_eq!(file.sections["database"]["max_retries"], ["-1"]);
        assert_eq!(warnings, 1);
    }

    #[test]
    fn todays_name_wins_within_a_file() {
        let (file, warnings) = translated("[DEFAULT]\nlog_file = new\nlogfile = old\n");
        assert_eq!(file.sections["DEFAULT"]["log_file"], ["new"]);
        assert_eq!(warnings, 0);
    }

    #[test]
    fn multi_values_add_up() {
        let text = "[DEFAULT]\nnotification_driver = log\n\
                    [oslo_messaging_notifications]\ndriver = noop\n";
        let (file, _) = translated(text);
        let drivers = &file.sections["oslo_messaging_notifications"]["driver"];
        assert_eq!(drivers, &["log", "noop"]);
    }

    #[test]
    fn a_removed_section_name_is_understood() {
        let (file, _) = translated("[sql]\nconnection = mysql://h/db\n");
        assert_eq!(file.sections["database"]["connection"], ["mysql://h/db"]);
    }
}
