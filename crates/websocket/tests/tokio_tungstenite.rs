//! An independent client on a real runtime: messages of every size in both directions, pings, and closing from either side.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::Poll;

use futures_util::{SinkExt, StreamExt};
use ocpp_websocket::{Connection, Encoder, Event, Outgoing, ReadEnd, Rules, Settings};
use tokio::io::DuplexStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

const SIZES: [usize; 9] = [0, 1, 125, 126, 1000, 65_535, 65_536, 300_000, 1_000_000];

fn server(stream: DuplexStream) -> Connection<DuplexStream> {
    let settings = Settings {
        rules: Rules { max_message: 1_000_000, deflate: false },
        encoder: Encoder { deflate: None, compress_above: 0 },
        read_bytes: 16 * 1024,
    };
    Connection::new(stream, &[], settings)
}

/// Sends every text back, and closes with 1001 when one says so. How its reading ended.
async fn echo(mut connection: Connection<DuplexStream>) -> ReadEnd {
    let mut outbox = VecDeque::new();
    loop {
        let event = poll_fn(|context| {
            match connection.poll_write(context, || outbox.pop_front()) {
                Poll::Ready(Err(error)) => panic!("{error}"),
                Poll::Ready(Ok(_)) | Poll::Pending => {}
            }
            connection.poll_read(context)
        })
        .await;
        match event {
            Ok(Event::Text { text, .. }) if text == "leave" => {
                outbox.push_back(Outgoing::Close { code: 1001, reason: "leaving" });
            }
            Ok(Event::Text { text, .. }) => outbox.push_back(Outgoing::Text(text)),
            Ok(_) => {}
            Err(end) => return end,
        }
    }
}

async fn client(stream: DuplexStream) -> WebSocketStream<DuplexStream> {
    WebSocketStream::from_raw_socket(stream, Role::Client, None).await
}

#[tokio::test]
async fn messages_of_every_size_come_back() {
    let (near, far) = tokio::io::duplex(4096);
    let talk = async {
        let mut client = client(far).await;
        for size in SIZES {
            let text: String = "gr\u{fc}\u{df}e ".chars().cycle().take(size / 2).collect();
            client.send(Message::text(text.clone())).await.unwrap();
            client.send(Message::Ping(vec![7; size.min(125)].into())).await.unwrap();
            let (mut echoed, mut ponged) = (false, false);
            while !(echoed && ponged) {
                match client.next().await.unwrap().unwrap() {
                    Message::Text(back) => echoed = back.as_str() == text,
                    Message::Pong(back) => ponged = back.len() == size.min(125),
                    other => panic!("{other:?}"),
                }
            }
        }
        let frame = CloseFrame { code: CloseCode::Library(4321), reason: "done".into() };
        client.close(Some(frame)).await.unwrap();
        let last = client.next().await.unwrap().unwrap();
        assert!(matches!(last, Message::Close(Some(frame)) if u16::from(frame.code) == 4321));
    };
    let (end, ()) = tokio::join!(echo(server(near)), talk);
    assert!(matches!(end, ReadEnd::Closed), "{end:?}");
}

#[tokio::test]
async fn a_close_of_ours_is_answered() {
    let (near, far) = tokio::io::duplex(4096);
    let talk = async {
        let mut client = client(far).await;
        client.send(Message::text("leave")).await.unwrap();
        let last = client.next().await.unwrap().unwrap();
        let Message::Close(Some(frame)) = last else { panic!("{last:?}") };
        assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1001, "leaving"));
        // Sends the answer, and sees the end.
        assert!(client.next().await.is_none_or(|end| end.is_err()));
    };
    let (end, ()) = tokio::join!(echo(server(near)), talk);
    assert!(matches!(end, ReadEnd::Closed), "{end:?}");
}

#[tokio::test]
async fn a_client_that_is_gone_is_lost() {
    let (near, far) = tokio::io::duplex(4096);
    drop(far);
    assert!(matches!(echo(server(near)).await, ReadEnd::Lost));
}
