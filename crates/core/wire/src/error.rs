use thiserror::Error;

/// Why bytes are not the packet that the caller asked for.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ParseError {
    /// Fewer bytes than a header, or than the IP length promises.
    #[error("packet is shorter than its headers say")]
    Truncated,
    /// Neither IPv4 nor IPv6.
    #[error("IP version is neither 4 nor 6")]
    Version,
    /// IPv4 header length below 20 bytes.
    #[error("IPv4 header length is below 20 bytes")]
    HeaderLength,
    /// IP total length smaller than the headers it covers.
    #[error("IP length is smaller than the headers")]
    TotalLength,
    /// Bytes behind the IP total length (Ethernet padding; see [`crate::ip::trim`]).
    #[error("bytes follow the end of the IP packet")]
    TrailingBytes,
    /// IPv4 options that do not parse.
    #[error("IPv4 options are malformed")]
    IpOptions,
    /// A source route or a routing header with segments left: the destination is not the last.
    #[error("packet is source routed")]
    SourceRoute,
    /// An IPv6 extension header that does not parse or stands at a forbidden place.
    #[error("IPv6 extension header is malformed")]
    ExtensionHeader,
    /// More extension headers than [`crate::ip::MAX_EXTENSION_HEADERS`].
    #[error("too many IPv6 extension headers")]
    ExtensionHeaderCount,
    /// An IPv6 jumbogram (RFC 2675).
    #[error("packet is a jumbogram")]
    Jumbogram,
    /// A fragment: transport headers cannot be trusted or are absent.
    #[error("packet is a fragment")]
    Fragment,
    /// The transport protocol is TCP.
    #[error("protocol is TCP")]
    Tcp,
    /// The UDP length is below 8 bytes or leaves the packet.
    #[error("UDP length is out of range")]
    UdpLength,
    /// The transport protocol is not TCP.
    #[error("protocol is not TCP")]
    NotTcp,
    /// The transport protocol is not ICMP or ICMPv6 of the packet's family.
    #[error("protocol is not ICMP")]
    NotIcmp,
    /// TCP data offset below 20 bytes or behind the end of the packet.
    #[error("TCP data offset is out of range")]
    TcpOffset,
    /// A TCP option of length 0 or 1, or one that leaves the header.
    #[error("TCP options are malformed")]
    TcpOptions,
    /// Source or destination port 0; a UDP source may have none.
    #[error("port is zero")]
    PortZero,
}

impl ParseError {
    /// Every variant, for tables and counters.
    pub const ALL: [Self; 18] = [
        Self::Truncated,
        Self::Version,
        Self::HeaderLength,
        Self::TotalLength,
        Self::TrailingBytes,
        Self::IpOptions,
        Self::SourceRoute,
        Self::ExtensionHeader,
        Self::ExtensionHeaderCount,
        Self::Jumbogram,
        Self::Fragment,
        Self::Tcp,
        Self::UdpLength,
        Self::NotTcp,
        Self::NotIcmp,
        Self::TcpOffset,
        Self::TcpOptions,
        Self::PortZero,
    ];

    /// Returns the stable name for counters, records and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Version => "bad-ip-version",
            Self::HeaderLength => "bad-ip-header-length",
            Self::TotalLength => "bad-ip-total-length",
            Self::TrailingBytes => "trailing-bytes",
            Self::IpOptions => "bad-ip-options",
            Self::SourceRoute => "source-route",
            Self::ExtensionHeader => "bad-extension-header",
            Self::ExtensionHeaderCount => "too-many-extension-headers",
            Self::Jumbogram => "jumbogram",
            Self::Fragment => "fragment",
            Self::Tcp => "tcp",
            Self::UdpLength => "bad-udp-length",
            Self::NotTcp => "not-tcp",
            Self::NotIcmp => "not-icmp",
            Self::TcpOffset => "bad-tcp-offset",
            Self::TcpOptions => "bad-tcp-options",
            Self::PortZero => "zero-port",
        }
    }
}
