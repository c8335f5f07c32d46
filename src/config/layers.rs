//! The layers that settings come from: files, environment, `--set`.
//!
//! Each becomes a flat map from full key to value with its origin, and later layers win
//! by extending earlier ones. They stay flat because librdkafka has properties that
//! begin with the name of another (`group.protocol`, `group.protocol.type`), which a
//! tree cannot hold. Knows which keys there are, but not what values they take.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;

use config::{FileFormat, Format, Map, Value, ValueKind};

use super::Sources;
use super::error::Problem;
use super::schema::{self, Kind, Schema};

/// What begins the name of every environment variable that is a setting. Two underscores,
/// because Kubernetes itself sets `NORTHBRIDGE_PORT` and others for a service of that name.
const PREFIX: &str = "NORTHBRIDGE__";

/// Values by full key, each with its origin.
pub(super) type Layer = BTreeMap<String, Value>;

/// Reads all layers and lays them over each other; what cannot be used is a problem.
pub(super) fn read(sources: &Sources, schema: &Schema, problems: &mut Vec<Problem>) -> Layer {
    let mut reader = Reader { schema, problems };
    let mut merged = Layer::new();
    for path in &sources.files {
        merged.extend(reader.file(path));
    }
    merged.extend(reader.environment(&sources.environment));
    merged.extend(reader.overrides(&sources.overrides));
    merged
}

struct Reader<'a> {
    schema: &'a Schema,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn file(&mut self, path: &Path) -> Layer {
        let mut layer = Layer::new();
        match parse(path) {
            Ok(table) => self.flatten("", table, &mut layer),
            Err(reason) => self.problems.push(Problem::File {
                path: path.display().to_string(),
                reason,
            }),
        }
        layer
    }

    /// Lays a table's values flat. A null leaves its key unset, also where a section is
    /// expected: in YAML it is what a section with all its keys commented out becomes.
    fn flatten(&mut self, section: &str, table: Map<String, Value>, layer: &mut Layer) {
        let ordered: BTreeMap<String, Value> = table.into_iter().collect();
        for (name, value) in ordered {
            let key = schema::joined(section, &name);
            match (self.schema.kind(&key), &value.kind) {
                (Kind::Unknown, _) => self.unknown(&key, &key, value.origin(), str::to_owned),
                (_, ValueKind::Nil) => {}
                (Kind::Section | Kind::Option, ValueKind::Table(inner)) => {
                    self.flatten(&key, inner.clone(), layer);
                }
                (Kind::Section, _) => self.not_a_section(key, value.origin()),
                (Kind::Leaf | Kind::Option, _) => {
                    layer.insert(key, value);
                }
            }
        }
    }

    fn environment(&mut self, variables: &[(String, String)]) -> Layer {
        let mut seen = BTreeMap::<String, &str>::new();
        let mut layer = Layer::new();
        for (variable, text) in variables {
            let Some((key, source)) = self.variable(variable) else {
                continue;
            };
            if let Some(first) = seen.insert(key.clone(), variable) {
                self.set_twice(key, first, variable);
            } else if let Some(kind) = self.text_or_file(&key, source, variable, text) {
                let origin = format!("environment variable {variable}");
                layer.insert(key, Value::new(Some(&origin), kind));
            }
        }
        layer
    }

    /// The key that a variable sets, and whether its text is the value or names a file;
    /// nothing where the variable is none of ours or sets an unknown key.
    fn variable(&mut self, variable: &str) -> Option<(String, TextIs)> {
        let key = variable.strip_prefix(PREFIX)?.to_lowercase();
        let key = key.replace("__", ".");
        let base = key.strip_suffix("_file");
        match (self.schema.kind(&key), base) {
            (Kind::Option, Some(base)) => Some((base.to_owned(), TextIs::File)),
            (Kind::Leaf | Kind::Option, _) => Some((key, TextIs::Value)),
            (Kind::Unknown, Some(base)) if self.schema.kind(base) == Kind::Leaf => {
                Some((base.to_owned(), TextIs::File))
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
        source: TextIs,
        variable: &str,
        text: &str,
    ) -> Option<ValueKind> {
        match source {
            TextIs::Value => Some(text.into()),
            TextIs::File => match fs::read_to_string(text) {
                Ok(contents) => Some(Self::in_value_file(key, &contents)),
                Err(error) => {
                    self.problems.push(Problem::ValueFile {
                        key: key.to_owned(),
                        variable: variable.to_owned(),
                        path: text.to_owned(),
                        reason: error.to_string(),
                    });
                    None
                }
            },
        }
    }

    /// A secret's file has one value a line, so that two can be valid during a rotation;
    /// without any it holds an empty secret rather than none, which would protect nothing.
    /// Any other's has one value, of several lines where it is a PEM.
    fn in_value_file(key: &str, contents: &str) -> ValueKind {
        let whole = contents.trim_end_matches(['\r', '\n']);
        if !schema::is_secret(key) || whole.is_empty() {
            return whole.into();
        }
        let lines = contents.lines().filter(|line| !line.is_empty());
        ValueKind::Array(lines.map(|line| Value::new(None, line)).collect())
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
            match self.schema.kind(key) {
                Kind::Unknown => self.unknown(key, key, Some(&origin), str::to_owned),
                Kind::Section => self.not_a_section(key.to_owned(), Some(&origin)),
                Kind::Leaf | Kind::Option => {
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
            nearest: self.schema.nearest(key).map(spell),
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

/// What the text of a variable is.
#[derive(Clone, Copy)]
enum TextIs {
    Value,
    File,
}

fn parse(path: &Path) -> Result<Map<String, Value>, String> {
    let format = format_of(path)?;
    let text = fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    let origin = path.display().to_string();
    let text = text.trim_start_matches('\u{feff}');
    format
        .parse(Some(&origin), text)
        .map_err(|cause| malformed(cause.as_ref(), text))
}

fn format_of(path: &Path) -> Result<FileFormat, String> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => Ok(FileFormat::Toml),
        Some("yaml" | "yml") => Ok(FileFormat::Yaml),
        Some("json") => Ok(FileFormat::Json),
        Some(_) | None => Err("must end in .toml, .yaml, .yml or .json".to_owned()),
    }
}

/// What is wrong with a file and where, without quoting the file, since it may hold a
/// secret: TOML's display would show the line, and config's the whole of a file that is
/// one text.
fn malformed(cause: &(dyn Error + Send + Sync + 'static), text: &str) -> String {
    if cause.is::<Box<config::ConfigError>>() {
        return "must hold sections with keys".to_owned();
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
