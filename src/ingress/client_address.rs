//! The client's address behind trusted proxies, and the networks an address
//! can belong to.
//!
//! The address comes only from a source that can be trusted: the connection
//! itself, `X-Forwarded-For` written by a trusted proxy, or the PROXY protocol
//! (version 1 or 2) sent by one. Knows nothing of whether an address may push
//! (`auth`), nor how long a PROXY header may take (`connection`).

use std::io;
use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};
use ipnet::{IpNet, Ipv4Net};
use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::config::{Auth, ClientAddress};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The signature of version 2 (the PROXY protocol, 2.2). The shortest header of
/// version 1 is longer.
const SIGNATURE_BYTES: usize = 12;

/// The fixed part of a header of version 2: the signature, then version and
/// command, family and protocol, and the length of the rest.
const FIXED_BYTES: usize = 16;

/// The first word of a header of version 1, a line of text (the PROXY protocol,
/// 2.1).
const V1_START: &[u8] = b"PROXY ";

/// The longest header of version 1, with its line break.
const MAX_V1_BYTES: usize = 107;

/// The position of version and command in a PROXY header.
const VERSION_AND_COMMAND: usize = 12;

/// Version 2, command LOCAL.
const V2_LOCAL: u8 = 0x20;

/// The longest PROXY header that is read, addresses and extensions together.
///
/// The protocol allows 64 KiB, but addresses have at most 216 bytes, and the
/// extensions that cloud load balancers add have well under 1 KiB.
const MAX_PROXY_HEADER_BYTES: usize = 4096;

/// Finds the client of a request, and trusts only the configured proxies.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClientAddresses {
    source: ClientAddress,
    trusted_proxies: Networks,
}

impl ClientAddresses {
    pub(crate) fn new(auth: &Auth) -> Self {
        Self {
            source: auth.client_address,
            trusted_proxies: Networks::new(auth.trusted_proxies.clone()),
        }
    }

    /// Returns whether a connection from `peer` must start with a PROXY header,
    /// which [`read_proxy_header`] must then read before anything else is read.
    pub(crate) fn expects_proxy_header(&self, peer: IpAddr) -> bool {
        self.source == ClientAddress::ProxyProtocol && self.trusted_proxies.contains(peer)
    }

    /// Returns whether every request on a connection from `peer` comes from the same
    /// client, which is known before the first one.
    pub(crate) fn is_of_connection(&self, peer: IpAddr) -> bool {
        self.source != ClientAddress::XForwardedFor || !self.trusted_proxies.contains(peer)
    }

    /// The client of a request that arrived from `peer`: the other end of the
    /// connection, or the source in its PROXY header.
    ///
    /// `None` if a trusted proxy's `X-Forwarded-For` cannot be parsed: the
    /// client is then unknown and belongs to no network.
    pub(crate) fn of_request(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        match self.source {
            ClientAddress::Connection | ClientAddress::ProxyProtocol => Some(peer.to_canonical()),
            ClientAddress::XForwardedFor => self.forwarded(peer.to_canonical(), headers),
        }
    }

    /// Walks from the nearest hop to the farthest and stops at the first that
    /// is not a trusted proxy: whatever is left of it is that hop's own claim.
    fn forwarded(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        let lines = headers.get_all(X_FORWARDED_FOR);
        let hops = lines
            .iter()
            .rev()
            .flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|hop| !hop.is_empty());
        let mut client = peer;
        for hop in hops {
            if !self.trusted_proxies.contains(client) {
                break;
            }
            client = parse_hop(hop)?;
        }
        Some(client)
    }
}

/// A set of networks. An IPv4-mapped IPv6 address (`::ffff:0:0/96`) is the IPv4
/// address, in the set as in a question to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Networks(Vec<IpNet>);

impl Networks {
    pub(crate) fn new(networks: Vec<IpNet>) -> Self {
        Self(networks.into_iter().map(canonical).collect())
    }

