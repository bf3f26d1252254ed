//! Waits for a connection's request without reading it.
//!
//! Owns peeking at the bytes that have arrived. The request stays in the kernel until it is complete, so a connection that sends
//! nothing, or one byte a second, costs its socket and a task, but no buffer and no permit to be answered. Does not judge the
//! request: the server parses it again.

use std::io;

use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// The largest request head. The server has the same limit and refuses anything longer.
pub(super) const MAX_HEAD_BYTES: usize = 16 * 1024;

/// The server's limit.
const MAX_HEADERS: usize = 100;

/// Returns when the server need not wait for more bytes: the request is complete, too long, or not a request.
///
/// # Errors
/// [`io::ErrorKind::UnexpectedEof`] if the peer closes the connection first, or the operating system's error.
pub(super) async fn request(stream: &TcpStream) -> io::Result<()> {
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        // `WouldBlock` also makes tokio wait for more bytes than there are.
        match stream.try_io(Interest::READABLE, || peek(stream)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // No more bytes will arrive, and the stream would stay ready for ever.
                if ready.is_read_closed() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            peeked => return peeked,
        }
    }
}

fn peek(stream: &TcpStream) -> io::Result<()> {
    let mut head = [0; MAX_HEAD_BYTES];
    let (length, _) = recv(stream, &mut head, RecvFlags::PEEK)?;
    match head.get(..length).unwrap_or_default() {
        [] => Err(io::ErrorKind::UnexpectedEof.into()),
        head if length < MAX_HEAD_BYTES && is_partial(head) => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}

/// Whether the server needs more bytes to respond. Decided by the parser that the server uses.
fn is_partial(head: &[u8]) -> bool {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    matches!(httparse::Request::new(&mut headers).parse(head), Ok(httparse::Status::Partial))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        far.set_nodelay(true).unwrap();
        (listener.accept().await.unwrap().0, far)
    }

    async fn is_waiting(near: &TcpStream) -> bool {
        tokio::time::timeout(Duration::from_millis(50), request(near)).await.is_err()
    }

    #[tokio::test]
    async fn a_request_in_pieces_is_awaited_and_not_read() {
        const REQUEST: &[u8] = b"\r\nGET /ocpp/CP-1 HTTP/1.1\r\nHost: x\r\n\r\n";
        let (mut near, mut far) = pair().await;
        assert!(is_waiting(&near).await, "nothing has arrived");
        for piece in REQUEST.chunks(REQUEST.len() - 1) {
            assert!(is_waiting(&near).await);
            far.write_all(piece).await.unwrap();
        }
        request(&near).await.unwrap();
        let mut read = vec![0; REQUEST.len()];
        near.read_exact(&mut read).await.unwrap();
        assert_eq!(read, REQUEST);
    }

    #[tokio::test]
    async fn what_cannot_become_a_request_is_not_awaited() {
        let endless = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'x'; MAX_HEAD_BYTES]].concat();
        for bytes in [b"\x16\x03\x01\x02".as_slice(), b"GET\0", &endless] {
            let (near, mut far) = pair().await;
            far.write_all(bytes).await.unwrap();
            request(&near).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_peer_that_leaves_is_noticed() {
        for said in [b"".as_slice(), b"GET / HTTP/1.1\r\n"] {
            let (near, mut far) = pair().await;
            far.write_all(said).await.unwrap();
            assert!(is_waiting(&near).await);
            drop(far);
            assert_eq!(request(&near).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
