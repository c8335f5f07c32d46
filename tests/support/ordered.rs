//! Pushes that are in flight together, in a known order, and the order in which
//! their records are stored.

use std::thread::{self, JoinHandle};

use super::northbridge::Northbridge;
use super::records::Record;
use super::{eventually, http};

/// How often in a row a push is seen in flight before the next one is sent.
const OBSERVATIONS: i32 = 3;

/// Pushes that wait for their answers, each on a connection of its own.
pub struct PushesInOrder(Vec<JoinHandle<u16>>);

impl PushesInOrder {
    /// Sends each push once the one before it is in flight.
    pub fn send(northbridge: &Northbridge, bodies: &[String]) -> Self {
        let address = northbridge.address();
        let in_flight = || northbridge.metric("northbridge_pushes_in_flight", &[]);
        let send = |body: &String| {
            let (body, before) = (body.clone(), in_flight());
            let push = move || http::post_with(address, "/notifications", &[], body).status;
            let push = thread::spawn(push);
            // A push is in flight when its head has arrived, and in its place a
            // moment later.
            let mut observed = 0;
            eventually("the push is in flight, or answered", || {
                observed += i32::from(in_flight() > before);
                (observed == OBSERVATIONS || push.is_finished()).then_some(())
            });
            push
        };
        Self(bodies.iter().map(send).collect())
    }

    /// The status of each answer, in the order of the pushes.
    pub fn statuses(self) -> Vec<u16> {
        let answers = self.0.into_iter();
        answers.map(|push| push.join().unwrap()).collect()
    }
}

/// The values of a key, each at its first occurrence.
pub fn first_values(records: &[Record], key: &str) -> Vec<String> {
    let mut values = Vec::new();
    for record in records.iter().filter(|record| record.key_text() == key) {
        let value = record.value_text();
        if !values.contains(&value) {
            values.push(value);
        }
    }
    values
}
