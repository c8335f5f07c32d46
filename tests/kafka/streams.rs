//! The streams on a real cluster: whatever crashes, the output topics hold what
//! the model computes from the input topics, nothing doubled, nothing missing.

mod brokers;
mod crashes;
mod deltas;
mod foreign;
mod input;
mod instances;
mod limits;
mod orphans;
mod outputs;
mod restore;
mod shutdown;
mod topics;
mod zombies;