    /// Returns whether one of the networks contains `address`.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// Why a trusted proxy's connection does not start with a usable PROXY header.
/// The protocol requires that such a connection is closed without an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyHeaderError {
    #[error("the connection does not start with a header of the PROXY protocol")]
    Missing,
    #[error("the PROXY header is malformed: {0}")]
    MalformedLine(#[from] v1::BinaryParseError),
    #[error("the PROXY header has {bytes} bytes or more, which is too long")]
    TooLong { bytes: usize },
    #[error("the PROXY header is malformed: {0}")]
    Malformed(#[from] v2::ParseError),
    #[error("the connection failed within the PROXY header: {0}")]
    Io(#[from] io::Error),
}

/// Reads the PROXY header at the start of a connection, of version 1 or 2, and
/// not a byte more: what follows is left in `stream`.
///
/// Returns `None` if the header names no client, so that the peer's own address
/// counts: for the command LOCAL, with which a proxy checks the listener's
/// health, for UNKNOWN, and for address families other than IP.
pub(crate) async fn read_proxy_header<S>(
    stream: &mut S,
) -> Result<Option<SocketAddr>, ProxyHeaderError>
where
    S: AsyncRead + Unpin,
{
    let mut header = vec![0; SIGNATURE_BYTES];
    stream.read_exact(&mut header).await?;
    if header.starts_with(V1_START) {
        return read_line(stream, header).await;
    }
    if header != v2::PROTOCOL_PREFIX {
        return Err(ProxyHeaderError::Missing);
    }
    header.resize(FIXED_BYTES, 0);
    stream.read_exact(&mut header[SIGNATURE_BYTES..]).await?;
    let rest_bytes = u16::from_be_bytes([header[14], header[15]]);
    let bytes = FIXED_BYTES + usize::from(rest_bytes);
    if bytes > MAX_PROXY_HEADER_BYTES {
        return Err(ProxyHeaderError::TooLong { bytes });
    }
    header.resize(bytes, 0);
    stream.read_exact(&mut header[FIXED_BYTES..]).await?;
    client_of(&header)
}

/// Reads the rest of a header of version 1. Its length is unknown before its end,
/// so byte by byte.
async fn read_line<S>(
    stream: &mut S,
    mut line: Vec<u8>,
) -> Result<Option<SocketAddr>, ProxyHeaderError>
where
    S: AsyncRead + Unpin,
{
    while !line.ends_with(b"\r\n") {
        if line.len() == MAX_V1_BYTES {
            return Err(ProxyHeaderError::TooLong { bytes: line.len() });
        }
        line.push(stream.read_u8().await?);
    }
    Ok(match v1::Header::try_from(line.as_slice())?.addresses {
        v1::Addresses::Tcp4(ends) => {
            Some(SocketAddr::from((ends.source_address, ends.source_port)))
        }
        v1::Addresses::Tcp6(ends) => Some(SocketAddr::new(
            IpAddr::V6(ends.source_address).to_canonical(),
            ends.source_port,
        )),
        v1::Addresses::Unknown => None,
    })
}

fn client_of(header: &[u8]) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    // The addresses of LOCAL must be ignored, even if they cannot be parsed.
    if header[VERSION_AND_COMMAND] == V2_LOCAL {
        return Ok(None);
    }
    Ok(match v2::Header::try_from(header)?.addresses {
        v2::Addresses::IPv4(ends) => {
            Some(SocketAddr::from((ends.source_address, ends.source_port)))
        }
        v2::Addresses::IPv6(ends) => Some(SocketAddr::new(
            IpAddr::V6(ends.source_address).to_canonical(),
            ends.source_port,
        )),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
    })
}

/// An address, in brackets or with a port as some load balancers write it.
fn parse_hop(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?;
    let bracketed = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']'));
    let address = bracketed
        .unwrap_or(hop)
        .parse::<IpAddr>()
        .or_else(|_| hop.parse::<SocketAddr>().map(|hop| hop.ip()))
        .ok()?;
    Some(address.to_canonical())
}

