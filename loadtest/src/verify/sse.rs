//! Server-sent events, as the gateway's `/api/v1/events` writes them.
//!
//! Owns parsing only: bytes in, messages out, however the bytes are cut. What is buffered is bounded.

/// One message of the stream.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Message {
    /// Its position in the log, if it has one.
    pub id: Option<u64>,
    /// The event's name.
    pub name: String,
    /// The data, lines joined.
    pub data: Vec<u8>,
}

/// A message longer than any event can be.
#[derive(Debug, thiserror::Error)]
#[error("a message longer than {LONGEST} bytes")]
pub struct TooLong;

/// The longest message accepted: the largest OCPP message that a gateway can be configured for is 64 MiB.
const LONGEST: usize = 65 << 20;

/// An incremental parser of a stream.
#[derive(Debug, Default)]
pub struct Stream {
    line: Vec<u8>,
    message: Message,
    has_data: bool,
}

impl Stream {
    /// Takes a piece, and passes on every message that it completes.
    ///
    /// # Errors
    /// When a message exceeds the limit.
    pub fn feed(&mut self, piece: &[u8], mut each: impl FnMut(Message)) -> Result<(), TooLong> {
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.line.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            if self.line.is_empty() {
                let message = std::mem::take(&mut self.message);
                if std::mem::take(&mut self.has_data) {
                    each(message);
                }
            } else {
                self.field();
                self.line.clear();
            }
        }
        self.line.extend_from_slice(rest);
        if self.line.len() + self.message.data.len() > LONGEST { Err(TooLong) } else { Ok(()) }
    }

    fn field(&mut self) {
        let colon = self.line.iter().position(|byte| *byte == b':').unwrap_or(self.line.len());
        let value = self.line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &self.line[..colon] {
            b"id" => self.message.id = std::str::from_utf8(value).ok().and_then(|id| id.parse().ok()),
            b"event" => self.message.name = String::from_utf8_lossy(value).into_owned(),
            b"data" => {
                if self.has_data {
                    self.message.data.push(b'\n');
                }
                self.message.data.extend_from_slice(value);
                self.has_data = true;
            }
            // Comments, and fields that a later version may add.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &[u8] =
        b":\n\nid: 7\nevent: a.b\ndata: {\ndata: \"x\":1}\n\nevent: gap\ndata: {\"from\":1}\n\nid: 9\n\n";

    fn read(pieces: &[&[u8]]) -> Vec<Message> {
        let (mut stream, mut found) = (Stream::default(), Vec::new());
        for piece in pieces {
            stream.feed(piece, |message| found.push(message)).unwrap();
        }
        found
    }

    #[test]
    fn messages_have_position_name_and_data() {
        let found = read(&[TEXT]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0], Message { id: Some(7), name: "a.b".into(), data: b"{\n\"x\":1}".to_vec() });
        assert_eq!((found[1].id, found[1].name.as_str()), (None, "gap"));
    }

    proptest! {
        #[test]
        fn where_it_is_cut_does_not_matter(one in 0..TEXT.len(), other in 0..TEXT.len()) {
            let (one, other) = (one.min(other), one.max(other));
            prop_assert_eq!(read(&[&TEXT[..one], &TEXT[one..other], &TEXT[other..]]), read(&[TEXT]));
        }
    }
}
