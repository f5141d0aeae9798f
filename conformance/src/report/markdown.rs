//! A table for people: sections by results.

use std::fmt::Write as _;

use super::{PROPERTIES, PROXY, Report, Word};
use crate::catalogue;

impl Report<'_> {
    /// A table of sections, and a list of what failed or deviates.
    // Writing to a String cannot fail.
    pub fn markdown(&self, server: &str) -> String {
        let mut text = format!(
            "## {server}\n\n| section | passed | failed | deviates | not offered |\n| --- | --- | --- | --- | --- |\n"
        );
        let sections = catalogue::sections().iter().map(|section| section.title.as_str());
        for title in sections.chain([PROPERTIES, PROXY]) {
            let of_section = |matches: &dyn Fn(Word<'_>) -> bool| {
                let mine = self.lines().filter(|line| line.section == title);
                mine.filter(|line| matches(line.word)).count()
            };
            let failed = of_section(&|word| matches!(word, Word::Failed(_) | Word::Broken(_)));
            let passed = of_section(&|word| word == Word::Passed);
            let deviates = of_section(&|word| matches!(word, Word::Deviates(_)));
            let not_offered = of_section(&|word| matches!(word, Word::NotOffered(_)));
            if failed + passed + deviates + not_offered > 0 {
                let _ = writeln!(
                    text,
                    "| {title} | {passed} | {failed} | {deviates} | {not_offered} |"
                );
            }
        }
        let mut list = String::new();
        for line in self.lines() {
            match line.word {
                Word::Passed | Word::NotOffered(_) => {}
                Word::Deviates(reason) => {
                    let _ = writeln!(list, "- {} ({}) deviates: {reason}", line.id, line.level);
                }
                Word::Failed(finding) | Word::Broken(finding) => {
                    let (word, expected) = (line.word.text(), line.expected(finding));
                    let (id, level, says, came) = (line.id, line.level, line.says, &finding.came);
                    let _ = writeln!(
                        list,
                        "- {id} ({level}) {word}: {says} Expected {expected}, came {came}"
                    );
                    if let Some((cases, seed)) = line.drawn {
                        let input = code(&finding.sent);
                        let _ = writeln!(list, "  - {input}, one of {cases} inputs of seed {seed}");
                        for call in &finding.calls {
                            let _ = writeln!(list, "  - {}", code(call));
                        }
                    }
                }
            }
        }
        if !list.is_empty() {
            let _ = write!(text, "\n{list}");
        }
        text
    }
}

/// Text as a span of code, which can hold no backtick of its own.
fn code(text: &str) -> String {
    format!("`{}`", text.replace('`', "'"))
}
