//! Why a session ends: a closed set of words, and everything that follows from each in one table.

/// Why a session ended. The word is in the `disconnected` event, on the metric and in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// The station sent a close frame.
    StationClosed,
    /// The connection broke without one.
    ConnectionLost,
    /// A newer connection of the same identity took its place.
    Replaced,
    /// Nothing came in for `session.idle_timeout`.
    Idle,
    /// The station took nothing for `session.write_timeout`.
    SlowReader,
    /// The station broke RFC 6455.
    ProtocolError,
    /// As many commands in a row as `commands.close_after_timeouts` says were not answered in time.
    Unresponsive,
    /// A message was larger than `session.max_message_size`.
    MessageTooBig,
    /// A text message was not UTF-8.
    InvalidUtf8,
    /// A binary message on a listener that is not lenient.
    BinaryFrame,
    /// Storage has not acknowledged for `bus.hold_limit`: offline the station keeps its messages.
    BusHolding,
    /// The gateway is leaving.
    Shutdown,
    /// An operator asked for it.
    Operator,
    /// The gateway ended without an end of its sessions. The next one tells of it.
    GatewayLost,
}

impl CloseReason {
    /// Every reason, for metrics.
    pub const ALL: [Self; 14] = [
        Self::StationClosed,
        Self::ConnectionLost,
        Self::Replaced,
        Self::Idle,
        Self::SlowReader,
        Self::ProtocolError,
        Self::Unresponsive,
        Self::MessageTooBig,
        Self::InvalidUtf8,
        Self::BinaryFrame,
        Self::BusHolding,
        Self::Shutdown,
        Self::Operator,
        Self::GatewayLost,
    ];

    /// The word, the close code that the gateway sends (if it has something to say and somebody to say it to), and the
    /// text in the close frame. OCPP defines no close codes; these follow RFC 6455 section 7.4.
    const fn row(self) -> (&'static str, Option<u16>, &'static str) {
        match self {
            Self::StationClosed => ("stationClosed", None, ""),
            Self::ConnectionLost => ("connectionLost", None, ""),
            Self::Replaced => ("replaced", Some(1008), "replaced by a newer connection"),
            Self::Idle => ("idle", Some(1008), "nothing received for too long"),
            Self::SlowReader => ("slowReader", Some(1008), "nothing taken for too long"),
            Self::ProtocolError => ("protocolError", Some(1002), "protocol error"),
            Self::Unresponsive => ("unresponsive", Some(1008), "commands are not answered"),
            Self::MessageTooBig => ("messageTooBig", Some(1009), "message too big"),
            Self::InvalidUtf8 => ("invalidUtf8", Some(1007), "text is not UTF-8"),
            Self::BinaryFrame => ("binaryFrame", Some(1003), "text messages only"),
            Self::BusHolding => ("busHolding", Some(1013), "try again later"),
            Self::Shutdown => ("shutdown", Some(1001), "the server is going away"),
            Self::Operator => ("operator", Some(1000), "closed by an operator"),
            Self::GatewayLost => ("gatewayLost", None, ""),
        }
    }

    /// The word in the event, on the metric and in the log.
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The close code that the gateway sends; none when there is nothing to say or nobody to say it to.
    pub const fn code(self) -> Option<u16> {
        self.row().1
    }

    /// The text in the close frame.
    pub const fn text(self) -> &'static str {
        self.row().2
    }
}
