//! The streams on a real cluster: whatever crashes, the output topics hold what
//! the model computes from the input topics, nothing doubled, nothing missing.

#[cfg(feature = "long-tests")]
mod brokers;
#[cfg(feature = "long-tests")]
mod crashes;
mod deltas;
mod input;
mod instances;
mod limits;
mod outputs;
#[cfg(feature = "long-tests")]
mod restore;
#[cfg(feature = "long-tests")]
mod shutdown;
mod topics;
