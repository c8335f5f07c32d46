//! Whether the files that options name can be read and hold what they are meant to.
//!
//! OpenSSL's errors do not say so: a file with something else is "PEM lib".

use std::fs;
use std::path::Path;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// The option whose value may be a directory.
const AUTHORITIES: &str = "ssl.ca.location";

/// Checks the file of one option.
///
/// # Errors
///
/// Returns what is wrong with it.
pub(super) fn check(option: &str, file: &str) -> Result<(), String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let path = Path::new(file);
    if fs::metadata(path).map_err(unreadable)?.is_dir() {
        return check_directory(option, path);
    }
    let contents = fs::read(path).map_err(unreadable)?;
    // OpenSSL overlooks the first line of such a file.
    if contents.starts_with(BYTE_ORDER_MARK) {
        return Err("begins with a byte order mark; save the file without it".to_owned());
    }
    wanted(option).map_or(Ok(()), |wanted| check_pem(wanted, &contents))
}

/// OpenSSL finds an authority in a directory by the hash of its subject.
fn check_directory(option: &str, path: &Path) -> Result<(), String> {
    if option != AUTHORITIES {
        return Err("is a directory; name a file".to_owned());
    }
    let entries = fs::read_dir(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mut names = entries.flatten().map(|entry| entry.file_name());
    if names.any(|name| is_hashed(&name.to_string_lossy())) {
        return Ok(());
    }
    Err(
        "is a directory in which OpenSSL finds no certificate; name a file, or run \
         `openssl rehash` on the directory"
            .to_owned(),
    )
}

/// Returns whether a file is named as `openssl rehash` names it, such as `9d66eef0.0`.
fn is_hashed(name: &str) -> bool {
    name.split_once('.').is_some_and(|(hash, number)| {
        hash.len() == 8
            && hash.chars().all(|c| c.is_ascii_hexdigit())
            && number.chars().all(|c| c.is_ascii_digit())
    })
}

/// What the PEM file of an option must contain (RFC 7468).
fn wanted(option: &str) -> Option<&'static str> {
    match option {
        AUTHORITIES | "ssl.certificate.location" => Some("CERTIFICATE"),
        "ssl.key.location" => Some("PRIVATE KEY"),
        _ => None,
    }
}

fn check_pem(wanted: &str, contents: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(contents);
    let label = |line: &str| Some(line.trim().strip_prefix("-----BEGIN ")?.to_owned());
    let labels: Vec<String> = text.lines().filter_map(label).collect();
    // `RSA PRIVATE KEY` is one as well.
    if labels.iter().any(|label| label.contains(wanted)) {
        return Ok(());
    }
    Err(match labels.first() {
        Some(found) => {
            let found = found.trim_end_matches('-');
            format!("contains no {wanted}, but a {found}")
        }
        None => format!("is not a PEM file: it has no line -----BEGIN {wanted}-----"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pem_file_contains_what_its_option_wants() {
        let key = b"-----BEGIN EC PRIVATE KEY-----\nM\n-----END EC PRIVATE KEY-----\n";
        let chain = b"subject=CN = a\r\n-----BEGIN CERTIFICATE-----\r\nM\r\n";
        for (option, contents, rule) in [
            ("ssl.key.location", &key[..], None),
            ("ssl.certificate.location", chain, None),
            ("ssl.ca.location", chain, None),
            (
                "ssl.ca.location",
                key,
                Some("contains no CERTIFICATE, but a EC PRIVATE KEY"),
            ),
            (
                "ssl.key.location",
                b"\x30\x82\x01",
                Some("is not a PEM file: it has no line -----BEGIN PRIVATE KEY-----"),
            ),
        ] {
            let checked = check_pem(wanted(option).unwrap(), contents);
            assert_eq!(checked, rule.map_or(Ok(()), |rule| Err(rule.to_owned())));
        }
    }

    #[test]
    fn only_a_directory_that_openssl_can_search_names_authorities() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        fs::write(directory.path().join("ca.pem"), "").unwrap();
        assert!(check("ssl.ca.location", path).is_err());
        assert!(check("ssl.key.location", path).is_err());
        fs::write(directory.path().join("9d66eef0.0"), "").unwrap();
        assert_eq!(check("ssl.ca.location", path), Ok(()));
    }
}
