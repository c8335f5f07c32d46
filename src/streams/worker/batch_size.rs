//! How many records a batch may have: fewer after transactions that failed, more
//! again after each that was committed.
//!
//! A transaction may fail because its batch is large, for example if a quota
//! leaves no time to write it. That cannot be told from other failures, and
//! smaller batches do no harm while transactions fail for another reason.

/// The number of failed transactions in a row that halves a batch. One that was
/// halved before is halved at once.
const HALVED_AFTER: u32 = 2;
/// The number of failed transactions in a row after which a stream is no longer
/// ready.
const STANDSTILL: u32 = 3;

/// The size that the transactions of one stage leave to the next batch. It
/// outlives the stage's clients.
#[derive(Debug)]
pub(crate) struct BatchSize {
    max_records: usize,
    records: usize,
    failed_in_a_row: u32,
}

impl BatchSize {
    pub(crate) fn new(max_records: usize) -> Self {
        Self {
            max_records,
            records: max_records,
            failed_in_a_row: 0,
        }
    }

    /// Returns the number of records at which a batch is full.
    pub(super) fn records(&self) -> usize {
        self.records
    }

    /// Counts a failed transaction of this many records.
    pub(super) fn count_failed(&mut self, records: usize) {
        self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
        if self.failed_in_a_row >= HALVED_AFTER || self.records < self.max_records {
            self.records = self.records.min(records / 2).max(1);
        }
    }

    /// Counts a committed transaction.
    pub(super) fn count_committed(&mut self) {
        self.failed_in_a_row = 0;
        self.records = self.max_records.min(self.records.saturating_mul(2));
    }

    /// Returns whether transactions fail again and again.
    pub(super) fn is_at_standstill(&self) -> bool {
        self.failed_in_a_row >= STANDSTILL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_failure_in_a_row_and_each_further_one_halve_a_batch() {
        let mut size = BatchSize::new(10_000);
        let mut after_failure = |records| {
            size.count_failed(records);
            size.records()
        };
        assert_eq!(after_failure(3_000), 10_000);
        assert_eq!(after_failure(3_000), 1_500);
        assert_eq!(after_failure(1_500), 750);
    }

    #[test]
    fn a_batch_keeps_one_record() {
        let mut size = BatchSize::new(10_000);
        for _ in 0..3 {
            size.count_failed(1);
        }
        assert_eq!(size.records(), 1);
    }

    #[test]
    fn each_committed_transaction_doubles_a_batch_up_to_its_maximum() {
        let mut size = BatchSize::new(1_000);
        (0..2).for_each(|_| size.count_failed(600));
        let mut after_commit = || {
            size.count_committed();
            size.records()
        };
        assert_eq!(
            [after_commit(), after_commit(), after_commit()],
            [600, 1_000, 1_000]
        );
    }

    #[test]
    fn a_batch_that_grows_again_is_halved_at_its_first_failure() {
        let mut size = BatchSize::new(1_000);
        for records in [1_000, 1_000, 500] {
            size.count_failed(records);
        }
        size.count_committed();
        let grown = size.records();
        size.count_failed(grown);
        assert_eq!(size.records(), grown / 2);
    }

    #[test]
    fn a_committed_transaction_ends_a_standstill() {
        let mut size = BatchSize::new(1_000);
        (0..3).for_each(|_| size.count_failed(1));
        assert!(size.is_at_standstill());
        size.count_committed();
        assert!(!size.is_at_standstill());
    }
}
