//! JUnit's XML: what CI systems show.

use std::fmt::Write as _;

use super::{Report, Word, failure};
use crate::catalogue;

impl Report<'_> {
    /// One test case for each check; its class is the section.
    // Writing to a String cannot fail.
    pub fn junit(&self) -> String {
        let mut cases = String::new();
        for (check, word) in self.words() {
            let section = catalogue::section_of(check.id).map_or("", |section| section.title.as_str());
            let (class, id) = (escaped(section), check.id);
            let _ = write!(cases, "  <testcase classname=\"{class}\" name=\"{id}\"");
            let _ = match word {
                Word::Passed => writeln!(cases, "/>"),
                Word::NotOffered(why) | Word::Deviates(why) => {
                    writeln!(
                        cases,
                        "><skipped message=\"{}: {}\"/></testcase>",
                        word.text(),
                        escaped(why)
                    )
                }
                Word::Failed(finding) | Word::Broken(finding) => writeln!(
                    cases,
                    "><failure message=\"{}\">{}</failure></testcase>",
                    escaped(&finding.to_string()),
                    escaped(&failure(check, word.text(), finding))
                ),
            };
        }
        let skipped = self.count(|word| matches!(word, Word::NotOffered(_) | Word::Deviates(_)));
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"reapi-conformance\" tests=\"{}\" failures=\"{}\" skipped=\"{skipped}\">\n{cases}</testsuite>\n",
            self.results.len(),
            self.failed()
        )
    }
}

/// Text that can stand in an element or in an attribute.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(character),
            // XML 1.0 has no spelling for the other control characters.
            control if control.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}
