//! `northbridge dev`: the printed commands work and the streams' states appear.

use std::net::SocketAddr;

use rustix::process::Signal;

use crate::support::http;
use crate::support::northbridge::Northbridge;

#[tokio::test]
async fn both_printed_curl_commands_change_a_printed_state() {
    let dev = Northbridge::start(&["dev"], &[]);
    let address = listener(&dev);
    for notify_type in ["messageConfirm", "swUpgradeResultNotify"] {
        let curl = dev.wait_for_output(|line| line.contains("curl ") && line.contains(notify_type));
        let body = curl
            .split('\'')
            .nth(1)
            .expect("a body in quotes")
            .to_owned();
        assert_eq!(
            http::post(address, "/notifications", body).await.status,
            200
        );
    }
    for state in [
        "state   command-status  key r-1  delivered, device d-1",
        "state   upgrade-result  key d-1  SUCCESS, software 1.5, attempts 1",
        "state   upgrade-operation  key op-1  devices 1, succeeded 1, failed 0",
    ] {
        dev.wait_for_output(|line| line == state);
    }
}

#[tokio::test]
async fn sigint_stops_ingress_and_streams_with_0() {
    let dev = Northbridge::start(&["dev"], &[("log.level", "info")]);
    dev.wait_until_ready();
    dev.signal(Signal::INT);
    assert_eq!(dev.wait(), 0);
    dev.wait_for_output(|line| line.starts_with("Stopped"));
}

fn listener(dev: &Northbridge) -> SocketAddr {
    let line = dev.wait_for_output(|line| line.starts_with("  pushes "));
    let url = line.split("http://").nth(1).expect("a URL");
    let address = url.split('/').next().expect("an address");
    address.parse().expect("an address and a port")
}
