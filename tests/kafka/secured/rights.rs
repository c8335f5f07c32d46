//! The rights that the documentation lists, read from its table.

use crate::support::kafka_cluster::secured::{Pattern, Resource, Right};

const OPERATIONS_PAGE: &str = include_str!("../../../docs/operations.md");
/// The rights of one command in the table under "Rights on Kafka", for an
/// installation with this `topics.prefix` and this `streams.group_prefix`.
pub(super) fn documented(command: &str, topics: &str, groups: &str) -> Vec<Right> {
    let rows = OPERATIONS_PAGE.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, of, resource, operations, _] = cells[..] else {
            return None;
        };
        (of == format!("`{command}`")).then_some((resource, operations))
    });
    let rights =
        rows.flat_map(|(resource, operations)| of_row(resource, operations, topics, groups));
    let rights: Vec<Right> = rights.collect();
    assert!(!rights.is_empty(), "no rights are documented for {command}");
    rights
}

fn of_row(resource: &str, operations: &str, topics: &str, groups: &str) -> Vec<Right> {
    let kind = kind(resource);
    let pattern = if resource.contains("prefix") {
        Pattern::Prefixed
    } else {
        Pattern::Literal
    };
    let names = quoted(resource);
    let right = |name: &str, operation: &str| Right {
        resource: kind,
        pattern,
        name: name.replace("iot.", topics).replace("northbridge.", groups),
        operation: operation.to_owned(),
    };
    let of_name = |name: &str| -> Vec<Right> {
        let operations = quoted(operations).into_iter();
        operations.map(|operation| right(name, operation)).collect()
    };
    names.into_iter().flat_map(of_name).collect()
}

fn kind(resource: &str) -> Resource {
    let kinds = [
        ("topic", Resource::Topic),
        ("group", Resource::Group),
        ("transactional", Resource::TransactionalId),
        ("cluster", Resource::Cluster),
    ];
    let found = kinds.iter().find(|(word, _)| resource.contains(word));
    found
        .unwrap_or_else(|| panic!("no kind of resource in {resource}"))
        .1
}

/// Everything in backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}
