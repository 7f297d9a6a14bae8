//! The beginning of what others say, for errors and lines of the log: a message may be megabytes long, and so
//! may the value in it that is quoted because it is wrong.

use std::fmt::{self, Display, Write};

/// The most characters of a text that are told.
const LONGEST: usize = 1_000;

/// A text that is cut off where it is too long to be told.
#[must_use]
pub fn excerpt(text: &impl Display) -> String {
    let mut excerpt = Excerpt {
        text: String::new(),
        room: LONGEST,
    };
    if write!(excerpt, "{text}").is_err() {
        excerpt.text.push('…');
    }
    excerpt.text
}

struct Excerpt {
    text: String,
    room: usize,
}

impl Write for Excerpt {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        match part.char_indices().nth(self.room) {
            None => {
                self.room -= part.chars().count();
                self.text.push_str(part);
                Ok(())
            }
            Some((end, _)) => {
                self.text.push_str(&part[..end]);
                Err(fmt::Error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_off() {
        assert_eq!(excerpt(&"short: ж"), "short: ж");
        let most = "ж".repeat(LONGEST);
        assert_eq!(excerpt(&most), most);
        let parts = format_args!("{most}{}", 1).to_string();
        assert_eq!(excerpt(&parts), format!("{most}…"));
        assert_eq!(
            excerpt(&format_args!("{}{}", &most[2..], "жж")),
            format!("{most}…")
        );
    }
}
