//! A table for people: sections by results.

use std::fmt::Write as _;

use super::{Report, Word, expected};
use crate::catalogue;

impl Report<'_> {
    /// A table of sections, and a list of what failed or deviates.
    // Writing to a String cannot fail.
    pub fn markdown(&self, server: &str) -> String {
        let mut text = format!(
            "## {server}\n\n| section | passed | failed | deviates | not offered |\n| --- | --- | --- | --- | --- |\n"
        );
        for section in catalogue::sections() {
            let of_section = |matches: &dyn Fn(Word<'_>) -> bool| {
                let words = self.words().filter(|(_, word)| matches(*word));
                words
                    .filter(|(check, _)| section.requirements.contains_key(check.id))
                    .count()
            };
            let failed = of_section(&|word| matches!(word, Word::Failed(_) | Word::Broken(_)));
            let passed = of_section(&|word| word == Word::Passed);
            let deviates = of_section(&|word| matches!(word, Word::Deviates(_)));
            let not_offered = of_section(&|word| matches!(word, Word::NotOffered(_)));
            if failed + passed + deviates + not_offered > 0 {
                let title = &section.title;
                let _ = writeln!(
                    text,
                    "| {title} | {passed} | {failed} | {deviates} | {not_offered} |"
                );
            }
        }
        let mut list = String::new();
        for (check, word) in self.words() {
            let _ = match word {
                Word::Passed | Word::NotOffered(_) => Ok(()),
                Word::Deviates(reason) => {
                    writeln!(list, "- {} ({}) deviates: {reason}", check.id, check.level())
                }
                Word::Failed(finding) | Word::Broken(finding) => writeln!(
                    list,
                    "- {} ({}) {}: {} Expected {}, came {}",
                    check.id,
                    check.level(),
                    word.text(),
                    check.says(),
                    expected(check, finding),
                    finding.came
                ),
            };
        }
        if !list.is_empty() {
            let _ = write!(text, "\n{list}");
        }
        text
    }
}
