//! The layers that settings come from: files, environment, `--set`, `--kafka`.
//!
//! Each becomes a flat map from full key to value with its origin, and a later layer
//! overrides an earlier one key by key. The maps are flat because the name of a
//! librdkafka property may be the beginning of another's (`group.protocol`,
//! `group.protocol.type`), which a tree cannot hold. Knows which keys exist, but not
//! which values they accept.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;

use config::{FileFormat, Format, Map, Value, ValueKind};

use super::Sources;
use super::error::Problem;
use super::keys::{self, Keys, Kind};
use super::yaml;

/// The prefix of every environment variable that is a setting. It ends in two underscores
/// because Kubernetes sets `NORTHBRIDGE_PORT` and others for a service named northbridge.
const PREFIX: &str = "NORTHBRIDGE__";

/// Values by full key, each with its origin.
pub(super) type Layer = BTreeMap<String, Value>;

/// Reads all layers and merges them; whatever cannot be used becomes a problem.
pub(super) fn read(sources: &Sources, keys: &Keys, problems: &mut Vec<Problem>) -> Layer {
    let mut reader = Reader { keys, problems };
    let mut merged = Layer::new();
    for path in &sources.files {
        merged.extend(reader.file(path));
    }
    merged.extend(reader.environment(&sources.environment));
    merged.extend(reader.overrides(&sources.overrides));
    if let Some(servers) = &sources.kafka {
        let value = Value::new(Some(&"--kafka".to_owned()), servers.as_str());
        merged.insert(keys::SERVERS.to_owned(), value);
    }
    merged
}

