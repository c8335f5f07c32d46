//! Makes text from outside harmless on a terminal: anybody may push, and write to
//! the topics, and a terminal obeys control sequences.
//!
//! Everything else stays as it is, in any script: people search for what they see.

use std::fmt::Write;

/// Returns bytes as text on one line: what is invisible or would control a terminal
/// is escaped as in Rust (`\n`, `\u{1b}`), and a byte that is not UTF-8 as `\xff`.
pub(super) fn printable(bytes: &[u8]) -> String {
    let mut printed = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if is_harmful(character) {
                printed.extend(character.escape_default());
            } else {
                printed.push(character);
            }
        }
        for byte in chunk.invalid() {
            // Writing to a `String` cannot fail.
            let _ = write!(printed, "\\x{byte:02x}");
        }
    }
    printed
}

/// Returns the same JSON on one line, with escapes for what is harmful.
pub(super) fn printable_json(json: &str) -> String {
    let mut printed = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            // No string contains them unescaped, so they are between the tokens.
            '\n' | '\r' | '\t' => printed.push(' '),
            harmful if is_harmful(harmful) => {
                for unit in harmful.encode_utf16(&mut [0; 2]) {
                    let _ = write!(printed, "\\u{unit:04x}");
                }
            }
            harmless => printed.push(harmless),
        }
    }
    printed
}

/// Returns whether a character controls a terminal, or is invisible and changes how
/// or in which order others are shown.
fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_of_any_script_stays_and_control_characters_are_escaped() {
        let rows: &[(&[u8], &str)] = &[
            (br#"{"a":"\u001b"}"#, r#"{"a":"\u001b"}"#),
            ("设备-1 é 🚀".as_bytes(), "设备-1 é 🚀"),
            (b"\x1b]0;title\x07", r"\u{1b}]0;title\u{7}"),
            ("\u{9b}31m".as_bytes(), r"\u{9b}31m"),
            (b"one\r\ntwo\t\x7f", r"one\r\ntwo\t\u{7f}"),
            ("\u{202e}gnp".as_bytes(), r"\u{202e}gnp"),
            (b"\xff\x9b!", r"\xff\x9b!"),
        ];
        for (bytes, expected) in rows {
            assert_eq!(printable(bytes), *expected);
        }
    }

    #[test]
    fn json_keeps_its_meaning() {
        let json = "{\r\n\t\"a\": \"\u{9b}31m \u{e0041}\"\n}";
        let printed = printable_json(json);
        assert_eq!(printed, r#"{   "a": "\u009b31m \udb40\udc41" }"#);
        let read = |json| serde_json::from_str::<serde_json::Value>(json).unwrap();
        assert_eq!(read(&printed), read(json));
    }

    proptest! {
        #[test]
        fn nothing_printed_is_harmful(bytes: Vec<u8>, text: String) {
            prop_assert!(!printable(&bytes).contains(is_harmful));
            prop_assert!(!printable(text.as_bytes()).contains(is_harmful));
            let json = serde_json::to_string(&text).unwrap();
            let printed = printable_json(&json);
            prop_assert!(!printed.contains(is_harmful));
            prop_assert_eq!(serde_json::from_str::<String>(&printed).unwrap(), text);
        }
    }
}
