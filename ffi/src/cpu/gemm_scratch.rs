//! What the threads of a product share and keep: pointers into one matrix, memory for packed panels and sums.

use crate::memory::Pages;
use std::cell::Cell;

/// A pointer that the tasks of one product share.
#[derive(Clone, Copy)]
pub struct Shared<T>(pub *mut T);
// SAFETY: the tasks write disjoint parts.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub fn get(self) -> *mut T {
        self.0
    }
}

/// Memory for packed panels that a thread keeps from call to call. Taken out while in use: a thread that waits for its tasks may
/// start another product meanwhile, which then takes memory of its own.
#[derive(Default)]
pub struct Scratch(Pages);

pub type Slot = std::thread::LocalKey<Cell<Scratch>>;

thread_local! {
    pub static B_SCRATCH: Cell<Scratch> = Cell::default();
    pub static SUMS_SCRATCH: Cell<Scratch> = Cell::default();
    pub static TASK_SCRATCH: Cell<Scratch> = Cell::default();
}

impl Scratch {
    pub fn take(slot: &'static Slot) -> Self {
        slot.take()
    }

    /// At least `units` units with unspecified content, aligned to pages.
    pub fn room(&mut self, units: usize) -> *mut u32 {
        self.0.at_least(units * 4).cast()
    }

    /// Keeps the larger of this and what the slot has got meanwhile.
    pub fn give(self, slot: &'static Slot) {
        let other = slot.take();
        slot.set(if other.0.len() > self.0.len() { other } else { self });
    }
}
