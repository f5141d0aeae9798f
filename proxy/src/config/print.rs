//! The configuration for people: the effective values, and the table of all fields.

use super::field::{Effective, Field, fields};

/// One line per value, sections nested, each value with where it came from.
pub(crate) fn effective_as_yaml(effective: &[Effective]) -> String {
    let mut text = String::new();
    let mut current = "";
    for leaf in effective {
        let (section, name) = leaf.path.rsplit_once('.').unwrap_or(("", leaf.path));
        if section != current && !section.is_empty() {
            text.push_str(&format!("{section}:\n"));
        }
        current = section;
        let indent = if section.is_empty() { "" } else { "  " };
        text.push_str(&format!(
            "{indent}{name}: {}  # {}\n",
            leaf.rendered,
            leaf.origin.to_string().escape_debug()
        ));
    }
    text
}

/// Every field as a row of a Markdown table.
#[must_use]
pub fn fields_as_markdown() -> String {
    let mut text =
        String::from("| field | environment | default | accepted | |\n| --- | --- | --- | --- | --- |\n");
    for field in fields() {
        let Field {
            path,
            default,
            ref form,
            help,
            ..
        } = field;
        let row = [
            format!("`{path}`"),
            format!("`{}`", field.variable()),
            format!("`{default}`"),
            form.clone(),
            help.into(),
        ];
        let cells: Vec<_> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text
}
