//! JUnit's XML: what CI systems show.

use std::fmt::Write as _;

use super::{Report, Word};

impl Report<'_> {
    /// One test case for each check and each property; its class is the section.
    // Writing to a String cannot fail.
    pub fn junit(&self) -> String {
        let mut cases = String::new();
        for line in self.lines() {
            let mut inner = String::new();
            if let Some((cases, seed)) = line.drawn {
                let property = |name, value| format!("<property name=\"{name}\" value=\"{value}\"/>");
                let both = property("cases", u64::from(cases)) + &property("seed", seed);
                let _ = write!(inner, "<properties>{both}</properties>");
            }
            let _ = match line.word {
                Word::Passed => Ok(()),
                Word::NotOffered(why) | Word::Deviates(why) => {
                    let message = format!("{}: {}", line.word.text(), escaped(why));
                    write!(inner, "<skipped message=\"{message}\"/>")
                }
                Word::Failed(finding) | Word::Broken(finding) => write!(
                    inner,
                    "<failure message=\"{}\">{}</failure>",
                    escaped(&finding.to_string()),
                    escaped(&line.failure(self.id_width(), finding))
                ),
            };
            let (class, id) = (escaped(line.section), line.id);
            let _ = write!(cases, "  <testcase classname=\"{class}\" name=\"{id}\"");
            let _ = match inner.is_empty() {
                true => writeln!(cases, "/>"),
                false => writeln!(cases, ">{inner}</testcase>"),
            };
        }
        let skipped = self.count(|word| matches!(word, Word::NotOffered(_) | Word::Deviates(_)));
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"reapi-conformance\" tests=\"{}\" failures=\"{}\" skipped=\"{skipped}\">\n{cases}</testsuite>\n",
            self.lines().count(),
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
