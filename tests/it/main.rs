//! Tests on the mock cluster of librdkafka.