struct Reader<'a> {
    keys: &'a Keys,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn file(&mut self, path: &Path) -> Layer {
        let mut layer = Layer::new();
        match parse(path) {
            Ok(file) => {
                self.flatten("", file.table, &mut layer);
                for (key, text) in file.changed {
                    self.changed(&key, text, path, &mut layer);
                }
            }
            Err(reason) => self.problems.push(Problem::File {
                path: path.display().to_string(),
                reason,
            }),
        }
        layer
    }

    /// Rejects a value that was converted while the file was parsed.
    fn changed(&mut self, key: &str, text: String, path: &Path, layer: &mut Layer) {
        let rule = match self.keys.kind(key) {
            Kind::Section | Kind::Unknown => return,
            // However a fraction is written, it is the same number.
            Kind::Value if self.keys.is_fraction(key) => return,
            Kind::Value if self.keys.is_number(key) => "must be a whole number in decimal digits",
            Kind::Value | Kind::Option => "must be quoted, because YAML parsers change it",
        };
        layer.remove(key);
        self.problems.push(Problem::Value {
            key: key.to_owned(),
            value: keys::masked(key, text),
            origin: path.display().to_string(),
            rule: rule.to_owned(),
        });
    }

    /// Adds a table's values by their full keys. A null leaves its key unset, even that of
    /// a section: in YAML, a section whose keys are all commented out is null. Not so for
    /// a protection, which must not be off because its value is missing.
    fn flatten(&mut self, section: &str, table: Map<String, Value>, layer: &mut Layer) {
        // Sorted, so that the problems of a file always come in the same order.
        let ordered: BTreeMap<String, Value> = table.into_iter().collect();
        for (name, value) in ordered {
            let key = keys::joined(section, &name);
            match (self.keys.kind(&key), &value.kind) {
                (Kind::Unknown, _) => self.unknown(&key, &key, value.origin(), str::to_owned),
                (_, kind) if keys::is_protection(&key) && is_nothing(kind) => {
                    self.missing_protection(key, value.origin());
                }
                (_, ValueKind::Nil) => {}
                (Kind::Section | Kind::Option, ValueKind::Table(inner)) => {
                    self.flatten(&key, inner.clone(), layer);
                }
                (Kind::Section, _) => self.not_a_section(key, value.origin()),
                (Kind::Value | Kind::Option, _) => {
                    layer.insert(key, value);
                }
            }
        }
    }

    fn environment(&mut self, variables: &[(OsString, OsString)]) -> Layer {
        let mut seen = BTreeMap::<String, &str>::new();
        let mut layer = Layer::new();
        for (variable, text) in variables {
            self.check_spelling(variable);
            let Some((variable, text)) = self.utf8(variable, text) else {
                continue;
            };
            let Some((key, text_kind)) = self.variable(variable) else {
                continue;
            };
            if let Some(first) = seen.insert(key.clone(), variable) {
                self.set_twice(key, first, variable);
            } else if let Some(kind) = self.text_or_file(&key, text_kind, variable, text) {
                let origin = format!("environment variable {variable}");
                layer.insert(key, Value::new(Some(&origin), kind));
            }
        }
        layer
    }

    /// Rejects a variable whose words are those of a key but joined by single underscores:
    /// it would have no effect, and a protection that it was meant to set would be off.
    fn check_spelling(&mut self, variable: &OsStr) {
        let Some(variable) = variable.to_str() else {
            return;
        };
        let words = variable.strip_prefix(PREFIX.trim_end_matches('_'));
        let words = words.and_then(|words| words.strip_prefix('_'));
        let words = words.filter(|words| !words.starts_with('_'));
        if let Some(meant) = words.and_then(|words| self.keys.of_words(words)) {
            self.problems.push(Problem::UnknownKey {
                name: variable.to_owned(),
                origin: "environment".to_owned(),
                nearest: Some(variable_of(&meant)),
            });
        }
    }

    /// The name and the text of a variable that may be a setting.
    fn utf8<'a>(&mut self, variable: &'a OsStr, text: &'a OsStr) -> Option<(&'a str, &'a str)> {
        let shown = variable.to_string_lossy();
        if !shown.starts_with(PREFIX) {
            return None;
        }
        let both = variable.to_str().zip(text.to_str());
        if both.is_none() {
            let variable = shown.into_owned();
            self.problems.push(Problem::NotUtf8 { variable });
        }
        both
    }

    /// The key that a variable sets, and whether its text is the value or names a file.
    /// `None` if the variable is not a setting or its key is unknown.
    ///
    /// A key that ends in `_file` by its own name (`tls.key_file`) is a value. No
    /// librdkafka property does, so there `_file` always names a file.
    fn variable(&mut self, variable: &str) -> Option<(String, TextKind)> {
        let key = variable.strip_prefix(PREFIX)?.to_lowercase();
        let key = key.replace("__", ".");
        let base = key.strip_suffix("_file");
        match (self.keys.kind(&key), base) {
            (Kind::Option, Some(base)) => Some((base.to_owned(), TextKind::File)),
            (Kind::Value | Kind::Option, _) => Some((key, TextKind::Value)),
            (Kind::Unknown, Some(base)) if self.keys.kind(base) == Kind::Value => {
                Some((base.to_owned(), TextKind::File))
            }
            (Kind::Section, _) => {
                let origin = format!("environment variable {variable}");
                self.not_a_section(key, Some(&origin));
                None
            }
            (Kind::Unknown, _) => {
                self.unknown(variable, &key, Some("environment"), variable_of);
                None
            }
        }
    }

    fn text_or_file(
        &mut self,
        key: &str,
        text_kind: TextKind,
        variable: &str,
        text: &str,
    ) -> Option<ValueKind> {
        match text_kind {
            TextKind::Value => Some(text.trim_start_matches(BYTE_ORDER_MARK).into()),
            TextKind::File => match read_text(Path::new(text)) {
                Ok(contents) => Some(Self::value_in_file(key, &contents)),
                Err(reason) => {
                    self.problems.push(Problem::ValueFile {
                        key: key.to_owned(),
                        variable: variable.to_owned(),
                        path: text.to_owned(),
                        reason,
                    });
                    None
                }
            },
        }
    }

    /// The file of a secret that may be a list has one value per line, so that two can be
    /// valid during a rotation. An empty file is an empty secret, which is an error: no secret at
    /// all would leave the listener open. Any other file is one value, without the line
    /// break that editors add; of several lines if it is PEM.
    fn value_in_file(key: &str, contents: &str) -> ValueKind {
        let whole = contents.strip_suffix('\n').unwrap_or(contents);
        let whole = whole.strip_suffix('\r').unwrap_or(whole);
        if !keys::is_secret(key) {
            return whole.into();
        }
        let lines = contents.lines().filter(|line| !line.is_empty());
        let values: Vec<_> = lines.map(|line| Value::new(None, line)).collect();
        if values.is_empty() {
            return "".into();
        }
        ValueKind::Array(values)
    }

    fn overrides(&mut self, texts: &[String]) -> Layer {
        let origin = "--set".to_owned();
        let mut layer = Layer::new();
        for text in texts {
            let Some((key, value)) = text.split_once('=') else {
                let start = text.chars().take_while(|&c| is_key_character(c)).collect();
                self.problems.push(Problem::Override { start });
                continue;
            };
            match self.keys.kind(key) {
                Kind::Unknown => self.unknown(key, key, Some(&origin), str::to_owned),
                Kind::Section => self.not_a_section(key.to_owned(), Some(&origin)),
                Kind::Value | Kind::Option => {
                    layer.insert(key.to_owned(), Value::new(Some(&origin), value));
                }
            }
        }
        layer
    }

    fn unknown(&mut self, name: &str, key: &str, origin: Option<&str>, spell: fn(&str) -> String) {
        self.problems.push(Problem::UnknownKey {
            name: name.to_owned(),
            origin: origin.unwrap_or_default().to_owned(),
            nearest: self.keys.nearest(key).map(spell),
        });
    }

    fn missing_protection(&mut self, key: String, origin: Option<&str>) {
        self.problems.push(Problem::Missing {
            key,
            origin: origin.unwrap_or_default().to_owned(),
        });
    }

    fn not_a_section(&mut self, key: String, origin: Option<&str>) {
        let origin = origin.unwrap_or_default().to_owned();
        self.problems.push(Problem::NotASection { key, origin });
    }

    fn set_twice(&mut self, key: String, first: &str, second: &str) {
        let (first, second) = (first.min(second), first.max(second));
        self.problems.push(Problem::SetTwice {
            key,
            first: first.to_owned(),
            second: second.to_owned(),
        });
    }
}

