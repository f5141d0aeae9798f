//! Values as text: in errors, and in printed configurations.

use figment::value::Value;

use super::yaml::Node;

/// Characters of a found value that an error shows; enough to recognise it.
pub(crate) const SHOWN_CHARS_MAX: usize = 120;

/// What stands in a value, for "found …".
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::String(_, text) => quoted(text),
        Value::Char(_, c) => quoted(&c.to_string()),
        Value::Bool(_, yes) => yes.to_string(),
        Value::Num(_, number) => format!(
            "the number {}",
            number_text(value).unwrap_or_else(|| format!("{number:?}"))
        ),
        Value::Empty(..) => "nothing".to_owned(),
        Value::Dict(..) => "a map".to_owned(),
        Value::Array(..) => "a list".to_owned(),
    }
}

/// A number in digits.
pub(crate) fn number_text(value: &Value) -> Option<String> {
    let unsigned = value.to_u128().map(|number| number.to_string());
    let signed = || value.to_i128().map(|number| number.to_string());
    unsigned
        .or_else(signed)
        .or_else(|| value.to_f64().map(|number| number.to_string()))
}

/// Text as a YAML scalar on one line: bare if it is read back as the same text, else in quotes.
pub(crate) fn scalar(text: &str) -> String {
    let harmless = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "./_:-[]".contains(c))
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || "/.".contains(c));
    let same = || matches!(Node::parse(text), Ok(Node::Scalar(Value::String(_, read))) if read == text);
    if harmless && same() {
        text.to_owned()
    } else {
        escaped(text)
    }
}

/// Text in double quotes, shortened for an error message.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", escaped(&text[..end])),
        None => escaped(text),
    }
}

/// Text in YAML's double quotes. Whatever is not plainly printable is written by number.
pub(crate) fn escaped(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric() => quoted.push(c),
            c => quoted.push_str(&format!("\\U{:08X}", u32::from(c))),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_unless_it_is_read_back_as_itself() {
        for (text, written) in [
            ("10GiB", "10GiB"),
            ("127.0.0.1:8980", "127.0.0.1:8980"),
            ("true", "\"true\""),
            ("12", "\"12\""),
            ("", "\"\""),
            ("a: b", "\"a: b\""),
            ("a\u{2028}\"", "\"a\\U00002028\\\"\""),
            ("[::1]:80", "\"[::1]:80\""),
            ("-", "\"-\""),
        ] {
            assert_eq!(scalar(text), written);
        }
    }
}
