//! The digest functions that the suite computes.

use sha2::{Digest as _, Sha256};

/// A digest function that the suite computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Function {
    /// That of every check, left unsaid in requests and names.
    #[default]
    Sha256,
    /// A new one, which is always said.
    Blake3,
}

impl Function {
    /// Those beside SHA-256.
    pub const NEW: [Function; 1] = [Function::Blake3];

    /// Its number in the enumeration of digest functions.
    pub fn number(self) -> i32 {
        match self {
            Function::Sha256 => 1,
            Function::Blake3 => 9,
        }
    }

    /// What requests say: nothing where that is allowed.
    pub fn said(self) -> i32 {
        match self {
            Function::Sha256 => 0,
            Function::Blake3 => self.number(),
        }
    }

    /// What stands before the hash in names of resources.
    pub fn segment(self) -> &'static str {
        match self {
            Function::Sha256 => "",
            Function::Blake3 => "blake3/",
        }
    }

    /// Its name, as the enumeration has it.
    pub fn name(self) -> &'static str {
        match self {
            Function::Sha256 => "SHA256",
            Function::Blake3 => "BLAKE3",
        }
    }

    /// The hash of these bytes, in lower-case hexadecimal digits.
    pub fn hash(self, bytes: &[u8]) -> String {
        match self {
            Function::Sha256 => hex::encode(Sha256::digest(bytes)),
            Function::Blake3 => blake3::hash(bytes).to_hex().to_string(),
        }
    }
}