/// What the text of a variable is: the value, or the path of a file with it.
#[derive(Clone, Copy)]
enum TextKind {
    Value,
    File,
}

/// A configuration file.
struct File {
    table: Map<String, Value>,
    /// The values that were converted while they were parsed, by key.
    changed: Vec<(String, String)>,
}

fn parse(path: &Path) -> Result<File, String> {
    let format = format_of(path)?;
    let text = read_text(path).map_err(|error| format!("cannot be read: {error}"))?;
    let origin = path.display().to_string();
    let table = format
        .parse(Some(&origin), &text)
        .map_err(|cause| malformed(cause.as_ref(), &text))?;
    let changed = if matches!(format, FileFormat::Yaml) {
        yaml::changed_values(&text)
    } else {
        Vec::new()
    };
    Ok(File { table, changed })
}

const BYTE_ORDER_MARK: char = '\u{feff}';

/// The text of a file without its byte order mark.
fn read_text(path: &Path) -> Result<String, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    // UTF-16 without a mark is recognized by the zeros of its ASCII characters.
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") || bytes.contains(&0) {
        return Err("the text is not UTF-8 but probably UTF-16; save it as UTF-8".to_owned());
    }
    let text = String::from_utf8(bytes).map_err(|_| "the text is not UTF-8".to_owned())?;
    Ok(text.trim_start_matches(BYTE_ORDER_MARK).to_owned())
}

/// Returns whether a value says nothing: a null, or an empty text, list or table.
fn is_nothing(kind: &ValueKind) -> bool {
    match kind {
        ValueKind::Nil => true,
        ValueKind::String(text) => text.is_empty(),
        ValueKind::Array(items) => items.is_empty(),
        ValueKind::Table(table) => table.is_empty(),
        ValueKind::Boolean(_)
        | ValueKind::I64(_)
        | ValueKind::I128(_)
        | ValueKind::U64(_)
        | ValueKind::U128(_)
        | ValueKind::Float(_) => false,
    }
}

fn format_of(path: &Path) -> Result<FileFormat, String> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => Ok(FileFormat::Toml),
        Some("yaml" | "yml") => Ok(FileFormat::Yaml),
        Some("json") => Ok(FileFormat::Json),
        Some(_) | None => Err("must end in .toml, .yaml, .yml or .json".to_owned()),
    }
}

/// What is wrong with a file and on which line, without quoting the file, which may
/// contain a secret: the error of TOML displays the line, and that of `config` displays a
/// file that is a single string as a whole.
fn malformed(cause: &(dyn Error + Send + Sync + 'static), text: &str) -> String {
    if cause.is::<Box<config::ConfigError>>() {
        return "must contain sections with keys".to_owned();
    }
    let Some(error) = cause.downcast_ref::<toml::de::Error>() else {
        return format!("cannot be parsed: {cause}");
    };
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map_or(0, |text| text.matches('\n').count()) + 1;
    let what = error.message().replace('\n', ", ");
    format!("cannot be parsed: {what} at line {line}")
}

fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

const fn is_key_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.')
}
