//! The streams on a real cluster: whatever crashes, the output topics contain
//! exactly what the model computes from the input topics.

mod batches;
mod brokers;
mod changes;
mod crashes;
mod deleted;
mod deltas;
mod external_transactions;
mod input;
mod installations;
mod instances;
mod leaving;
mod limits;
mod outputs;
mod rereading;
mod restore;
mod show;
mod shutdown;
mod topics;
mod transactions;
mod unassigned;
mod versions;
mod zombies;
