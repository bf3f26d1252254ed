//! One connection of the load. Frames are built once and patched, and answers are counted but not parsed, to keep the load cheap.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// What a server speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialect {
    /// Bytes, which it returns.
    Bytes,
    /// A WebSocket that returns messages.
    Echo,
    /// OCPP 1.6.
    Ocpp,
}

/// Bytes of an ordinary message.
pub(crate) const MESSAGE_BYTES: usize = 400;
/// Bytes of a large message.
pub(crate) const LARGE_BYTES: usize = 60_000;

const BOOT: &str =
    r#"[2,"00000000","BootNotification",{"chargePointVendor":"Vendor","chargePointModel":"Model"}]"#;
const VALUES: &str = r#"{"connectorId":1,"meterValue":[{"timestamp":"2026-11-20T10:30:00.123Z","sampledValue":[{"value":"12345.6","measurand":"Energy.Active.Import.Register","unit":"Wh"},{"value":"16.1","measurand":"Current.Import","phase":"L1","unit":"A"},{"value":""#;

/// A message whose id can be patched.
pub(crate) struct Message {
    frame: Vec<u8>,
    id_at: usize,
}

impl Message {
    /// A MeterValues CALL of this many bytes.
    pub(crate) fn meter_values(bytes: usize) -> Self {
        let start = format!(r#"[2,"00000000","MeterValues",{VALUES}"#);
        let end = r#""}]}]}]"#;
        Self::new(&format!("{start}{}{end}", "1".repeat(bytes - start.len() - end.len())))
    }

    /// The first message of a station.
    pub(crate) fn boot() -> Self {
        Self::new(BOOT)
    }

    /// A masked text frame. The mask is zero, which is valid, so that the id can be patched.
    fn new(text: &str) -> Self {
        let mut frame = vec![0x81];
        if text.len() < 126 {
            frame.push(0x80 | text.len() as u8);
        } else {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(text.len()).expect("a length").to_be_bytes());
        }
        frame.extend_from_slice(&[0; 4]);
        let id_at = frame.len() + 4;
        frame.extend_from_slice(text.as_bytes());
        Self { frame, id_at }
    }
}

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; 64 * 1024]);
}

/// A connection.
pub(crate) struct Station {
    stream: TcpStream,
    dialect: Dialect,
    sent: u32,
}

impl Station {
    /// Connects, performs the handshake, and waits for the answer to its first message.
    pub(crate) async fn connect(address: SocketAddr, dialect: Dialect, number: usize) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut station = Self { stream, dialect, sent: 0 };
        if dialect != Dialect::Bytes {
            let request = format!(
                "GET /ocpp/B-{number} HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                 Sec-WebSocket-Protocol: ocpp1.6\r\n\r\n"
            );
            station.stream.write_all(request.as_bytes()).await?;
            station.read_until(|read| read.ends_with(b"\r\n\r\n").then_some(read.len())).await?;
        }
        station.call(&Message::boot()).await?;
        Ok(station)
    }

    /// Sends a message and waits for its answer.
    pub(crate) async fn call(&mut self, message: &Message) -> io::Result<()> {
        self.sent += 1;
        let unsent = SCRATCH.with_borrow_mut(|scratch| {
            let frame = scratch.get_mut(..message.frame.len()).expect("room for the largest message");
            frame.copy_from_slice(&message.frame);
            frame[message.id_at..message.id_at + 8].copy_from_slice(format!("{:08}", self.sent).as_bytes());
            let sent = match self.stream.try_write(frame) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                result => result?,
            };
            io::Result::Ok(frame[sent..].to_vec())
        })?;
        if !unsent.is_empty() {
            self.stream.write_all(&unsent).await?;
        }
        let sent_back = message.frame.len();
        match self.dialect {
            Dialect::Bytes => self.read_bytes(sent_back).await,
            // The echo has no mask.
            Dialect::Echo => self.read_bytes(sent_back - 4).await,
            Dialect::Ocpp => {
                let whole = |read: &[u8]| match read {
                    [_, length, ..] if *length < 126 => Some(2 + usize::from(*length)),
                    [_, 126, high, low, ..] => Some(4 + usize::from(u16::from_be_bytes([*high, *low]))),
                    _ => None,
                };
                self.read_until(whole).await
            }
        }
    }

    async fn read_bytes(&mut self, mut count: usize) -> io::Result<()> {
        while count > 0 {
            count = count.saturating_sub(self.read_some(|_| ()).await?);
        }
        Ok(())
    }

    /// Reads until `whole`, given everything read so far, returns a length, and that many bytes have been read.
    async fn read_until(&mut self, whole: impl Fn(&[u8]) -> Option<usize>) -> io::Result<()> {
        let mut read = Vec::new();
        while whole(&read).is_none_or(|count| read.len() < count) {
            self.read_some(|bytes| read.extend_from_slice(bytes)).await?;
        }
        Ok(())
    }

    async fn read_some(&mut self, mut see: impl FnMut(&[u8])) -> io::Result<usize> {
        loop {
            self.stream.readable().await?;
            let read: io::Result<usize> = SCRATCH.with_borrow_mut(|scratch| {
                let count = self.stream.try_read(scratch)?;
                see(&scratch[..count]);
                Ok(count)
            });
            match read {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }
}
