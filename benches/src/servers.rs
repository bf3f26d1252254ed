//! The echo servers that the gateway is compared with: each returns what it receives, and does nothing else.
//!
//! All three accept in the same way (backlog 4096, no delay), run on one thread, and keep no avoidable buffer per connection;
//! tokio-tungstenite's buffers are as small as it allows.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;

use clap::ValueEnum;
use futures_util::{SinkExt, StreamExt};
use ocpp_websocket::{Connection, Encoder, Event, Outgoing, Rules, Settings};
use socket2::{Domain, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// An echo server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Echo {
    /// Plain TCP, without a WebSocket.
    Tcp,
    /// tokio-tungstenite with a read buffer of 4 KiB and no write buffer.
    Tungstenite,
    /// The gateway's WebSocket engine.
    Engine,
}

const MAX_MESSAGE: usize = 1 << 20;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; 16 * 1024]);
}

/// Prints its port, then serves until it is killed.
pub(crate) async fn serve(echo: Echo) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_nonblocking(true).expect("a socket that does not block");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    socket.listen(4096).expect("a listening socket");
    let listener = TcpListener::from_std(socket.into()).expect("a listener");
    println!("{}", listener.local_addr().expect("an address").port());
    let mut tasks = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        // Separate task types, or every task would be as large as the largest.
        match echo {
            Echo::Tcp => tasks.spawn(tcp(stream)),
            Echo::Tungstenite => tasks.spawn(tungstenite(stream)),
            Echo::Engine => tasks.spawn(engine(stream)),
        };
        // How a connection ends does not matter.
        while tasks.try_join_next().is_some() {}
    }
}

async fn tcp(mut stream: TcpStream) -> Result<(), Error> {
    loop {
        stream.readable().await?;
        let unsent = SCRATCH.with_borrow_mut(|scratch| match stream.try_read(scratch) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                let sent = match stream.try_write(&scratch[..count]) {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                    result => result.unwrap_or(0),
                };
                Ok(scratch[sent..count].to_vec())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Vec::new()),
            Err(error) => Err(error),
        })?;
        if !unsent.is_empty() {
            stream.write_all(&unsent).await?;
        }
    }
}

async fn tungstenite(mut stream: TcpStream) -> Result<(), Error> {
    shake_hands(&mut stream).await?;
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    while let Some(message) = socket.next().await {
        socket.send(message?).await?;
    }
    Ok(())
}

async fn engine(mut stream: TcpStream) -> Result<(), Error> {
    shake_hands(&mut stream).await?;
    let settings = Settings {
        rules: Rules { max_message: MAX_MESSAGE, deflate: false },
        encoder: Encoder { deflate: None, compress_above: 0 },
        read_bytes: 16 * 1024,
    };
    let mut connection = Connection::new(stream, &[], settings);
    let mut outbox: VecDeque<Outgoing> = VecDeque::new();
    loop {
        let event = poll_fn(|context| {
            if let Poll::Ready(Err(error)) = connection.poll_write(context, || outbox.pop_front()) {
                return Poll::Ready(Err(Error::Io(error)));
            }
            connection.poll_read(context).map(Ok)
        })
        .await?;
        match event {
            Ok(Event::Text { text, .. }) => outbox.push_back(Outgoing::Text(text)),
            Ok(_) => {}
            Err(_) => return Ok(()),
        }
    }
}

/// A minimal handshake, because it is not what is compared. Clients wait for the response, so nothing after it is read.
async fn shake_hands(stream: &mut TcpStream) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        stream.readable().await?;
        let mut bytes = [0; 512];
        match stream.try_read(&mut bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => request.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    let request = String::from_utf8_lossy(&request);
    let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
    let accept = ocpp_websocket::accept_key(key.unwrap_or_default().as_bytes());
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(response.as_bytes()).await
}
