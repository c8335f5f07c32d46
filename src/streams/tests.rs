//! What the tests of the three states share: generated upgrade results, records of states, and the
//! published schemas.

pub(super) mod campaigns;
pub(super) mod records;
pub(super) mod schemas;
