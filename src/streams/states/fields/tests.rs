use super::*;

fn text(json: &str) -> Option<String> {
    let [field] = fields_of_record(json.as_bytes(), ["a"]).unwrap();
    field.text().map(Cow::into_owned)
}

#[test]
fn a_string_or_a_number_is_text_and_nothing_else_is() {
    let cases = [
        (r#"{"a":"x"}"#, Some("x")),
        (r#"{"a":"\u0000\u00e9"}"#, Some("\0\u{e9}")),
        (r#"{"a":123}"#, Some("123")),
        (r#"{"a":1.50}"#, Some("1.50")),
        (r#"{"a":-0e99999}"#, Some("-0e99999")),
        (
            r#"{"a":123456789012345678901234567890}"#,
            Some("123456789012345678901234567890"),
        ),
        (r#"{"a":null}"#, None),
        (r#"{"a":true}"#, None),
        (r#"{"a":["x"]}"#, None),
        (r#"{"b":"x"}"#, None),
        (r#"{"a":"x","a":"y"}"#, Some("y")),
        (r#"{"\u0061":"x"}"#, Some("x")),
        ("\u{feff}{\"a\":\"x\"}", Some("x")),
    ];
    for (json, expected) in cases {
        assert_eq!(text(json).as_deref(), expected, "{json}");
    }
}

#[test]
fn a_lone_surrogate_becomes_a_replacement_character_and_affects_no_other_field() {
    let json = r#"{"\ud800":1,"b":"\udc00","a":"x\ud800"}"#;
    let text = text(json).unwrap();
    assert!(text.starts_with('x') && text.contains('\u{fffd}'));
}

#[test]
fn nesting_takes_no_stack() {
    let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
    let json = format!(r#"{{"deep":{deep},"a":"x"}}"#);
    assert_eq!(text(&json).as_deref(), Some("x"));
}

#[test]
fn a_value_that_is_not_a_json_object_is_poison() {
    let cases: [&[u8]; 8] = [
        b"",
        b"null",
        b"[]",
        b"\"a\"",
        b"{",
        b"{}x",
        b"{\"a\":\"\xff\"}",
        b"\xef\xbb\xbf\xef\xbb\xbf{}",
    ];
    for value in cases {
        assert_eq!(
            fields_of_record(value, ["a"]).err(),
            Some(Poison::NotJsonObject),
            "{value:?}"
        );
    }
}

#[test]
fn an_id_has_1_to_512_bytes_and_no_replaced_characters() {
    let limit = "x".repeat(512);
    let over = "x".repeat(513);
    let cases = [
        (r#""r""#, Some("r")),
        ("42", Some("42")),
        (&format!(r#""{limit}""#), Some(limit.as_str())),
        (&format!(r#""{over}""#), None),
        (r#""""#, None),
        (r#""\ud800""#, None),
        ("{}", None),
        ("null", None),
    ];
    for (json, expected) in cases {
        let object = format!(r#"{{"id":{json}}}"#);
        let [id] = fields_of_record(object.as_bytes(), ["id"]).unwrap();
        assert_eq!(id.id().ok().as_deref(), expected, "{json}");
    }
}
