//! Names of scopes, each kept once while something is remembered under it.

use std::collections::HashMap;

use crate::call::Scope;

/// A scope in four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ScopeId(u32);

/// Bytes that a scope takes beside its name: two pointers to it, its place and its count, at the load at which a map is
/// at its largest.
const SCOPE_BYTES: usize = 128;

/// The scopes in use.
#[derive(Default)]
pub(super) struct Scopes {
    by_name: HashMap<Scope, ScopeId>,
    places: Vec<Place>,
    free: Vec<ScopeId>,
    name_bytes: usize,
}

#[derive(Default)]
struct Place {
    scope: Option<Scope>,
    holders: u32,
}

impl Scopes {
    /// Bytes of memory that are in use.
    pub(super) fn bytes(&self) -> usize {
        self.by_name.len() * SCOPE_BYTES + self.name_bytes
    }

    pub(super) fn find(&self, scope: &Scope) -> Option<ScopeId> {
        self.by_name.get(scope).copied()
    }

    /// Takes note of one more holder.
    pub(super) fn hold(&mut self, scope: &Scope) -> ScopeId {
        let id = self.find(scope).unwrap_or_else(|| self.add(scope));
        if let Some(place) = self.place(id) {
            place.holders += 1;
        }
        id
    }

    /// One holder less. The last one takes the name along.
    pub(super) fn release(&mut self, id: ScopeId) {
        let Some(place) = self.place(id) else {
            return;
        };
        place.holders = place.holders.saturating_sub(1);
        if place.holders > 0 {
            return;
        }
        if let Some(scope) = place.scope.take() {
            self.by_name.remove(&scope);
            self.name_bytes -= scope.as_str().len();
            self.free.push(id);
        }
    }

    fn place(&mut self, id: ScopeId) -> Option<&mut Place> {
        self.places.get_mut(id.0 as usize)
    }

    fn add(&mut self, scope: &Scope) -> ScopeId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            ScopeId(u32::try_from(self.places.len() - 1).expect("fewer scopes than leases"))
        });
        if let Some(place) = self.place(id) {
            place.scope = Some(scope.clone());
        }
        self.by_name.insert(scope.clone(), id);
        self.name_bytes += scope.as_str().len();
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_goes_with_its_last_holder_and_its_place_is_used_again() {
        let mut scopes = Scopes::default();
        let (a, b) = (Scope::new("a"), Scope::new("bb"));
        let id = scopes.hold(&a);
        assert_eq!(scopes.hold(&a), id);
        assert_ne!(scopes.hold(&b), id);
        assert_eq!(scopes.bytes(), 2 * SCOPE_BYTES + 3);
        scopes.release(id);
        assert_eq!(scopes.find(&a), Some(id));
        scopes.release(id);
        assert_eq!(scopes.find(&a), None);
        assert_eq!(scopes.bytes(), SCOPE_BYTES + 2);
        assert_eq!(scopes.hold(&Scope::new("c")), id);
    }
}
