//! The servers that are compared with: each sends back what it receives, and does nothing else.
//!
//! All three accept alike (backlog 4096, no delay), run on one thread, and keep no buffer per connection that they can do
//! without; tokio-tungstenite's are as small as it lets them be.

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
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// An echo server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Echo {
    /// Bytes, without a WebSocket.
    Tcp,
    /// tokio-tungstenite with a read buffer of 4 KiB and no write buffer.
    Tungstenite,
    /// The gateway's engine.
    Engine,
}

const MAX_MESSAGE: usize = 1 << 20;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; 16 * 1024]);
}

/// Serves until it is killed; says its port first.
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
        // Each its own kind of task, or the smallest would be as large as the largest.
        match echo {
            Echo::Tcp => tasks.spawn(tcp(stream)),
            Echo::Tungstenite => tasks.spawn(tungstenite(stream)),
            Echo::Engine => tasks.spawn(engine(stream)),
        };
        // A connection that ends, however it ends, is over.
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

async fn tungstenite(stream: TcpStream) -> Result<(), Error> {
    let mut socket = accept_async_with_config(stream, Some(tuned())).await?;
    while let Some(message) = socket.next().await {
        socket.send(message?).await?;
    }
    Ok(())
}

fn tuned() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(4096)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

async fn engine(stream: TcpStream) -> Result<(), Error> {
    // The handshake is not what is compared; a client waits for its end, so nothing was read too far.
    let stream = Box::pin(accept_async_with_config(stream, Some(tuned()))).await?.into_inner();
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
