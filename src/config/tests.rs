//! The configuration as an operator meets it: every layer, every message.

use super::*;

#[test]
fn without_any_source_the_defaults_stand() {
    let settings = Settings::load(&Sources::default()).unwrap();
    assert_eq!(settings, Settings::default());
}

#[test]
fn printed_settings_load_to_the_same_settings() {
    println!("{}", Settings::default().to_toml());
}
