//! The OCPP versions, and which station uses which.

use crate::random::Random;
use crate::scenario::Versions;

/// An OCPP version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// 1.6
    V16,
    /// 2.0.1
    V201,
    /// 2.1
    V21,
}

impl Version {
    /// Every version.
    pub const ALL: [Self; 3] = [Self::V16, Self::V201, Self::V21];

    /// Returns the WebSocket subprotocol.
    pub fn subprotocol(self) -> &'static str {
        match self {
            Self::V16 => "ocpp1.6",
            Self::V201 => "ocpp2.0.1",
            Self::V21 => "ocpp2.1",
        }
    }

    pub(super) fn of(number: u32, shares: Versions) -> Self {
        // Not the number itself: workers and gateways would each get stations of few versions.
        let place = Random::new(u64::from(number)).below(shares.total());
        if place < shares.v16 {
            Self::V16
        } else if place < shares.v16 + shares.v201 {
            Self::V201
        } else {
            Self::V21
        }
    }
}
