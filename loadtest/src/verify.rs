//! x
pub mod event;
pub mod ledger;