/// A network within `::ffff:0:0/96` as the IPv4 network that it maps.
fn canonical(network: IpNet) -> IpNet {
    let mapped_bits = network.prefix_len().checked_sub(96);
    match (network.addr().to_canonical(), mapped_bits) {
        (IpAddr::V4(address), Some(bits)) if matches!(network, IpNet::V6(_)) => {
            Ipv4Net::new(address, bits).map_or(network, IpNet::V4)
        }
        (IpAddr::V4(_) | IpAddr::V6(_), _) => network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn networks(texts: &[&str]) -> Networks {
        let network = |text: &&str| {
            let address = || text.parse::<IpAddr>().map(IpNet::from);
            text.parse::<IpNet>().or_else(|_| address()).unwrap()
        };
        Networks::new(texts.iter().map(network).collect())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn forwarded_for(lines: &[&str]) -> HeaderMap {
        let lines = lines.iter().map(|line| line.parse().unwrap());
        lines.map(|line| (X_FORWARDED_FOR, line)).collect()
    }

    fn addresses(source: ClientAddress, trusted_proxies: &[&str]) -> ClientAddresses {
        ClientAddresses {
            source,
            trusted_proxies: networks(trusted_proxies),
        }
    }

    fn behind_proxies() -> ClientAddresses {
        addresses(ClientAddress::XForwardedFor, &["10.0.0.0/8", "fd00::/8"])
    }

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        let rows = [
            ("10.0.0.0/8", "10.200.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3/8", "10.200.0.1", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("::ffff:10.0.0.0/104", "10.0.0.1", true),
            ("::ffff:10.0.0.0/104", "11.0.0.1", false),
            ("::ffff:192.0.2.7", "192.0.2.7", true),
            ("2001:db8::/32", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "10.0.0.1", false),
            ("::/0", "2001:db8::1", true),
            ("0.0.0.0/0", "::ffff:10.0.0.1", true),
            ("0.0.0.0/0", "::1", false),
        ];
        for (network, address, expected) in rows {
            let contained = networks(&[network]).contains(ip(address));
            assert_eq!(contained, expected, "{address} in {network}");
        }
    }

    #[test]
    fn the_client_is_the_rightmost_hop_that_is_not_trusted() {
        let rows: &[(&str, &[&str], Option<&str>)] = &[
            ("10.0.0.1", &["192.0.2.1"], Some("192.0.2.1")),
            ("10.0.0.1", &["198.51.100.9, 192.0.2.1"], Some("192.0.2.1")),
            ("10.0.0.1", &["192.0.2.1, 10.0.0.2"], Some("192.0.2.1")),
            (
                "10.0.0.1",
                &["192.0.2.1", "10.0.0.2,10.0.0.3"],
                Some("192.0.2.1"),
            ),
            (
                "10.0.0.1",
                &["198.51.100.9", "192.0.2.1"],
                Some("192.0.2.1"),
            ),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], Some("10.0.0.3")),
            ("10.0.0.1", &[], Some("10.0.0.1")),
            ("10.0.0.1", &["", " , "], Some("10.0.0.1")),
            ("10.0.0.1", &["garbage, 192.0.2.1"], Some("192.0.2.1")),
            ("10.0.0.1", &["192.0.2.1, garbage"], None),
            ("10.0.0.1", &["192.0.2.1, unknown, 10.0.0.2"], None),
            ("10.0.0.1", &["192.0.2.1:4711"], Some("192.0.2.1")),
            ("10.0.0.1", &["[2001:db8::1]:4711"], Some("2001:db8::1")),
            ("10.0.0.1", &["2001:db8::1"], Some("2001:db8::1")),
            ("10.0.0.1", &["::ffff:192.0.2.1"], Some("192.0.2.1")),
            (
                "10.0.0.1",
                &["192.0.2.1, ::ffff:10.0.0.2"],
                Some("192.0.2.1"),
            ),
            ("::ffff:10.0.0.1", &["192.0.2.1"], Some("192.0.2.1")),
            ("fd00::1", &["192.0.2.1"], Some("192.0.2.1")),
            ("203.0.113.5", &["192.0.2.1"], Some("203.0.113.5")),
            ("203.0.113.5", &["garbage"], Some("203.0.113.5")),
        ];
        for (peer, lines, expected) in rows {
            let client = behind_proxies().of_request(ip(peer), &forwarded_for(lines));
            assert_eq!(client, expected.map(ip), "{peer} with {lines:?}");
        }
    }

    #[test]
    fn x_forwarded_for_counts_only_if_it_is_the_configured_source() {
        for source in [ClientAddress::Connection, ClientAddress::ProxyProtocol] {
            let addresses = addresses(source, &["10.0.0.0/8"]);
            let client =
                addresses.of_request(ip("::ffff:10.0.0.1"), &forwarded_for(&["192.0.2.1"]));
            assert_eq!(client, Some(ip("10.0.0.1")), "{source:?}");
        }
    }

    #[test]
    fn a_proxy_header_is_expected_only_from_trusted_proxies() {
        let rows = [
            (ClientAddress::ProxyProtocol, "10.0.0.1", true),
            (ClientAddress::ProxyProtocol, "192.0.2.1", false),
            (ClientAddress::XForwardedFor, "10.0.0.1", false),
            (ClientAddress::Connection, "10.0.0.1", false),
        ];
        for (source, peer, expected) in rows {
            let addresses = addresses(source, &["10.0.0.0/8"]);
            assert_eq!(
                addresses.expects_proxy_header(ip(peer)),
                expected,
                "{source:?} {peer}"
            );
        }
    }

    fn proxy_header(version_and_command: u8, family_and_protocol: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = v2::PROTOCOL_PREFIX.to_vec();
        header.extend([version_and_command, family_and_protocol]);
        header.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        header.extend(rest);
        header
    }

    fn ipv4_ends() -> Vec<u8> {
        vec![192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x67, 0x1f, 0x90]
    }

    fn ipv6_ends(source: &str) -> Vec<u8> {
        let source: std::net::Ipv6Addr = source.parse().unwrap();
        let mut ends = source.octets().to_vec();
        ends.extend([0; 16]);
        ends.extend([0x12, 0x67, 0x1f, 0x90]);
        ends
    }

    #[tokio::test]
    async fn a_proxy_header_names_the_client_and_nothing_after_it_is_read() {
        let extended = [ipv4_ends(), vec![0x04, 0, 3, 1, 2, 3]].concat();
        let longest = [
            ipv4_ends(),
            vec![0; MAX_PROXY_HEADER_BYTES - FIXED_BYTES - 12],
        ]
        .concat();
        let rows = [
            (0x21, 0x11, ipv4_ends(), Some("192.0.2.1:4711")),
            (0x21, 0x11, extended, Some("192.0.2.1:4711")),
            (0x21, 0x11, longest, Some("192.0.2.1:4711")),
            (
                0x21,
                0x21,
                ipv6_ends("2001:db8::1"),
                Some("[2001:db8::1]:4711"),
            ),
            (
                0x21,
                0x21,
                ipv6_ends("::ffff:192.0.2.1"),
                Some("192.0.2.1:4711"),
            ),
            (0x21, 0x31, vec![0; 216], None),
            (0x21, 0x00, vec![], None),
            (0x20, 0x00, vec![], None),
            (0x20, 0x11, ipv4_ends(), None),
            (0x20, 0x11, vec![], None),
        ];
        for (version_and_command, family_and_protocol, rest, expected) in rows {
            let header = proxy_header(version_and_command, family_and_protocol, &rest);
            let sent = [header, b"POST / HTTP/1.1".to_vec()].concat();
            let mut stream = sent.as_slice();
            let client = read_proxy_header(&mut stream).await.unwrap();
            let expected = expected.map(|address| address.parse().unwrap());
            assert_eq!(
                client, expected,
                "{version_and_command:x} {family_and_protocol:x}"
            );
            assert_eq!(stream, b"POST / HTTP/1.1");
        }
    }

    #[tokio::test]
    async fn a_connection_without_a_usable_proxy_header_is_rejected() {
        let cut = proxy_header(0x21, 0x11, &ipv4_ends())[..20].to_vec();
        let too_long = vec![0; MAX_PROXY_HEADER_BYTES - FIXED_BYTES + 1];
        let rows = [
            (b"POST /notifications HTTP/1.1\r\n".to_vec(), "Missing"),
            (
                b"PROXY TCP4 192.0.2.1 10.0.0.1 1\r\n".to_vec(),
                "MalformedLine",
            ),
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2".to_vec(), "Io"),
            ([&b"PROXY "[..], &[b'x'; 200]].concat(), "TooLong"),
            (vec![], "Io"),
            (b"\r\n\r\n".to_vec(), "Io"),
            (cut, "Io"),
            (proxy_header(0x21, 0x11, &too_long), "TooLong"),
            (proxy_header(0x11, 0x11, &ipv4_ends()), "Malformed"),
            (proxy_header(0x22, 0x11, &ipv4_ends()), "Malformed"),
            (proxy_header(0x21, 0x41, &ipv4_ends()), "Malformed"),
            (proxy_header(0x21, 0x11, &[1, 2, 3]), "Malformed"),
        ];
        for (sent, expected) in rows {
            let error = read_proxy_header(&mut sent.as_slice()).await.unwrap_err();
            let variant = format!("{error:?}");
            assert!(variant.starts_with(expected), "{variant} for {sent:?}");
        }
    }

    #[tokio::test]
    async fn a_line_of_version_1_names_the_client_and_is_read_to_its_end_alone() {
        let address = ["ffff"; 8].join(":");
        let longest = format!("PROXY UNKNOWN {address} {address} 65535 65535\r\n");
        assert_eq!(longest.len(), MAX_V1_BYTES);
        let rows = [
            (
                "PROXY TCP4 192.0.2.1 10.0.0.1 4711 80\r\n",
                Some("192.0.2.1:4711"),
            ),
            (
                "PROXY TCP6 2001:db8::1 ::1 4711 80\r\n",
                Some("[2001:db8::1]:4711"),
            ),
            (
                "PROXY TCP6 ::ffff:192.0.2.1 ::1 4711 80\r\n",
                Some("192.0.2.1:4711"),
            ),
            ("PROXY UNKNOWN\r\n", None),
            (&longest, None),
        ];
        for (line, expected) in rows {
            let sent = format!("{line}POST");
            let mut rest = sent.as_bytes();
            let client = read_proxy_header(&mut rest).await.unwrap();
            assert_eq!(
                client,
                expected.map(|client| client.parse().unwrap()),
                "{line}"
            );
            assert_eq!(rest, b"POST", "{line}");
        }
    }

    proptest! {
        #[test]
        fn a_client_cannot_claim_another_address(claim in "[ -~]{0,80}") {
            let line = format!("{claim}, 192.0.2.1");
            let headers = forwarded_for(&[&claim, &line, "10.0.0.2"]);
            let client = behind_proxies().of_request(ip("10.0.0.1"), &headers);
            prop_assert_eq!(client, Some(ip("192.0.2.1")));
        }
    }
}
