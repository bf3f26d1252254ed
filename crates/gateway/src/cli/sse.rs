//! Server-sent events (HTML standard, section 9.2), as far as the gateway writes them. Owns cutting pieces into events; the
//! size of one event is bounded.

use super::Failure;

/// An event with its envelope and its payload is far smaller than this.
const LARGEST_EVENT: usize = 128 << 20;

/// One event of the stream, or a bare position.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct StreamEvent {
    /// The position.
    pub(super) id: Option<u64>,
    /// What the stream calls it.
    pub(super) name: String,
    /// Its lines, joined. None when only the position was told.
    pub(super) data: Option<String>,
}

/// Cuts a stream into events.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    bytes: Vec<u8>,
    /// Up to here everything has been given out.
    start: usize,
    /// Up to here no event ends.
    searched: usize,
}

impl Cutter {
    /// Takes a piece of the stream.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Result<(), Failure> {
        // Moved once a piece, not once an event.
        self.bytes.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        if self.bytes.len() + piece.len() > LARGEST_EVENT {
            return Err(Failure::NotUnderstood(format!("an event with more than {LARGEST_EVENT} bytes")));
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// The next whole event. What is only a comment is none.
    pub(super) fn next_event(&mut self) -> Option<StreamEvent> {
        loop {
            // The first of the two line breaks may have been searched already.
            let from = self.searched.saturating_sub(1).max(self.start);
            let Some(found) = self.bytes[from..].windows(2).position(|pair| pair == b"\n\n") else {
                self.searched = self.bytes.len();
                return None;
            };
            let end = from + found + 2;
            let event = parse(&String::from_utf8_lossy(&self.bytes[self.start..end]));
            (self.start, self.searched) = (end, end);
            if event.is_some() {
                return event;
            }
        }
    }
}

fn parse(block: &str) -> Option<StreamEvent> {
    let mut event = StreamEvent { id: None, name: String::new(), data: None };
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => event.id = value.parse().ok(),
            "event" => value.clone_into(&mut event.name),
            "data" => match &mut event.data {
                // Line breaks stand between tokens of JSON only, where a space does as well.
                Some(data) => {
                    data.push(' ');
                    data.push_str(value);
                }
                None => event.data = Some(value.to_owned()),
            },
            _ => {}
        }
    }
    (event.id.is_some() || event.data.is_some()).then_some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"id: 6\n\n:\n\nid: 7\nevent: t.x\ndata: {\"a\":\ndata: \"\xc3\xbc\"}\n\nevent: missed\ndata: {\"events\":3}\n\nid: 8";

    #[test]
    fn however_a_stream_is_cut_its_events_are_the_same() {
        for size in 1..=STREAM.len() {
            let mut cutter = Cutter::default();
            let mut events = Vec::new();
            for piece in STREAM.chunks(size) {
                cutter.feed(piece).unwrap();
                events.extend(std::iter::from_fn(|| cutter.next_event()));
            }
            let event = |id, name: &str, data: Option<&str>| StreamEvent {
                id,
                name: name.to_owned(),
                data: data.map(str::to_owned),
            };
            let expected = [
                event(Some(6), "", None),
                event(Some(7), "t.x", Some("{\"a\": \"ü\"}")),
                event(None, "missed", Some("{\"events\":3}")),
            ];
            assert_eq!(events, expected, "in pieces of {size}");
        }
    }
}
