//! `$name`, `${name}`, `${group.name}`, `$$` and `\$` in a value.
//!
//! oslo.config uses Python's `string.Template` with dots allowed in names
//! (`ConfigOpts._substitute`): a `$` that starts no name stays as it is, an unknown name fails.

/// Replaces every reference in `template` by what `lookup` answers for its name.
///
/// # Errors
/// The first error of `lookup`.
pub fn substitute<E>(
    template: &str,
    mut lookup: impl FnMut(&str) -> Result<String, E>,
) -> Result<String, E> {
    let template = template.replace("\\$", "$$");
    let mut out = String::with_capacity(template.len());
    let mut rest = template.as_str();
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        rest = if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            after
        } else if let Some((name, after)) = reference(after) {
            out.push_str(&lookup(name)?);
            after
        } else {
            out.push('$');
            after
        };
    }
    out.push_str(rest);
    Ok(out)
}

/// The name that follows a `$`, and what follows the name.
fn reference(after: &str) -> Option<(&str, &str)> {
    match after.strip_prefix('{') {
        Some(braced) => {
            let (name, rest) = split_name(braced)?;
            Some((name, rest.strip_prefix('}')?))
        }
        None => split_name(after),
    }
}

fn split_name(text: &str) -> Option<(&str, &str)> {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        .then(|| {
            let end = text
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'))
                .unwrap_or(text.len());
            text.split_at(end)
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shout(template: &str) -> String {
        substitute::<()>(template, |name| Ok(format!("<{name}>"))).unwrap()
    }

    #[test]
    fn finds_names() {
        assert_eq!(shout("$a"), "<a>");
        assert_eq!(shout("${a.b}c"), "<a.b>c");
        assert_eq!(shout("$a.b-c"), "<a.b>-c");
        assert_eq!(shout("p$1 $ ${ a } ${a"), "p$1 $ ${ a } ${a");
        assert_eq!(shout("$$a \\$a $$$a"), "$a $a $<a>");
    }

    proptest! {
        #[test]
        fn never_panics(template in any::<String>()) {
            shout(&template);
        }

        #[test]
        fn text_without_dollars_stays(template in "[^$]*") {
            prop_assert_eq!(shout(&template), template);
        }
    }
}
