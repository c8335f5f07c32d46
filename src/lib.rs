//! northbridge carries an `IoT` platform's notifications onto Kafka and never
//! loses one that it acknowledged.

pub mod streams;
