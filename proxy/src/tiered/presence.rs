//! Which blobs are missing: Tier 2's word, asked for every time (P2). A copy in Tier 1 proves nothing.

use std::collections::HashSet;

use super::CallError;
use super::writes::Writes;
use crate::call::Call;
use crate::digest::Digest;

impl Writes {
    /// Returns those of `digests` that Tier 2 does not have, each once, in the order of the question. The empty blob is
    /// never missing and never asked for; a blob whose copy in Tier 2 is bad is always missing (R10).
    ///
    /// # Errors
    /// What Tier 2 says. A digest that it could not judge is neither missing nor present.
    pub async fn find_missing(&self, call: &Call, digests: &[Digest]) -> Result<Vec<Digest>, CallError> {
        let mut seen = HashSet::new();
        let distinct: Vec<Digest> = digests
            .iter()
            .filter(|digest| !digest.is_empty() && seen.insert(**digest))
            .copied()
            .collect();
        let is_bad = |digest: &Digest| self.0.bad.is_bad(&call.blob(digest));
        let asked: Vec<Digest> = distinct
            .iter()
            .filter(|digest| !is_bad(digest))
            .copied()
            .collect();
        let missing: HashSet<Digest> = match asked.as_slice() {
            [] => HashSet::new(),
            asked => self
                .0
                .tier2
                .find_missing(call, asked)
                .await?
                .into_iter()
                .collect(),
        };
        Ok(distinct
            .into_iter()
            .filter(|digest| missing.contains(digest) || is_bad(digest))
            .collect())
    }
}
