//! Settings from arbitrary layers.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::{env, fs, process};

use super::{Settings, Sources};

const EXTENSIONS: [&str; 3] = ["toml", "yaml", "json"];

/// Loads a file, variables and overrides: the first byte chooses the file's format, and
/// zero bytes separate the file, a variable's name and value, and an override.
///
/// # Panics
///
/// Panics if settings without secrets differ once they were printed and loaded again.
pub fn layers(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else {
        return;
    };
    let extension = EXTENSIONS[usize::from(*choice) % EXTENSIONS.len()];
    let mut parts = bytes.split(|byte| *byte == 0);
    let mut part = || parts.next().unwrap_or_default().to_vec();
    let (file, name, value, over) = (part(), part(), part(), part());
    let written = env::temp_dir().join(format!("northbridge-fuzz-{}.{extension}", process::id()));
    fs::write(&written, file).expect("a file");
    let mut variable = b"NORTHBRIDGE__".to_vec();
    variable.extend(name);
    let sources = Sources {
        files: vec![written],
        environment: vec![(OsString::from_vec(variable), OsString::from_vec(value))],
        overrides: String::from_utf8(over)
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect(),
        kafka: None,
    };
    match Settings::load(&sources) {
        Ok(settings) if has_no_secrets(&settings) => print_and_load(&settings),
        Ok(_) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn has_no_secrets(settings: &Settings) -> bool {
    settings.auth == Settings::default().auth && settings.kafka == Settings::default().kafka
}

fn print_and_load(settings: &Settings) {
    let printed = env::temp_dir().join(format!("northbridge-fuzz-{}-printed.toml", process::id()));
    fs::write(&printed, settings.to_toml()).expect("a file");
    let sources = Sources {
        files: vec![printed],
        ..Sources::default()
    };
    let again = Settings::load(&sources).expect("printed settings load");
    assert_eq!(&again, settings);
}
