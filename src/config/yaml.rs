//! The values of a YAML file that are not read as they are written.
//!
//! Unquoted, `007`, `1e5` and `on` are numbers and a truth value to one version of
//! YAML or another. The parser of the settings converts them before anybody sees what
//! was written, so the file is parsed a second time for the scalars alone. Knows
//! nothing of which keys there are.

use yaml_rust2::parser::{Event, EventReceiver, Parser};
use yaml_rust2::scanner::TScalarStyle;

use super::keys;

/// Returns each unquoted value that some YAML parser changes, with its full key, in the
/// order of the file. The file is one that can be parsed.
pub(super) fn changed_values(text: &str) -> Vec<(String, String)> {
    let mut scalars = Scalars::default();
    let loaded = Parser::new_from_str(text).load(&mut scalars, false);
    debug_assert!(loaded.is_ok(), "the file was parsed before");
    scalars.changed
}

/// Receives the events of a parser, and knows at which key it is.
#[derive(Default)]
struct Scalars {
    /// The collections around the next event, outermost first.
    within: Vec<Collection>,
    changed: Vec<(String, String)>,
}

enum Collection {
    /// With the key whose value comes next; `None` if a key comes next.
    Mapping(Option<String>),
    Sequence,
}

impl EventReceiver for Scalars {
    fn on_event(&mut self, event: Event) {
        match event {
            Event::MappingStart(..) => self.within.push(Collection::Mapping(None)),
            Event::SequenceStart(..) => self.within.push(Collection::Sequence),
            Event::MappingEnd | Event::SequenceEnd => {
                self.within.pop();
                self.value_ends();
            }
            Event::Alias(_) => self.value_ends(),
            Event::Scalar(text, style, _, tag) => {
                let is_plain = style == TScalarStyle::Plain && tag.is_none();
                self.scalar(text, is_plain);
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart
            | Event::DocumentEnd => {}
        }
    }
}

impl Scalars {
    fn scalar(&mut self, text: String, is_plain: bool) {
        if let Some(Collection::Mapping(key @ None)) = self.within.last_mut() {
            *key = Some(text);
            return;
        }
        if is_plain && is_changed(&text) {
            self.changed.push((self.key(), text));
        }
        self.value_ends();
    }

    fn value_ends(&mut self) {
        if let Some(Collection::Mapping(key)) = self.within.last_mut() {
            *key = None;
        }
    }

    fn key(&self) -> String {
        let names = self
            .within
            .iter()
            .filter_map(|collection| match collection {
                Collection::Mapping(key) => key.as_deref(),
                Collection::Sequence => None,
            });
        names.fold(String::new(), |section, name| keys::joined(&section, name))
    }
}

/// Returns whether a parser of YAML 1.1 or 1.2 reads the plain text as a value that is
/// written differently.
fn is_changed(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "true" | "false" | "null" => text != lower,
        "on" | "off" | "yes" | "no" | "y" | "n" => true,
        other => is_number(other) && !is_canonical(text),
    }
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = digits.replace('_', "");
    let has_prefix = ["0x", "0o", "0b"]
        .iter()
        .filter_map(|prefix| digits.strip_prefix(prefix))
        .any(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_hexdigit()));
    // 1:30 is 90 to YAML 1.1.
    let is_sexagesimal =
        digits.contains(':') && digits.split(':').all(|part| part.parse::<u32>().is_ok());
    let is_fraction = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.parse::<f64>().is_ok();
    has_prefix || is_sexagesimal || is_fraction || matches!(&*digits, ".inf" | ".nan")
}

/// Returns whether the text is a whole number as every parser would write it.
fn is_canonical(text: &str) -> bool {
    text.parse::<i64>()
        .is_ok_and(|number| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_value_that_a_parser_changes_is_found() {
        for text in [
            "007",
            "0x10",
            "0o17",
            "0b1",
            "+5",
            "1_000",
            "1e5",
            ".5",
            "1.10",
            "1.0",
            "-.inf",
            ".NaN",
            "on",
            "Off",
            "yes",
            "NO",
            "y",
            "True",
            "FALSE",
            "Null",
            "12:30",
            "12345678901234567890",
        ] {
            let file = format!("a:\n  b: [x, {text}]\n");
            assert_eq!(changed_values(&file), [("a.b".to_owned(), text.to_owned())]);
        }
    }

    #[test]
    fn a_value_that_every_parser_reads_as_it_is_written_is_not() {
        for text in [
            "5",
            "-5",
            "0",
            "true",
            "false",
            "null",
            "~",
            "",
            "text",
            "1.2.3",
            "10.0.0.0/8",
            "5s",
            "::1",
            "a:1",
            "'007'",
            "\"on\"",
            "!!str 007",
            "|\n    007",
            "infinity",
            "nan",
        ] {
            let file = format!("a:\n  b: {text}\n");
            assert_eq!(changed_values(&file), [], "{text}");
        }
    }

    #[test]
    fn the_key_of_a_value_is_known_after_nested_values_and_aliases() {
        let file = "a: &x {b: [[c], d], e: 1}\nf: *x\ng.h: {i: [{j: k}, on]}\nl: no\n";
        let expected = [("g.h.i", "on"), ("l", "no")];
        let found = changed_values(file);
        let found: Vec<_> = found.iter().map(|(key, text)| (&**key, &**text)).collect();
        assert_eq!(found, expected);
    }
}
