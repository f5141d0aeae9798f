//! The table of fetches in the air.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::flight::{Flight, State};
use crate::call::BlobKey;

/// The flights in the air, by blob.
#[derive(Default)]
pub(super) struct Flights {
    by_key: Mutex<HashMap<BlobKey, Arc<Flight>>>,
}

impl Flights {
    /// Works on the table alone: what is looked up and put there is one step for everybody else.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut HashMap<BlobKey, Arc<Flight>>) -> T) -> T {
        work(&mut self.by_key.lock())
    }

    /// Frees the place of a flight that ends.
    pub(super) fn remove(&self, flight: &Arc<Flight>) {
        let mut table = self.by_key.lock();
        if table
            .get(flight.key())
            .is_some_and(|found| Arc::ptr_eq(found, flight))
        {
            table.remove(flight.key());
        }
    }

    /// Frees the place unless a reader is aboard. Nobody can board in between: that takes the table too.
    pub(super) fn remove_if_deserted(&self, flight: &Arc<Flight>) -> bool {
        let mut table = self.by_key.lock();
        if !flight.look(State::is_deserted) {
            return false;
        }
        if table
            .get(flight.key())
            .is_some_and(|found| Arc::ptr_eq(found, flight))
        {
            table.remove(flight.key());
        }
        true
    }
}
