//! Gates: they hold calls until a test lets them go.

use tokio::sync::watch;

/// Holds calls until it is released or dropped.
#[must_use = "a gate opens when it is dropped"]
#[derive(Debug)]
pub struct Gate {
    state: watch::Sender<GateState>,
}

/// The calls' side of a gate.
#[derive(Clone, Debug)]
pub(crate) struct Barrier(watch::Sender<GateState>);

#[derive(Clone, Copy, Debug, Default)]
struct GateState {
    reached: u64,
    released: bool,
}

impl Gate {
    pub(crate) fn new() -> (Gate, Barrier) {
        let state = watch::Sender::new(GateState::default());
        (Gate { state: state.clone() }, Barrier(state))
    }

    /// Waits until a call is held here, or was.
    pub async fn reached(&self) {
        self.reached_by(1).await;
    }

    /// Waits until that many calls came this far, over the gate's life.
    pub async fn reached_by(&self, calls: u64) {
        let mut states = self.state.subscribe();
        let reached = states.wait_for(|state| state.reached >= calls).await;
        reached.expect("the gate holds the sender");
    }

    /// How many calls came this far.
    pub fn count(&self) -> u64 {
        self.state.borrow().reached
    }

    /// Lets all go, those who come later too.
    pub fn release(&self) {
        self.state.send_modify(|state| state.released = true);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.release();
    }
}

impl Barrier {
    pub(crate) fn is_open(&self) -> bool {
        self.0.borrow().released
    }

    /// Says that a call is here, and waits until it may pass.
    pub(crate) async fn pass(&self) {
        let mut states = self.0.subscribe();
        self.0.send_modify(|state| state.reached += 1);
        let released = states.wait_for(|state| state.released).await;
        drop(released.expect("the barrier has the sender"));
    }
}
